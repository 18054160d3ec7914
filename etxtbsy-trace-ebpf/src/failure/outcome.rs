//! The end of a failure: what was found, and what was not.

use etxtbsy_trace_common::{FailureEnd, Kind, Lost};

use crate::{
    emit::ringbuf::{self, WAKE},
    failure::references,
    maps::{SEARCHES, WATCHED, lost},
};

/// Whether there is more to report of a task's failure.
#[inline(always)]
pub(crate) fn is_open(task: u64) -> bool {
    SEARCHES.get_ptr(task).is_some()
}

/// Reports the end of a task's failure; `cut` is 1 if its search is missing.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn end_failure(task: u64, cut: u32) -> i32 {
    let Some(search) = SEARCHES.get_ptr(task) else { return 0 };
    let unfound = references::unfound(task);
    let copies = if unfound > 0 { references::copies_since(task) } else { 0 };
    let references = if unfound > copies { (unfound - copies) as u32 } else { 0 };
    // SAFETY: a map value, which this task alone uses.
    let (seq, inode, lost, unplaced) =
        unsafe { ((*search).seq, (*search).inode, (*search).lost | cut, (*search).unplaced) };
    let _ = SEARCHES.remove(task);
    if references != 0
        && let Some(watch) = WATCHED.get_ptr_mut(inode)
    {
        // SAFETY: a map value, see `maps`.
        unsafe { (*watch).wanted = references };
    }
    let kind = Kind::FailureEnd as u32;
    ringbuf::record(&FailureEnd { kind, lost, seq, references, unplaced }, WAKE);
    0
}

/// Reports the end of a failure whose search had no room.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn end_unknown(seq: u64) -> i32 {
    let kind = Kind::FailureEnd as u32;
    ringbuf::record(&FailureEnd { kind, lost: 1, seq, references: 0, unplaced: 0 }, WAKE);
    0
}

/// Counts that a loop reached its limit, and notes it for the failure.
#[inline(always)]
pub(crate) fn cut(current: u64) {
    lost(Lost::WalkTruncated);
    if let Some(search) = SEARCHES.get_ptr_mut(current) {
        // SAFETY: a map value, which this task alone uses.
        unsafe { (*search).lost = 1 };
    }
}
