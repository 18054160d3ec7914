//! One failed call: its victim, the busy file, and what is known besides the holders.

use crate::{Context, Frame, Holder, Run, Unheld, Verdict, later_word::Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What failed, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// An exec failed because of a writer.
    Exec,
    /// An open for writing or a truncate failed because the file is being run.
    Write,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// One failed call, and its holders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// A counter from 1.
    pub id: u64,
    /// When the call failed, RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// When the call failed.
    pub time_ns: u64,
    /// Whether an exec failed because of a writer, or the reverse.
    pub direction: Direction,
    /// `execve`, `execveat`…
    pub syscall: String,
    /// `ETXTBSY`.
    pub errno: String,
    /// The path as the caller gave it.
    pub path: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// The file that was really busy.
    pub file: BusyFile,
    /// The process whose call failed.
    pub victim: Victim,
    /// The processes that held the file, the most to blame first.
    pub holders: Vec<Holder>,
    /// Open file descriptions with write access that no process holds.
    #[serde(default)]
    pub unheld: Vec<Unheld>,
    /// Processes that may have held the file, where the evidence does not decide.
    #[serde(default)]
    pub suspects: Vec<Suspect>,
    /// How many of `file.writers` are accounted for.
    pub explained: u32,
    /// Whether all writers are accounted for.
    pub complete: bool,
    /// Whether it is complete and no holder's evidence is `elimination`; false in recordings of
    /// schema 1.
    #[serde(default)]
    pub certain: bool,
    /// Direction `write`: the new file that the victim then created by the same name; `null` if it did
    /// not.
    #[serde(default)]
    pub repaired: Option<Repaired>,
    /// The number of list entries that were left out because the line was too long; `null` if none.
    #[serde(default)]
    pub left_out: Option<LeftOut>,
    /// With `hunt`, the run in which the call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// The cause, and what to do.
    pub verdict: Verdict,
}

impl Incident {
    /// The path as the caller gave it, or that of the busy file.
    #[must_use]
    pub fn caller_path(&self) -> Option<&str> {
        self.path.as_deref().or(self.file.path.as_deref())
    }
}

/// The number of list entries that an incident's line has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Holders, the least to blame.
    pub holders: u64,
    /// Fds of holders.
    pub fds: u64,
    /// Suspects.
    pub suspects: u64,
    /// Entries of `unheld`.
    pub unheld: u64,
    /// Frames of stacks.
    #[serde(default)]
    pub frames: u64,
}

/// The new file that replaced one that could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repaired {
    /// When it was opened.
    pub time_ns: u64,
    /// The same, counted from the failure.
    pub after_ns: i64,
    /// Its inode number.
    pub ino: u64,
}

/// The part of the busy file in the exec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The file named by the caller.
    Target,
    /// The interpreter in its `#!` line.
    ScriptInterpreter,
    /// The interpreter in its ELF header (`PT_INTERP`).
    ElfInterpreter,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// The file that was really busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BusyFile {
    /// Its path from the root of the victim's mount namespace.
    pub path: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// `major:minor` of its file system, from the kernel's super block.
    pub dev: Option<String>,
    /// Its inode number.
    pub ino: Option<u64>,
    /// Its generation (`inode.i_generation`), which distinguishes it from an earlier file with the same
    /// inode number.
    #[serde(default)]
    pub generation: Option<u32>,
    /// Its part in the exec.
    pub role: Option<Role>,
    /// The inode's `i_writecount` at the failure: above zero, the number of open file descriptions
    /// with write access; below zero, how often it was being run.
    pub writers: Option<i32>,
}

/// The process whose call failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Victim {
    /// Its pid.
    pub pid: u32,
    /// The thread's id.
    pub tid: u32,
    /// Parent process.
    pub ppid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// The program it was running.
    pub exe: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_b64: Option<String>,
    /// The arguments of the program it was running.
    pub argv: Option<Vec<String>>,
    /// The exact bytes of each argument, `null` for those that are UTF-8; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv_b64: Option<Vec<Option<String>>>,
    /// Its working directory.
    pub cwd: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd_b64: Option<String>,
    /// Its user.
    pub uid: Option<u32>,
    /// Its cgroup, as a path below its hierarchy's root.
    pub cgroup: Option<String>,
    /// The test, job and container that it belongs to; `null` if none is known.
    #[serde(default)]
    pub context: Option<Context>,
    /// Its pid in its own pid namespace.
    pub ns_pid: Option<u32>,
    /// Its pid in the tracer's pid namespace; `null` if it has none there, or was not seen.
    #[serde(default)]
    pub local_pid: Option<u32>,
    /// Its ancestors, nearest first; empty if not seen.
    #[serde(default)]
    pub ancestors: Vec<Ancestor>,
    /// Where in its code it was, innermost frame first, without frames that nothing names; `null` if not
    /// known.
    #[serde(default)]
    pub stack: Option<Vec<Frame>>,
    /// How many frames `stack` leaves out because nothing names them; `null` without a stack.
    #[serde(default)]
    pub frames_unknown: Option<u32>,
}

/// A process that may have held the file, where the evidence does not decide.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suspect {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// Why it may have held the file.
    pub reason: Reason,
}

/// Why a process may have held the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It released its fd shortly before the call, but the kernel may not have dropped the file yet.
    LeftBefore,
    /// It released the file during the call.
    LeftDuring,
    /// It got the file during the call.
    CameDuring,
    /// It had the file just after the call; how it got the file was not seen.
    SeenAfter,
    /// It was in a call that may have been opening the file.
    OpenUnderWay,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// An ancestor of a holder or victim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ancestor {
    /// Its pid.
    pub pid: u32,
    /// Its name.
    pub comm: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// The program it was running; `null` if it had exited.
    pub exe: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_b64: Option<String>,
}
