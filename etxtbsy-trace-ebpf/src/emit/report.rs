//! Reports of what happens after a failure.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Change, Hold, HoldKey, Kind, ProgramExited, TreeEnded, Via, Watch};

use crate::{
    emit::{
        holder,
        ringbuf::{self, WAKE},
    },
    kernel,
    maps::{ENDED, HOLDS, RUNNING, WATCHED},
};

/// Reports a hold that began or ended, if its inode is that of a recent failure and it can matter to
/// one: a file that is opened and closed all the time would fill the ring buffer.
#[inline(always)]
pub(crate) fn change(kind: Kind, inode: u64, slot: u32) {
    let Some(watch) = WATCHED.get_ptr_mut(inode) else { return };
    let key = HoldKey { inode, slot, pad: 0 };
    let began = matches!(kind, Kind::Acquired);
    let hold = if began { HOLDS.get_ptr_mut(key) } else { ENDED.get_ptr_mut(key) };
    let Some(hold) = hold else { return };
    // SAFETY: map values, see `maps`. If the numbers change at the same time, that costs a record more or
    // less.
    let matters = unsafe {
        let failed_ns = (*watch).failed_ns;
        if began { begin_matters(watch, hold, failed_ns) } else { end_matters(hold, failed_ns) }
    };
    if !matters {
        return;
    }
    let Some(mut entry) = ringbuf::reserve::<Change>() else {
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
        holder::of_hold(hold, &raw mut (*change).holder);
    }
    entry.submit(WAKE);
}

/// Whether the beginning of a hold can matter to a failure: it was earlier, and the failure may have read the
/// holds already; or the hold is a copy that a fork made of an older one, and may be older than the failure.
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

/// Reports that a process has stopped running a file of interest: it has ended, or runs `inode` now. If
/// that is the same file, it has not stopped.
#[inline(always)]
pub(crate) fn program_exited(tgid: u32, ended: u32, inode: u64) {
    let Some(running) = RUNNING.get_ptr(tgid) else { return };
    // SAFETY: a map value, see `maps`.
    let ran = unsafe { *running };
    if (ended == 0 && ran == inode) || RUNNING.remove(tgid).is_err() {
        return;
    }
    // SAFETY: no arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let kind = Kind::ProgramExited as u32;
    ringbuf::record(&ProgramExited { kind, tgid, time_ns, ended, pad: 0, inode: ran }, WAKE);
}

/// Reports that the last process of the traced tree has ended.
#[inline(always)]
pub(crate) fn tree_ended(tgid: u32) {
    ringbuf::record(&TreeEnded { kind: Kind::TreeEnded as u32, tgid }, WAKE);
}
