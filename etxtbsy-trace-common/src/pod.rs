//! Which types are plain old data, as aya asks of the values of maps.

use crate::{
    CallCount, CallKey, Calls, Candidate, Change, Compat, Dropped, ExecCall, ExecName, Failure,
    FailureEnd, Hold, Lineage, Offsets, PendingRelease, PidPair, ProgramExited, Repaired, Run,
    Runner, TextHeader, TreeEnded, Watch, WriteRefused,
};
use zerocopy::{FromBytes, IntoBytes};

/// Says that a type is plain old data.
macro_rules! pod {
    ($($ty:ty),*) => {$(
        // SAFETY: it is `Copy`, and the bounds, which the compiler checks here, say that every byte
        // pattern is a value and that no byte is padding.
        unsafe impl aya::Pod for $ty where $ty: FromBytes + IntoBytes {}
    )*};
}
pod!(
    CallCount,
    CallKey,
    Calls,
    Candidate,
    Change,
    Compat,
    Dropped,
    ExecCall,
    ExecName,
    Failure,
    FailureEnd,
    Hold,
    ProgramExited,
    Lineage,
    PendingRelease,
    Offsets,
    PidPair,
    WriteRefused,
    Repaired,
    Run,
    Runner,
    TextHeader,
    TreeEnded,
    Watch
);
