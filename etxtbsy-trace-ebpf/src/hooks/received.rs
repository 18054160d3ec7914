//! Fds arrive in a message, or a process fetches one from another.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use super::context;
use crate::holds::received;

/// `syscalls:sys_exit_recvmsg`, `recvmmsg`, `pidfd_getfd`.
///
/// At the exit, when the fds are in the table. User space attaches this once a failure has shown a holder
/// whose fd came in such a way, because it would cost each message on machines where none does.
#[tracepoint]
pub fn received(ctx: TracePointContext) -> u32 {
    let result = context::result(&ctx);
    if result < 0 {
        return 0;
    }
    received::note_call(context::syscall(&ctx), result as u32);
    0
}
