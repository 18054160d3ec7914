//! Copies of write fds that forks made: when the last of each inode ended.
//!
//! An exec looks here once, and learns whether it may have failed. Nothing is noted at an open or a close.

use etxtbsy_trace_common::SLOTS;

use crate::maps::{COPIES, keep};

/// The part of a noted time that has the place in `ENDED` instead.
const SLOT: u64 = SLOTS as u64 - 1;

/// Notes that an inherited write fd of an inode has ended, and its place in `ENDED`.
#[inline(always)]
pub(crate) fn note_end(inode: u64, slot: u32, released_ns: u64) {
    let end = released_ns & !SLOT | slot as u64;
    match COPIES.get_ptr_mut(inode) {
        // SAFETY: a map value; of two that end at once, either will do.
        Some(last) => unsafe { *last = end },
        // If there is no room, a near miss is not seen.
        None => {
            keep(&COPIES, inode, &end);
        }
    }
}

/// When the last inherited write fd of an inode ended, to 64 ns; 0 if none is known.
#[inline(always)]
pub(crate) fn last_end(inode: u64) -> u64 {
    last(inode) & !SLOT
}

/// The place of that one in `ENDED`.
#[inline(always)]
pub(crate) fn last_slot(inode: u64) -> u32 {
    (last(inode) & SLOT) as u32
}

#[inline(always)]
fn last(inode: u64) -> u64 {
    // SAFETY: a map value, see `maps`.
    COPIES.get_ptr(inode).map_or(0, |last| unsafe { *last })
}
