//! A process closes fds.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use super::context;
use crate::holds::close;

/// `syscalls:sys_enter_close`.
///
/// At the entry, where the fd is an argument; the exit does not show it. The kernel drops the file a few
/// hundred nanoseconds later (up to 6.1 when the task returns to user mode). So the hold moves to the ended
/// ones, which a failure at that moment still reads.
#[tracepoint]
pub fn closing(ctx: TracePointContext) -> u32 {
    close::begin(context::argument(&ctx, 0) as u32);
    0
}

/// `syscalls:sys_exit_close_range`.
///
/// At the exit, where the table shows which fds are gone, whatever the flags were.
#[tracepoint]
pub fn closed_range(_ctx: TracePointContext) -> u32 {
    close::range_closed();
    0
}
