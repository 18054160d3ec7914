//! Processes that have a busy description, though no hold of it is noted.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Candidate, Hold, Kind, PinnedBy, Via};

use crate::{
    emit::{
        holder,
        ringbuf::{self, QUIET},
    },
    failure::references,
    holds::{origin, pending_release, table},
    kernel::{self, offset},
    maps::{RECEIVED, SEARCHES},
};

/// For [`about`], beside the numbers of [`PinnedBy`], and 0 for an fd: a mapping.
pub(crate) const MAPPED: u64 = 8;

/// An argument of [`report_unnoted`]: what pins the description, and the fd.
#[inline(always)]
pub(crate) fn about(by: u64, fd: u32) -> u64 {
    by << 32 | fd as u64
}

/// Reports a process that has a description, though no hold of it is noted; `about` says how it has it.
/// `table` is its fd table, or its memory. `file` is 0 if it is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn report_unnoted(
    current: u64,
    task: u64,
    table: u64,
    file: u64,
    about: u64,
) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    let (by, fd) = ((about >> 32) as u32, about as u32);
    let is_mapped = by == MAPPED as u32;
    let Some(mut entry) = ringbuf::reserve::<Candidate>() else {
        // SAFETY: a map value, which this task alone uses.
        unsafe { (*search).lost = 1 };
        return 0;
    };
    let record = entry.as_mut_ptr();
    let via = if is_mapped { Via::Mapping } else { Via::Unknown };
    // SAFETY: `record` is the reserved record; every field is written before it is submitted.
    unsafe {
        let hold: *mut Hold = &raw mut (*record).hold;
        zero(hold.cast());
        // SAFETY: no arguments.
        table::begin(hold, task, table, fd, file, via, bpf_ktime_get_ns());
        (*hold).found = 1;
        if file == 0 {
            (*hold).inode = (*search).inode;
        } else {
            origin::find_origin(&mut *hold, file);
        }
        (*hold).file = file;
        if (by == 0) & ((*hold).opened.tgid != (*hold).tgid) {
            origin::came_by_fork(hold, task);
        }
        (*record).kind = Kind::Candidate as u32;
        (*record).in_table = (by == 0) as u32;
        (*record).fput_pending = 0;
        (*record).cloexec = if by == 0 { kernel::cloexec_at(table, fd) } else { 0 };
        (*record).open = (file == 0 || kernel::is_open(file, (*hold).inode)) as u32;
        (*record).drain = 0;
        (*record).pinned_by = if is_mapped { 0 } else { by };
        (*record).syscall = kernel::last_call(task);
        (*record).tid = kernel::int(task, offset!(task_pid));
        (*record).ending = kernel::is_ending(task) as u32;
        (*record).quiet = kernel::quiet_since(task, (*search).arrival);
        (*record).reaped_by_victim = 0;
        (*record).reaped_ns = 0;
        (*record).received_ns = match RECEIVED.get_ptr(table) {
            Some(at) => *at,
            None => 0,
        };
        (*record).closed_ns = origin::closed_ns((*hold).inode, file, (*hold).opened.time_ns);
        (*record).seq = (*search).seq;
        (*record).inode = (*hold).inode;
        holder::of_hold(hold, &raw mut (*record).holder);
    }
    // SAFETY: the record, which is filled.
    let opened_ns = unsafe { (*record).hold.opened.time_ns };
    // SAFETY: a map value, which this task alone uses.
    if file != 0 && opened_ns < unsafe { (*search).exit_ns } {
        references::note_found(current, file, 1);
    }
    if is_mapped || by == PinnedBy::Call as u32 || by == PinnedBy::IoUring as u32 {
        pending_release::until_exit(kernel::tgid_of(task), file, kernel::inode_of(file));
    }
    entry.submit(QUIET);
    0
}

/// Sets a hold to zeros, word by word: no call, which would take a frame.
///
/// # Safety
///
/// `words` are those of a hold.
#[inline(always)]
unsafe fn zero(words: *mut u64) {
    for at in 0..size_of::<Hold>() / 8 {
        // SAFETY: the caller's promise.
        unsafe { words.add(at).write_volatile(0) };
    }
}
