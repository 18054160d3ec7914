//! The other direction: an open for writing, or a truncate, fails because a process runs the file.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use etxtbsy_trace_common::TailCall;

use super::context::{self, tail_call};
use crate::{
    failure::{outcome, write_refused},
    kernel::{self, ETXTBSY},
    maps::TAIL_CALLS,
};

/// `syscalls:sys_exit_truncate`; and the exits of opens, by a tail call of [`super::open::opened`].
///
/// When the call returns, the kernel no longer holds a reference to the file. The path is in the
/// arguments that the task's saved registers still have: [`crate::failure::resolve`] walks it again through
/// the kernel's own entries, and [`crate::failure::runners`] finds who runs the file.
#[tracepoint]
pub fn write_refused(ctx: TracePointContext) -> u32 {
    if context::result(&ctx) != ETXTBSY {
        return 0;
    }
    if write_refused::report_call(context::syscall(&ctx)) {
        tail_call(&ctx, &TAIL_CALLS, TailCall::Resolve);
        outcome::end_failure(kernel::current(), 1);
    }
    0
}
