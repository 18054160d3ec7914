//! Which failures are reported: user space decides, and the room in the ring buffer.

use etxtbsy_trace_common::{Config, Count, Intake, Lost};

use crate::maps::{CONFIG, EVENTS, count, lost};

/// `BPF_RB_AVAIL_DATA` and `BPF_RB_RING_SIZE`, include/uapi/linux/bpf.h.
const AVAIL_DATA: u64 = 0;
const RING_SIZE: u64 = 1;

/// Whether tracing has begun and is not over.
#[inline(always)]
pub(crate) fn is_tracing() -> bool {
    // SAFETY: an element of an array map lives as long as the map, and every number is a value.
    CONFIG
        .get_ptr(Config::Intake as u32)
        .is_some_and(|intake| unsafe { intake.read_volatile() } != Intake::Closed as u64)
}

/// Counts a failure; whether the programs report it. Half of the ring buffer is reserved for failures that
/// are being reported: the records of a single one, and the releases that follow, have room there.
#[inline(always)]
pub(crate) fn is_taken() -> bool {
    let Some(intake) = CONFIG.get_ptr(Config::Intake as u32) else { return false };
    // SAFETY: a map value, see `maps`.
    let intake = unsafe { intake.read_volatile() };
    if intake == Intake::Closed as u64 {
        return false;
    }
    count(Count::Failures, 1);
    if intake == Intake::Full as u64 {
        lost(Lost::FailureUnkept);
        return false;
    }
    if !has_room() {
        lost(Lost::FailureUnreported);
        return false;
    }
    true
}

/// Whether half of the ring buffer is free.
#[inline(always)]
pub(crate) fn has_room() -> bool {
    EVENTS.query(AVAIL_DATA) <= EVENTS.query(RING_SIZE) / 2
}
