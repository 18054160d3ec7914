//! Copies of write fds that forks made: when the last of each inode ended.
//!
//! An exec looks here once, and learns whether it may have failed. Nothing is noted at an open or a close.

use crate::maps::{COPIES, keep};

/// Notes that an inherited write fd of an inode has ended.
#[inline(always)]
pub(crate) fn note_end(inode: u64, released_ns: u64) {
    match COPIES.get_ptr_mut(inode) {
        // SAFETY: a map value; of two that end at once, either will do.
        Some(last) => unsafe { *last = released_ns },
        // If there is no room, a near miss is not seen.
        None => {
            keep(&COPIES, inode, &released_ns);
        }
    }
}

/// When the last inherited write fd of an inode ended; 0 if none is known.
#[inline(always)]
pub(crate) fn last_end(inode: u64) -> u64 {
    // SAFETY: a map value, see `maps`.
    COPIES.get_ptr(inode).map_or(0, |last| unsafe { *last })
}
