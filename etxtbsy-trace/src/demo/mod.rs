//! `demo`: makes known failures happen under the tracer, and compares what was traced with what
//! happened.
//!
//! A demo runs a workload ([`etxtbsy_workload`]) as `run` runs a command. The tracer reports the
//! incidents; the workload writes its own counts to a file in memory. The conclusion compares both.
//! One demo runs `hunt` instead (`cli::demo`).

mod catalogue;
mod report;
mod run;
mod tally;

pub use catalogue::{hunts, list, names};
pub use run::{Demonstration, missing};
