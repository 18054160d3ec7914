//! An exec begins, passes its point of no return, and returns.

use aya_ebpf::{
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use aya_log_ebpf::info;
use etxtbsy_trace_common::TailCall;

use super::context::{self, tail_call};
use crate::{
    failure::{exec_failed, near_miss, outcome},
    holds::exec,
    kernel::{self, ETXTBSY},
    maps::TAIL_CALLS,
};

/// `syscalls:sys_enter_execve`: notes when the call began and which path it was given.
///
/// The exit shows neither; and a holder that closed the file before the call began cannot have made it fail.
#[tracepoint]
pub fn enter_execve(ctx: TracePointContext) -> u32 {
    exec::begin(context::argument(&ctx, 0));
    0
}

/// `syscalls:sys_enter_execveat`: as above, the path being the second argument.
#[tracepoint]
pub fn enter_execveat(ctx: TracePointContext) -> u32 {
    exec::begin(context::argument(&ctx, 1));
    0
}

/// `sched:sched_process_exec`, raw: the close-on-exec fds have left the table.
///
/// `do_close_on_exec` (in `begin_new_exec`) has emptied their places. A file whose last reference went with
/// its place is still open: `fput` has put it into the task's work, where it waits until the execve returns
/// to user mode. This is the first point after that where the program can distinguish the two.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn execed(ctx: RawTracePointContext) -> i32 {
    exec::execed(ctx.arg(0), ctx.arg(2));
    0
}

/// `syscalls:sys_exit_execve` and `sys_exit_execveat`.
///
/// After a failure, the files that the exec opened wait in the task's work: so the busy one can still be
/// found, and every holder that has not closed it since the exec was refused is still there. After a
/// success, the kernel drops next the files that the exec closed.
#[tracepoint]
pub fn exec_returns(ctx: TracePointContext) -> u32 {
    returns(&ctx)
}

/// The same tracepoints, where programs can be preempted (7.2 on): while a preempted instance still runs,
/// the kernel skips the program for other tasks on that CPU. This one comes next, and does what the first
/// one has not done: that would have forgotten the call.
#[tracepoint]
pub fn exec_returns_again(ctx: TracePointContext) -> u32 {
    if !exec::is_noted(kernel::current()) {
        return 0;
    }
    returns(&ctx)
}

#[inline(always)]
fn returns(ctx: &TracePointContext) -> u32 {
    let ret = context::result(ctx);
    let task = kernel::current();
    if ret == 0 {
        exec::succeeded(task);
        near_miss::note_success(task, context::syscall(ctx));
    } else if ret == ETXTBSY {
        if exec_failed::report_failure(task, context::syscall(ctx), 0) != 0 {
            info!(ctx, "exec of process {} failed", kernel::tgid_of(task));
        }
    }
    exec::forget(task);
    if ret == ETXTBSY && outcome::is_open(task) {
        tail_call(ctx, &TAIL_CALLS, TailCall::Search);
        outcome::end_failure(task, 1);
    }
    0
}
