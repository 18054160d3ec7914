//! A process opens a file for writing.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{HoldKey, SLOTS, Via};

use crate::{
    holds::{origin, repair, table},
    kernel::{self, offset, word},
    maps::{HOLDS, ORPHANS},
};

/// Notes that current has opened a file, if it did so for writing; returns the time of that, else 0.
#[inline(always)]
pub(crate) fn note(fd: u32) -> u64 {
    let (table, file) = kernel::current_file(fd);
    if file == 0 || !kernel::is_writer(file) {
        return 0;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let task = kernel::current();
    let inode = kernel::inode_of(file);
    table::acquire(task, table, fd, file, Via::Open, now, |hold| {
        hold.opened = kernel::actor(task, now);
    });
    // It is of an earlier description at the same address.
    if ORPHANS.get_ptr(file).is_some() {
        let _ = ORPHANS.remove(file);
    }
    if !kernel::is_last_reference(file) {
        name_opener(inode, file, now);
    }
    if repair::is_expected() {
        repair::check_repair(file, inode, now);
    }
    now
}

/// `IORING_FILE_INDEX_ALLOC`, include/uapi/linux/io_uring.h: the ring chooses a place.
const FILE_INDEX_ALLOC: u32 = u32::MAX;

/// Notes the file that a request of an io_uring has opened, given the request and its result. If the file was
/// opened straight into the ring's own table, it has no fd: who opened it is kept for the search.
#[inline(always)]
pub(crate) fn note_io_uring(request: u64, fd: u32) {
    let slot = if offset!(io_uring_open_slot) == u32::MAX {
        0
    } else {
        kernel::int(request, offset!(io_uring_open_slot))
    };
    if slot == 0 {
        note(fd);
    } else {
        // The ring's place, counted from 1, or the one that it chose.
        let at = if slot == FILE_INDEX_ALLOC { fd } else { slot - 1 };
        let ring = word(request, offset!(io_uring_request_context));
        note_outlived(kernel::registered(ring, at), at);
    }
}

/// Notes for the search who opened a description that has no fd, if it is open for writing.
#[inline(always)]
pub(crate) fn note_outlived(file: u64, at: u32) {
    if file != 0 && kernel::is_writer(file) {
        origin::note_outlived(file, at);
    }
}

/// Enters current as opener in the copies of an fd that forks made before the program saw its open.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn name_opener(inode: u64, file: u64, now: u64) -> i32 {
    for slot in 0..SLOTS {
        name_opener_at(inode, slot, file, now);
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn name_opener_at(inode: u64, slot: u32, file: u64, now: u64) -> i32 {
    if let Some(hold) = HOLDS.get_ptr_mut(HoldKey { inode, slot, pad: 0 }) {
        // SAFETY: a map value, see `maps`.
        let hold = unsafe { &mut *hold };
        if hold.file == file && hold.opened.time_ns != now {
            hold.opened = kernel::actor(kernel::current(), now);
        }
    }
    0
}
