//! A process duplicates an fd.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use super::context;
use crate::holds::dup;

/// `syscalls:sys_exit_dup`, `dup2`, `dup3`, `fcntl`.
///
/// At the exit, where the table shows the returned fd. `fcntl` returns other numbers too; such a number is
/// an fd that is already noted, or one that should be.
#[tracepoint]
pub fn duplicated(ctx: TracePointContext) -> u32 {
    let fd = context::result(&ctx);
    if fd < 0 {
        return 0;
    }
    dup::note(fd as u32);
    0
}
