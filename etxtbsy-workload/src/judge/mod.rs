//! Judges the tracer: its lines compared with what the workload reports of itself.

mod mixed;
mod refusals;

pub(crate) use self::mixed::{Args, Comparison, run};
pub use self::{
    mixed::{Tally, compare},
    refusals::{WriteTally, compare_refusals},
};
