//! A process learns of the end of a child.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use super::context;
use crate::holds::reaped;

/// `syscalls:sys_exit_wait4` (also waitpid(3)): what it returns has been reaped, and whatever the child did is over
/// for those that come after.
///
/// No tracepoint shows who reaps whom: `sched_process_free` comes later, in another task.
#[tracepoint]
pub fn wait4_returns(ctx: TracePointContext) -> u32 {
    let pid = context::result(&ctx);
    if pid > 0 {
        reaped::note(pid as u32);
    }
    0
}

/// `syscalls:sys_exit_waitid`: the same; the pid is in the caller's `siginfo_t`.
#[tracepoint]
pub fn waitid_returns(ctx: TracePointContext) -> u32 {
    if context::result(&ctx) == 0 {
        reaped::note_waitid();
    }
    0
}
