//! A process closes fds.

use etxtbsy_trace_common::How;

use crate::{
    holds::{
        fd_table_copy, table,
        table_walk::{self, Event},
    },
    kernel,
    maps::{HOLDS, TABLES},
};

/// Ends the hold of an fd that current is about to close.
#[inline(always)]
pub(crate) fn begin(fd: u32) {
    table::release_closing(kernel::current_table(), fd);
}

/// Ends the holds of the fds that current has closed by close_range.
#[inline(always)]
pub(crate) fn range_closed() {
    let task = kernel::current();
    let table = kernel::table_of(task);
    if TABLES.get_ptr(table).is_some() {
        table_walk::walk(table, task, kernel::tgid_of(task), Event::Range);
    } else {
        // Perhaps a new table (CLOSE_RANGE_UNSHARE).
        fd_table_copy::left_shared(task);
    }
}

/// An fd has been closed, if its hold's description is not there any more.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn compat_closed(task: u64, fd: u32) -> i32 {
    let table = kernel::table_of(task);
    if let Some(key) = table::key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
    {
        // SAFETY: a map value, see `maps`.
        let (file, inode) = unsafe { ((*hold).file, (*hold).inode) };
        if kernel::file_at(table, fd) != file {
            table::release(table, fd, How::CloseRange, !kernel::is_open(file, inode) as u32);
        }
    }
    0
}
