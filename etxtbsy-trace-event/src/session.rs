//! The lines about the session as a whole: what was traced, what was lost, and the sums.

use crate::{Shortfall, VerdictKind, word::Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was traced, by what, where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Meta {
    /// [`SCHEMA`].
    pub schema: u32,
    /// This program's version.
    pub version: String,
    /// When tracing became live, RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// The same moment, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// This program's own command line.
    pub argv: Vec<String>,
    /// Which victims are shown.
    pub filter: Filter,
}

/// Which victims are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Filter {
    /// Roots of the traced process trees; empty for the whole machine.
    pub pids: Vec<u32>,
    /// The command that `run` started.
    pub command: Option<Vec<String>>,
    /// What the processes of the trees are to the failures that are shown.
    #[serde(default, rename = "as")]
    pub role: TreeRole,
}

/// What a process of the traced tree is to a failure that is shown.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum TreeRole {
    /// Its call failed
    #[default]
    Victim,
    /// It held the file
    Holder,
    /// One of the two
    Either,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    #[value(skip)]
    Other(Word),
}

/// What was dropped, and why: a word that stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Records found no room in the ring buffer.
    RecordsRingFull,
    /// Records were not understood.
    RecordsGarbled,
    /// The map of holds was full, or the kernel had no memory for an element.
    HoldsMapFull,
    /// More fds refer to the busy file than are followed one by one.
    HoldsPerFile,
    /// A walk through fds, threads, mappings or queues ended before its end.
    WalkTruncated,
    /// The busy file was not found in the work of the failing task.
    BusyFileUnknown,
    /// Calls that are only counted: the map of these was full.
    CallsMapFull,
    /// There was no memory for a path or arguments.
    TextNoMemory,
    /// The map of the traced processes was full.
    TreeMapFull,
    /// The map of execs under way was full.
    ExecsMapFull,
    /// The map of watched files was full: releases are not seen.
    WatchMapFull,
    /// Failures that found no room in the ring buffer.
    FailuresRingFull,
    /// Failures beyond those that are kept in detail.
    FailuresOverload,
    /// Failures that were not read before the end.
    FailuresUnread,
    /// The map of searches was full.
    SearchesMapFull,
    /// Changes beyond those that are kept for one failure.
    ChangesOverload,
    /// More writers were found than the kernel counted.
    CountContradicted,
    /// The kernel skipped a program because another was running on that CPU.
    ProgramsSkipped,
    /// 32-bit programs whose calls were not followed from their start.
    #[serde(rename = "32-bit-unfollowed")]
    CompatUnfollowed,
    /// Lines for which an output, or the view, had no room.
    OutputStalled,
    /// Recordings of schema 1 did not say.
    #[default]
    Unknown,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// Something was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// What, and for which reason, as a fixed word.
    #[serde(default)]
    pub kind: LossKind,
    /// The same in words.
    pub what: String,
    /// How many since the last such line.
    pub count: u64,
}

/// Calls of one process that failed with ETXTBSY for other reasons than those of incidents: they are
/// counted, and who is to blame is not looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Refusal {
    /// When the first such call of the process failed, RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// The same moment, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// `fallocate`, `unlinkat`…
    pub syscall: String,
    /// `ETXTBSY`.
    pub errno: String,
    /// Process.
    pub pid: u32,
    /// The name of the thread that made the first of them.
    pub comm: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// How many since the last such line.
    pub count: u64,
}

/// The last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// How many calls failed while tracing was live, exactly: counted apart from what was reported of
    /// them. Those that are no incident are among `lost`, or came after `--stop-after`; 0 in
    /// recordings of versions that did not count them.
    #[serde(default)]
    pub failures: u64,
    /// How many incidents there were.
    pub incidents: u64,
    /// How many are complete.
    pub explained: u64,
    /// How many are not.
    pub unexplained: u64,
    /// How many other calls failed with ETXTBSY, as the `refusal` lines have them.
    #[serde(default)]
    pub refusals: u64,
    /// Where a tree is traced, how many failures there were elsewhere: with `as` `victim`, execs that
    /// failed while a process of the tree held the file; else failures that the tree had no part in.
    #[serde(default)]
    pub elsewhere: u64,
    /// How many of the incidents are `repaired`.
    #[serde(default)]
    pub repaired: u64,
    /// How many things were dropped, of all kinds.
    pub lost: u64,
    /// How many incidents by verdict.
    pub by_verdict: BTreeMap<VerdictKind, u64>,
    /// What the incidents that are not complete fall short by, and how many do.
    #[serde(default)]
    pub unexplained_by: BTreeMap<Shortfall, u64>,
    /// The one thing to change first: what helps against the most frequent verdict. `null` where
    /// there are fewer than two incidents.
    #[serde(default)]
    pub change_first: Option<String>,
    /// How long tracing was live, in nanoseconds.
    pub duration_ns: u64,
}
