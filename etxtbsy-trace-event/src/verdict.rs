//! The verdict on an incident: its cause, and what to do.

use crate::later_word::Word;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The cause of an incident.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictKind {
    /// A child inherited the write fd and had not completed its exec (golang/go#22315).
    ForkExecRace,
    /// The opener itself still has the file open.
    StillOpen,
    /// A process keeps a write fd that it inherited, because the fd is not close-on-exec.
    LeakedFd,
    /// The fd was passed to the holder.
    PassedFd,
    /// A mapping keeps the file open.
    SharedMapping,
    /// Direction `write`: the file is being run.
    RunningExecutable,
    /// The file is an active swap file.
    SwapFile,
    /// A binfmt_misc entry keeps the file open.
    BinfmtMisc,
    /// The file system itself answers ETXTBSY.
    RefusedByFilesystem,
    /// The file backs a loop device.
    LoopDevice,
    /// Two processes without a common parent in what is traced use the same file name.
    NameCollision,
    /// No holder was found, or how it got the file was not seen.
    Unexplained,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// Why an incident is not complete.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Shortfall {
    /// The busy file, or the file that was being run, was not found.
    FileNotFound,
    /// Records of the incident were lost.
    RecordsLost,
    /// No process held the file, but the kernel did.
    HeldByNoProcess,
    /// The evidence does not show which of several processes held the file, or how many.
    Ambiguous,
    /// A writer was not found.
    WriterNotFound,
    /// A process that runs the file was not found.
    RunnerNotFound,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// The cause of an incident, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// The kind of cause.
    pub kind: VerdictKind,
    /// The cause in one sentence.
    pub summary: String,
    /// What helps, and what people try that does not help.
    pub advice: Vec<String>,
}
