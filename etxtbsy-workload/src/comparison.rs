//! What a workload counted that does the same thing in several ways, one after the other.

use super::report::Race;
use serde::{Deserialize, Serialize};

/// The ways, side by side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Its name on the command line: of the workload, or of the remedy that is tried.
    pub scenario: String,
    /// The ways; the first is the one that the others are compared with.
    pub sides: Vec<Side>,
}

/// One of the ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// What it is called.
    pub name: String,
    /// The calls of exec, in a directory of its own.
    pub race: Race,
    /// How often a program was to be run: less than the calls of exec if those are repeated.
    pub runs: u64,
    /// How often none of the calls passed.
    pub given_up: u64,
    /// The longest time from the first call of a run to its last.
    pub longest_ns: u64,
}
