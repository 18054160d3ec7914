//! The conclusion about an incident: its kind, and what helps.

use crate::word::Word;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an incident comes to.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum VerdictKind {
    /// An inherited write fd in a child that had not got through its exec (golang/go#22315).
    ForkExecRace,
    /// The opener itself still has it open.
    StillOpen,
    /// A process that exec'd or lives on holds it, the fd not being close-on-exec.
    LeakedFd,
    /// The fd was passed to the holder.
    PassedFd,
    /// A mapping keeps it.
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
    /// Two that have no common parent within what is traced use one name.
    NameCollision,
    /// No holder was found.
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
    /// Which file was busy, or being run, is not known.
    FileNotFound,
    /// Records of it were lost.
    RecordsLost,
    /// No process held the file, but something else did.
    HeldByNoProcess,
    /// Which of several processes held it, or how many, is not known.
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

/// What an incident comes to, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Which rule it fits.
    pub kind: VerdictKind,
    /// One sentence.
    pub summary: String,
    /// What helps, and what people try that does not.
    pub advice: Vec<String>,
}
