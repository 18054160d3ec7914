//! Records for user space. What finds no room is counted.

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, generated::bpf_ringbuf_output},
    maps::ring_buf::RingBufEntry,
};
use etxtbsy_trace_common::{Change, Hold, HoldKey, Holder, Kind, Left, Lost, Via, Watch};

use crate::{
    hold,
    kernel::{self, offset, word},
    maps::{ENDED, EVENTS, HOLDS, RUNNING, WATCHED, lost},
    tree,
};

/// `BPF_RB_NO_WAKEUP`: the reader is woken by a record that follows.
pub(crate) const QUIET: u64 = 1;

/// `BPF_RB_FORCE_WAKEUP`: without it the kernel wakes a reader only that has read everything
/// before this record, and quiet records may stand before it.
pub(crate) const WAKE: u64 = 2;

/// Puts a record of fixed size into the ring buffer; false if it is full.
#[inline(always)]
pub(crate) fn record<T>(record: &T, flags: u64) -> bool {
    bytes(core::ptr::from_ref(record).cast(), size_of::<T>() as u64, flags)
}

/// Puts `len` bytes into the ring buffer; false if it is full.
#[inline(always)]
pub(crate) fn bytes(start: *const u8, len: u64, flags: u64) -> bool {
    // SAFETY: the verifier has checked that `len` bytes at `start` can be read.
    let told = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            start.cast_mut().cast(),
            len,
            flags,
        )
    } == 0;
    if !told {
        lost(Lost::RingFull);
    }
    told
}

/// Reserves a record in the ring buffer, to be filled in place: programs have 512 bytes of stack.
#[inline(always)]
pub(crate) fn reserve<T: 'static>() -> Option<RingBufEntry<T>> {
    let entry = EVENTS.reserve::<T>(0);
    if entry.is_none() {
        lost(Lost::RingFull);
    }
    entry
}

/// Reports a hold that began or ended, if its inode is that of a recent failure and it can matter to
/// one: a file that is opened and closed all the time would fill the ring buffer.
#[inline(always)]
pub(crate) fn change(kind: Kind, inode: u64, slot: u32) {
    let Some(watch) = WATCHED.get_ptr_mut(inode) else { return };
    let key = HoldKey { inode, slot, pad: 0 };
    let began = matches!(kind, Kind::Acquired);
    let hold = if began { HOLDS.get_ptr_mut(key) } else { ENDED.get_ptr_mut(key) };
    let Some(hold) = hold else { return };
    // SAFETY: map values; the numbers may change meanwhile, which costs a record more or less.
    let matters = unsafe {
        let failed_ns = (*watch).failed_ns;
        if began { begin_matters(watch, hold, failed_ns) } else { end_matters(hold, failed_ns) }
    };
    if !matters {
        return;
    }
    let Some(mut entry) = reserve::<Change>() else {
        // SAFETY: a map value, see `maps`.
        unsafe { (*watch).lost += 1 };
        return;
    };
    let change = entry.as_mut_ptr();
    // SAFETY: `change` is the reserved record, `hold` a map value; every field is written before
    // the record is submitted.
    unsafe {
        (*hold).reported = 1;
        (*change).kind = kind as u32;
        (*change).cloexec = kernel::cloexec_at((*hold).table, (*hold).fd);
        (*change).inode = inode;
        core::ptr::copy_nonoverlapping(hold, &raw mut (*change).hold, 1);
        look(hold, &raw mut (*change).holder);
    }
    entry.submit(WAKE);
}

/// Whether the beginning of a hold can matter to a failure: it was before that, and the failure may
/// have been read already; or it is a copy that a fork made of something older, which may be older
/// than the failure itself.
///
/// # Safety
///
/// Both can be read and written.
#[inline(always)]
unsafe fn begin_matters(watch: *mut Watch, hold: *const Hold, failed_ns: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe {
        if (*hold).found != 0 {
            // The search has reported it.
            return false;
        }
        if (*hold).acquired_ns <= failed_ns {
            return true;
        }
        if (*hold).via != Via::Fork as u32 || (*hold).opened.time_ns > failed_ns {
            return false;
        }
        if (*hold).left_ns != 0 {
            return (*hold).left_ns <= failed_ns;
        }
        if (*watch).wanted == 0 {
            return false;
        }
        (*watch).wanted -= 1;
        true
    }
}

/// Whether the end of a hold can matter to a failure.
///
/// # Safety
///
/// It can be read.
#[inline(always)]
unsafe fn end_matters(hold: *const Hold, failed_ns: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*hold).acquired_ns <= failed_ns || (*hold).reported != 0 || (*hold).found != 0 }
}

/// Reports a process that runs its program no more, if anybody waits for that: it has ended, or runs
/// `inode` now, which is no end if it is the same file.
#[inline(always)]
pub(crate) fn left(tgid: u32, ended: u32, inode: u64) {
    let Some(running) = RUNNING.get_ptr(tgid) else { return };
    // SAFETY: a map value, see `maps`.
    let ran = unsafe { *running };
    if (ended == 0 && ran == inode) || RUNNING.remove(tgid).is_err() {
        return;
    }
    // SAFETY: no arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let kind = Kind::Left as u32;
    record(&Left { kind, tgid, time_ns, ended, pad: 0, inode: ran }, WAKE);
}

/// What can be seen of a holder at this moment: zeros if its task has ended. Returns its task, or
/// 0.
///
/// # Safety
///
/// `hold` can be read, `holder` can be written.
#[inline(always)]
pub(crate) unsafe fn look(hold: *const Hold, holder: *mut Holder) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let task = (*hold).task;
        // Reading at 0 gives zeros, and needs no branches.
        let task = if hold::is_task_of(&*hold) { task } else { 0 };
        see(task, holder);
        task
    }
}

/// What can be seen of a task.
///
/// # Safety
///
/// `holder` can be written.
#[inline(always)]
pub(crate) unsafe fn see(task: u64, holder: *mut Holder) {
    // SAFETY: the caller's promise.
    unsafe {
        let leader = word(task, offset!(task_group_leader));
        (*holder).comm = kernel::comm(leader);
        (*holder).start_ns = word(leader, offset!(task_start_time));
        (*holder).ns_pid = kernel::ns_pid(task);
        (*holder).local_pid = kernel::local_pid(task);
        (*holder).in_tree = tree::is_member(kernel::tgid_of(task)) as u32;
        (*holder).uid = kernel::uid(task);
        (*holder).cgroup = kernel::cgroup(task);
        let mut above = task;
        for at in 0..6 {
            above = word(above, offset!(task_real_parent));
            (*holder).above[at] = kernel::tgid_of(above);
        }
    }
}
