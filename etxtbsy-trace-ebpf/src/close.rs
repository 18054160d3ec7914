//! An fd is closed.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{
    copied,
    hold::{self, Event},
    kernel,
    maps::TABLES,
};

/// `syscalls:sys_enter_close`.
///
/// At the entry, where the fd is an argument; the exit does not tell which fd it was. The file is
/// dropped a few hundred nanoseconds later (up to 6.1 when the task returns to user mode), so the
/// hold goes to the ended ones, which a failure in that moment still sees.
#[tracepoint]
pub fn closing(ctx: TracePointContext) -> u32 {
    let fd = kernel::argument(&ctx, 0);
    hold::release_closing(kernel::current_table(), fd as u32);
    0
}

/// `syscalls:sys_exit_close_range`.
///
/// At the exit, where the table shows which fds are gone, whatever the flags were.
#[tracepoint]
pub fn closed_range(_ctx: TracePointContext) -> u32 {
    let task = kernel::current();
    let table = kernel::table_of(task);
    if TABLES.get_ptr(table).is_some() {
        hold::walk(table, task, kernel::tgid_of(task), Event::Range);
    } else {
        // Perhaps a new table (CLOSE_RANGE_UNSHARE).
        copied::left_shared(task);
    }
    0
}
