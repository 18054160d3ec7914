//! The report of a workload that does one task in several ways, one after the other.

use super::report::Race;
use serde::{Deserialize, Serialize};

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The name of the workload or of the remedy on the command line.
    pub scenario: String,
    /// The ways; the others are compared with the first.
    pub sides: Vec<Side>,
}

/// One way.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// The name of the way.
    pub name: String,
    /// The execs, in their own directory.
    pub race: Race,
    /// How many programs were to be run: fewer than the execs if failed execs are repeated.
    pub runs: u64,
    /// How many of these were never executed.
    pub given_up: u64,
    /// The longest time from the first to the last exec of a run.
    pub longest_ns: u64,
}
