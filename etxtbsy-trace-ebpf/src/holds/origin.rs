//! Where a hold comes from: who opened its description, and how its process got the fd.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Actor, Hold, HoldKey, PROBES, SLOTS, Stage, Via};

use crate::{
    holds::table,
    kernel::{self, offset, word},
    maps::{ANY, ENDED, HOLDS, LINEAGE, ORPHANS, ZERO},
};

/// Finds who opened the description at an fd, for a copy of that fd: from the hold that the fd has, or had a
/// moment ago. Leaves `opener` as it is if that is not known.
///
/// Returns when the fd's hold ended, if it did and the table does not show the description there again;
/// else 0.
#[inline(always)]
pub(crate) fn find_opener(opener: &mut Actor, table: u64, fd: u32, file: u64, inode: u64) -> u64 {
    if let Some(key) = table::key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
        // SAFETY: a map value, see `maps`.
        && unsafe { (*hold).file } == file
    {
        // SAFETY: a map value, see `maps`.
        *opener = unsafe { (*hold).opened };
        return 0;
    }
    let slot = ended_at(table, fd, file, inode);
    let Some(hold) = ENDED.get_ptr(HoldKey { inode, slot: slot as u32, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    unsafe {
        *opener = (*hold).opened;
        if kernel::file_at(table, fd) == file { 0 } else { (*hold).released_ns }
    }
}

/// The place in `ENDED` of the hold that an fd had; [`SLOTS`] if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ended_at(table: u64, fd: u32, file: u64, inode: u64) -> u64 {
    let home = table::home(table, fd);
    for probe in 0..PROBES {
        let slot = home.wrapping_add(probe) % SLOTS;
        if let Some(hold) = ENDED.get_ptr(HoldKey { inode, slot, pad: 0 })
            // SAFETY: a map value, see `maps`.
            && unsafe { (*hold).file == file && (*hold).table == table && (*hold).fd == fd }
        {
            return slot as u64;
        }
    }
    SLOTS as u64
}

/// Finds who opened the description of a hold that neither an open nor a fork made, and how this process
/// got it, if it has other fds of it.
#[inline(always)]
pub(crate) fn find_origin(hold: &mut Hold, file: u64) {
    let inode = hold.inode;
    let slot = other_at(inode, file, hold.tgid) as u32;
    if let Some(own) = HOLDS.get_ptr(HoldKey { inode, slot, pad: 0 }) {
        // SAFETY: a map value, see `maps`.
        let own = unsafe { &*own };
        hold.opened = own.opened;
        hold.forked = own.forked;
        if hold.via == Via::Unknown as u32 {
            hold.via = own.via;
        }
    }
    if hold.opened.time_ns == 0 {
        let slot = other_at(inode, file, 0) as u32;
        if let Some(other) = HOLDS.get_ptr(HoldKey { inode, slot, pad: 0 }) {
            // SAFETY: a map value, see `maps`.
            hold.opened = unsafe { (*other).opened };
        }
    }
    // A description that the task is opening now may have the address of an earlier one.
    if hold.opened.time_ns == 0
        && !kernel::is_open_call(kernel::last_call(hold.task))
        && let Some(orphan) = ORPHANS.get_ptr(file)
        // SAFETY: a map value, see `maps`.
        && unsafe {
            (*orphan).file == file
                && (*orphan).flags == hold.flags
                && (*orphan).ino == hold.ino
                && (*orphan).generation == hold.generation
        }
    {
        // SAFETY: as above.
        hold.opened = unsafe { (*orphan).opened };
    }
}

/// When the opener of a description closed its own fd of it, while something else kept it open; 0 if no
/// program saw that. A global function, so that the verifier follows what comes next once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn closed_ns(inode: u64, file: u64, opened_ns: u64) -> u64 {
    match ORPHANS.get_ptr(file) {
        // SAFETY: a map value, see `maps`.
        Some(orphan)
            if unsafe { (*orphan).inode == inode && (*orphan).opened.time_ns == opened_ns } =>
        {
            // SAFETY: as above.
            unsafe { (*orphan).released_ns }
        }
        _ => 0,
    }
}

/// The place of a hold of the same description: one of that process, or, if `tgid` is 0, one whose
/// opener is known. [`SLOTS`] if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn other_at(inode: u64, file: u64, tgid: u32) -> u64 {
    for slot in 0..SLOTS {
        if is_other(inode, slot, file, tgid) != 0 {
            return slot as u64;
        }
    }
    SLOTS as u64
}

/// Whether [`other_at`] looks for the hold in a place. A function of its own, which the verifier follows
/// once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_other(inode: u64, slot: u32, file: u64, tgid: u32) -> i32 {
    let Some(other) = HOLDS.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let other = unsafe { &*other };
    // If its process is ending, the description may be freed, and its address in use again.
    let same = (other.file == file) & (other.stage == Stage::Held as u32);
    let wanted = if tgid == 0 { other.opened.time_ns != 0 } else { other.tgid == tgid };
    (same & wanted) as i32
}

/// Notes current as the opener of a description that has no fd, as if current had closed its fd.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_outlived(file: u64, fd: u32) -> i32 {
    let Some(zero) = ZERO.get_ptr(0) else { return 0 };
    // SAFETY: a map value of zeros, at least as large as a hold.
    let _ = ORPHANS.insert(file, unsafe { &*zero.cast::<Hold>() }, ANY);
    let Some(hold) = ORPHANS.get_ptr_mut(file) else { return 0 };
    let task = kernel::current();
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a map value, of zeros.
    unsafe {
        table::begin(hold, task, 0, fd, file, Via::Unknown, now);
        (*hold).opened = kernel::actor(task, now);
        (*hold).stage = Stage::Released as u32;
        (*hold).file = file;
    }
    0
}

/// Notes that a hold came to its process by a fork, if that fork was after the open; else notes that it did
/// not.
///
/// # Safety
///
/// `hold` can be written.
#[inline(always)]
pub(crate) unsafe fn came_by_fork(hold: *mut Hold, task: u64) {
    let start_ns = word(word(task, offset!(task_group_leader)), offset!(task_start_time));
    // SAFETY: the caller's promise; a map value, see `maps`.
    unsafe {
        match LINEAGE.get_ptr((*hold).tgid) {
            Some(lineage)
                if (*lineage).start_ns == start_ns
                    && (*lineage).forker.time_ns >= (*hold).opened.time_ns
                    && (*hold).opened.time_ns != 0 =>
            {
                (*hold).via = Via::Fork as u32;
                (*hold).forked = (*lineage).forker;
            }
            _ => {
                if (*hold).via == Via::Fork as u32 {
                    (*hold).via = Via::Unknown as u32;
                }
                (*hold).forked.time_ns = 0;
            }
        }
    }
}
