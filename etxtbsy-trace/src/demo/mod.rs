//! `demo`: makes the failures happen, each in a small known form, under the tracer, and says in the
//! end what it came to.
//!
//! A demo is a workload ([`etxtbsy_workload`]) that is run as `run` runs a command. What happened is
//! told by the incidents, as always; what the workload itself counted comes by a file in memory,
//! and the two are put side by side.

mod catalogue;
mod report;
mod run;
mod tally;

pub use catalogue::{list, names};
pub use run::{Demonstration, missing};
