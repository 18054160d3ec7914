//! Loops of many turns, part by part: the verifier follows each turn of a loop, but a function only once, so
//! each part is a call of a function of its own.

use etxtbsy_trace_common::Lost;

use crate::maps::lost;

/// A part returns: it has found what the walk is for.
pub(crate) const FOUND: i32 = 1;
/// A part returns: it was the last.
pub(crate) const END: i32 = 2;

/// Calls `part` with 0, `size`, twice `size` and so on, until it returns [`END`]; returns [`FOUND`] if any
/// call did. Counts the rest as lost if there is no end after `calls` of them.
#[inline(always)]
pub(crate) fn in_parts(calls: u32, size: u32, part: impl Fn(u32) -> i32) -> i32 {
    let mut found = 0;
    for call in 0..calls {
        let did = part(call * size);
        found |= did & FOUND;
        if did & END != 0 {
            return found;
        }
    }
    lost(Lost::WalkTruncated);
    found
}

/// Repeats `part` until a call of it says that it was the last. After `calls` of them, this run of the
/// program ends in `tail_call`, which runs the same program again, as often as the kernel allows
/// (`MAX_TAIL_CALL_CNT`: some 30 times). What remains then is counted as lost. Gives whether it came to the
/// end.
#[inline(always)]
pub(crate) fn in_runs(calls: u32, part: impl Fn() -> bool, tail_call: impl FnOnce()) -> bool {
    for _ in 0..calls {
        if part() {
            return true;
        }
    }
    tail_call();
    // It returns only if that was the last time.
    lost(Lost::WalkTruncated);
    false
}
