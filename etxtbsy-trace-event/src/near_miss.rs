//! The line about an exec that succeeded, but may have failed.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BusyFile, Holder, Run, Victim};

/// An exec that succeeded although another process had a copy of a write fd of the file, by a fork, since the file
/// was last opened for writing (at most one second before): a race that was won by luck.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NearMiss {
    /// When the exec returned, RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// The same moment, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// The path as the caller gave it.
    pub path: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// The file of which there was a copy.
    pub file: BusyFile,
    /// The process that executed it.
    pub victim: Victim,
    /// The processes that had the copies, with `released`, the last to release its own first.
    pub holders: Vec<Holder>,
    /// From the last release to the beginning of the exec, in nanoseconds; 0 if that was later.
    pub margin_ns: u64,
    /// How many near misses of this kind the line stands for, itself included.
    pub count: u64,
    /// With `hunt`, the run in which the exec returned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
}
