//! The meaning of numbers in records; `None` for one that has none.

use crate::{Candidate, Drain, Hold, How, PinnedBy, Quiet, Run, Runner, Stage, Stance, Via};

macro_rules! decoded {
    ($($ty:ty { $($field:ident: $word:ty),* })*) => {$(
        impl $ty {
            $(
                #[doc = concat!("The meaning of `", stringify!($field), "`.")]
                #[must_use]
                pub fn $field(&self) -> Option<$word> {
                    <$word>::from_repr(self.$field)
                }
            )*
        }
    )*};
}
decoded! {
    Hold { via: Via, stage: Stage, how: How }
    Candidate { drain: Drain, quiet: Quiet, pinned_by: PinnedBy }
    Runner { stance: Stance, how: How }
    Run { how: How }
}
