//! The ring buffer: puts records into it, and counts those that find no room.

use aya_ebpf::{helpers::generated::bpf_ringbuf_output, maps::ring_buf::RingBufEntry};
use etxtbsy_trace_common::Lost;

use crate::maps::{EVENTS, lost};

/// `BPF_RB_NO_WAKEUP`: a later record wakes the reader.
pub(crate) const QUIET: u64 = 1;

/// `BPF_RB_FORCE_WAKEUP`: without it the kernel wakes only a reader that has read everything before this
/// record, and there may be quiet records before it.
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
    let written = unsafe {
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            start.cast_mut().cast(),
            len,
            flags,
        )
    } == 0;
    if !written {
        lost(Lost::RingFull);
    }
    written
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
