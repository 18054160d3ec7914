//! A question that user space asks after a failure.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::kernel;

/// Attached to nothing: run by `BPF_PROG_TEST_RUN`, with a `struct task_struct *` and a
/// `struct file *`. Says whether the file's last reference still waits in the task's work.
///
/// No tracepoint tells when a task gets to its work; an fd that left its table in an exec keeps
/// the file busy until then.
#[raw_tracepoint]
pub fn still_waits(ctx: RawTracePointContext) -> i32 {
    kernel::in_works(ctx.arg(0), ctx.arg(1)) as i32
}
