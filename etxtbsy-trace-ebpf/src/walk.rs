//! Long walks, part by part: the verifier follows each turn of a loop, and a function only once, so
//! each part is a call of a function of its own.

use aya_ebpf::{EbpfContext, maps::ProgramArray};
use etxtbsy_trace_common::{Lost, Next};

use crate::maps::lost;

/// Of a part: it has found what the walk is for.
pub(crate) const FOUND: i32 = 1;
/// Of a part: there are no more after it.
pub(crate) const END: i32 = 2;

/// Walks on from 0, `size` at each call of `part`, which gives [`FOUND`] and [`END`] as they apply;
/// counts it as lost if there is no end after `calls` of them. [`FOUND`] if any part gave that.
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

/// Walks on from where the last run of `program` has come to, until a call of `part` says that it is the
/// last. What `calls` of them have not come to is left to another run, which this one ends for, as
/// often as the kernel lets a program be gone on with (`MAX_TAIL_CALL_CNT`: some 30 times); then it is
/// counted as lost. `next` has the program. Gives whether it came to the end.
#[inline(always)]
pub(crate) fn in_runs(
    ctx: &impl EbpfContext,
    next: &ProgramArray,
    program: Next,
    calls: u32,
    part: impl Fn() -> bool,
) -> bool {
    for _ in 0..calls {
        if part() {
            return true;
        }
    }
    // SAFETY: the program that user space has put there is the one that runs.
    let _ = unsafe { next.tail_call(ctx, program as u32) };
    // It does not return, unless that was the last time.
    lost(Lost::WalkTruncated);
    false
}
