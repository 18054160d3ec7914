//! The lines about the session as a whole: what was traced, what was lost, and the totals.

use crate::{Shortfall, VerdictKind, later_word::Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What was traced, by which program, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Meta {
    /// [`SCHEMA`].
    pub schema: u32,
    /// This program's version.
    pub version: String,
    /// When tracing began, RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// The same moment, nanoseconds of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// `uname -r`.
    pub kernel: String,
    /// `uname -m`.
    pub arch: String,
    /// `uname -n`.
    #[serde(default)]
    pub host: Option<String>,
    /// `/proc/sys/kernel/random/boot_id`: which boot `*_ns` belong to.
    #[serde(default)]
    pub boot_id: Option<String>,
    /// This program's own command line.
    pub argv: Vec<String>,
    /// Which failures are shown.
    pub filter: Filter,
    /// The delays that provoked failures; `None` without `--provoke`.
    #[serde(default)]
    pub provoke: Option<Provoke>,
}

/// Random delays that made failures more likely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Provoke {
    /// The longest delay of a call, in nanoseconds.
    pub max_ns: u64,
    /// What the delays were derived from.
    pub seed: u64,
}

/// Which failures are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Filter {
    /// Roots of the traced process trees; empty for the whole machine.
    pub pids: Vec<u32>,
    /// The command that `run` started.
    pub command: Option<Vec<String>>,
    /// The role of the traced trees in the failures that are shown.
    #[serde(default, rename = "as")]
    pub role: TreeRole,
}

/// The role of the traced tree in the failures that are shown.
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

/// What was lost, and why, as a fixed word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LossKind {
    /// Records found no room in the ring buffer.
    RecordsRingFull,
    /// Records that could not be decoded.
    RecordsGarbled,
    /// The map of holds was full, or the kernel had no memory for an element.
    HoldsMapFull,
    /// More fds refer to the busy file than the tracer follows for one file.
    HoldsPerFile,
    /// A search through fds, threads, mappings or queues reached its limit.
    WalkTruncated,
    /// The busy file was not found in the work list of the failing task.
    BusyFileUnknown,
    /// The map of calls that are only counted was full.
    CallsMapFull,
    /// There was no memory for a path or arguments.
    TextNoMemory,
    /// The map of the traced processes was full.
    TreeMapFull,
    /// The map of unfinished execs was full.
    ExecsMapFull,
    /// The map of watched files was full, so releases were not seen.
    WatchMapFull,
    /// Failures that found no room in the ring buffer.
    FailuresRingFull,
    /// Failures beyond the number that is kept in detail.
    FailuresOverload,
    /// Failures that were not read before the end.
    FailuresUnread,
    /// The map of searches was full.
    SearchesMapFull,
    /// Changes beyond the number that is kept for one failure.
    ChangesOverload,
    /// More writers were found than the kernel counted.
    CountContradicted,
    /// The kernel skipped a program because another was running on that CPU.
    ProgramsSkipped,
    /// Near misses beyond the number that is looked at.
    NearMissesOverload,
    /// 32-bit programs that were not followed from their start.
    #[serde(rename = "32-bit-unfollowed")]
    CompatUnfollowed,
    /// Lines for which an output, or the view, had no room.
    OutputStalled,
    /// Lines for which the disk of an output's file had no room.
    OutputFull,
    /// Not known: recordings of schema 1 do not have it.
    #[default]
    Unknown,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// Something was lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lost {
    /// What was lost, and why, as a fixed word.
    #[serde(default)]
    pub kind: LossKind,
    /// The same as text.
    pub what: String,
    /// The number since the last such line.
    pub count: u64,
}

/// Calls of one process that failed with ETXTBSY and are only counted: the tracer does not look for
/// the holder.
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
    /// Its pid.
    pub pid: u32,
    /// The name of the thread that made the first of them.
    pub comm: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// The number since the last such line.
    pub count: u64,
}

/// How many execs there were in the traced tree. 32-bit processes are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Execs {
    /// Execs that succeeded or failed with ETXTBSY.
    pub total: u64,
    /// Those of files that had changed since tracing began, by their `ctime`: written, renamed, made executable.
    pub of_written_files: u64,
    /// Those that failed with ETXTBSY.
    pub failed: u64,
}

/// The run of `hunt` that a line is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// A counter from 1.
    pub number: u64,
    /// Whether its calls were delayed.
    pub provoked: bool,
}

/// What the runs of `hunt` came to, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hunt {
    /// Runs without delays.
    pub plain: Runs,
    /// Runs whose calls were delayed.
    pub provoked: Runs,
}

impl Hunt {
    /// A count of both kinds together.
    #[must_use]
    pub fn sum(&self, count: impl Fn(&Runs) -> u64) -> u64 {
        count(&self.plain) + count(&self.provoked)
    }
}

/// What some runs of `hunt` came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Runs {
    /// The number of runs that were not cut short.
    pub runs: u64,
    /// The number of those whose command did not exit with 0.
    pub failed: u64,
    /// The number of those with an incident that the victim did not repair itself.
    pub with_incidents: u64,
    /// The number of those with a near miss.
    pub with_near_misses: u64,
    /// The number of incidents that the victim did not repair itself. This and what follows include runs that were cut
    /// short.
    pub incidents: u64,
    /// The number of near misses.
    pub near_misses: u64,
    /// The number of execs.
    pub execs: Execs,
}

/// The last line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Summary {
    /// The exact number of calls that failed while tracing was live, counted independently of the
    /// reports. The ones without an incident are in `lost`, or came after `--stop-after`. 0 in
    /// recordings of versions that did not count them.
    #[serde(default)]
    pub failures: u64,
    /// The number of incidents.
    pub incidents: u64,
    /// The number of complete incidents.
    pub explained: u64,
    /// The number of incidents that are not complete.
    pub unexplained: u64,
    /// The number of other calls that failed with ETXTBSY: the sum of the `refusal` lines.
    #[serde(default)]
    pub refusals: u64,
    /// If a tree is traced, the number of failures that are not shown: with `as` `victim`, execs outside
    /// of the tree that failed while a process of the tree held the file; else failures in which the
    /// tree had no part.
    #[serde(default)]
    pub elsewhere: u64,
    /// The number of incidents that are `repaired`.
    #[serde(default)]
    pub repaired: u64,
    /// The number of execs in the traced tree; `null` in recordings of versions that did not count them.
    #[serde(default)]
    pub execs: Option<Execs>,
    /// The number of execs that succeeded, but may have failed: the sum of the `near_miss` lines.
    #[serde(default)]
    pub near_misses: u64,
    /// The number of losses of all kinds.
    pub lost: u64,
    /// The number of incidents by verdict.
    pub by_verdict: BTreeMap<VerdictKind, u64>,
    /// The number of incidents that are not complete, by reason.
    #[serde(default)]
    pub unexplained_by: BTreeMap<Shortfall, u64>,
    /// The one thing to change first: the remedy that would fix the most incidents. `null` if there are
    /// fewer than two incidents.
    #[serde(default)]
    pub change_first: Option<String>,
    /// How long tracing was live, in nanoseconds.
    pub duration_ns: u64,
    /// With `hunt`, what its runs came to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hunt: Option<Hunt>,
}
