//! A process ends.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{holds::exit, kernel};

/// `SIGCHLD`, the same number on every architecture that Rust and eBPF share.
const SIGCHLD: i32 = 17;

/// `sched:sched_process_exit`, raw: a thread is in `do_exit`, its files still there.
///
/// Nothing is closed yet (`exit_files` comes later, and the last references are task work after that).
/// So the program only marks the holds of a table whose last user this is. As a rule that is the last
/// thread of a process; but threads can have tables of their own (`unshare`), and processes can share one
/// (`CLONE_FILES`).
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exiting(ctx: RawTracePointContext) -> i32 {
    exit::begin(ctx.arg(0));
    0
}

/// `signal:signal_generate`, raw: the kernel notifies the parent (`exit_notify`). This comes after the files
/// and the task work, and is the first sign that they are done.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn sigchld_sent(ctx: RawTracePointContext) -> i32 {
    let signal: i32 = ctx.arg(0);
    if signal == SIGCHLD {
        exit::parent_notified(kernel::current());
    }
    0
}

/// `sched:sched_process_free`, raw: the end of those whose parent gets no signal.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn freed(ctx: RawTracePointContext) -> i32 {
    exit::freed(ctx.arg(0));
    0
}
