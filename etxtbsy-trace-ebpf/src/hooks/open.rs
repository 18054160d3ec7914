//! An open returns.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use etxtbsy_trace_common::TailCall;

use super::context::{self, tail_call};
use crate::{holds::open, kernel::ETXTBSY, maps::TAIL_CALLS, stacks};

/// `syscalls:sys_exit_open`, `openat`, `openat2`, `creat`, `open_by_handle_at`.
///
/// At the exit, because the fd and its `struct file` exist only then. The program takes the file from
/// current's table, so nothing has to be remembered from the entry. If another thread forks between
/// `fd_install` and this point, the fork copies an fd that is not noted yet; this program then gives the
/// child's hold its opener.
#[tracepoint]
pub fn opened(ctx: TracePointContext) -> u32 {
    let fd = context::result(&ctx);
    if fd < 0 {
        if fd == ETXTBSY {
            tail_call(&ctx, &TAIL_CALLS, TailCall::WriteRefused);
        }
        return 0;
    }
    let now = open::note(fd as u32);
    if now != 0 {
        stacks::note_open(now);
    }
    0
}
