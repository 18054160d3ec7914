//! One failed call: its victim, the busy file, and what is known of it besides the holders.

use crate::{Holder, Opened, Verdict, word::Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which call failed because of whom.
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

/// One failed call, and who is to blame.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// A counter from 1.
    pub id: u64,
    /// When the call failed, RFC 3339, UTC, nanoseconds.
    pub time: String,
    /// When the call failed.
    pub time_ns: u64,
    /// Which way round.
    pub direction: Direction,
    /// `execve`, `execveat`…
    pub syscall: String,
    /// `ETXTBSY`.
    pub errno: String,
    /// The path as the caller gave it.
    pub path: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// The file that was really busy.
    pub file: BusyFile,
    /// The process whose call failed.
    pub victim: Victim,
    /// The culprits, most to blame first.
    pub holders: Vec<Holder>,
    /// Open file descriptions with write access that no process holds.
    #[serde(default)]
    pub unheld: Vec<Unheld>,
    /// Processes that may have held the file, where that is not known.
    #[serde(default)]
    pub suspects: Vec<Suspect>,
    /// How many of `file.writers` are accounted for.
    pub explained: u32,
    /// Whether that is all of them.
    pub complete: bool,
    /// Whether it is complete and no holder is known by [`Evidence::Elimination`] alone; false in
    /// recordings of schema 1, which did not say.
    #[serde(default)]
    pub certain: bool,
    /// Direction `write`: the same process has made the file anew, by the same name; `null` if it has
    /// not.
    #[serde(default)]
    pub repaired: Option<Repaired>,
    /// How many entries of lists the line has no room for; `null` if it has all of them.
    #[serde(default)]
    pub left_out: Option<LeftOut>,
    /// What it comes to.
    pub verdict: Verdict,
}

/// How many entries of its lists the line of an incident has no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeftOut {
    /// Holders, of those least to blame.
    pub holders: u64,
    /// Fds of holders.
    pub fds: u64,
    /// Suspects.
    pub suspects: u64,
    /// Entries of `unheld`.
    pub unheld: u64,
}

/// The new file in the place of one that could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Repaired {
    /// When it was opened.
    pub time_ns: u64,
    /// The same, counted from the failure.
    pub after_ns: i64,
    /// Its inode number.
    pub ino: u64,
}

/// What the busy file was to the exec.
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
    /// Its path, from the root of the victim's mount namespace.
    pub path: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// `major:minor` of its file system, as the kernel's super block has it.
    pub dev: Option<String>,
    /// Its inode number.
    pub ino: Option<u64>,
    /// Its generation (`inode.i_generation`), which tells it from an earlier file of that number.
    #[serde(default)]
    pub generation: Option<u32>,
    /// What it was to the exec.
    pub role: Option<Role>,
    /// The inode's `i_writecount` at the failure: above zero, how many open file descriptions had
    /// write access to it; below, by how many it was being run.
    pub writers: Option<i32>,
}

/// The process whose call failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Victim {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// Parent process.
    pub ppid: Option<u32>,
    /// Its name.
    pub comm: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// The program it was running.
    pub exe: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_b64: Option<String>,
    /// The arguments of the program it was running.
    pub argv: Option<Vec<String>>,
    /// Their bytes, `null` for those that are UTF-8; absent if all are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub argv_b64: Option<Vec<Option<String>>>,
    /// Its working directory.
    pub cwd: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd_b64: Option<String>,
    /// Its user.
    pub uid: Option<u32>,
    /// Its cgroup, as a path below its hierarchy's root.
    pub cgroup: Option<String>,
    /// Its pid in its own pid namespace.
    pub ns_pid: Option<u32>,
    /// Its pid in the tracer's pid namespace; `null` if it is not in that, or was not seen.
    #[serde(default)]
    pub local_pid: Option<u32>,
    /// Its ancestors, nearest first; empty if they were not seen.
    #[serde(default)]
    pub ancestors: Vec<Ancestor>,
}

/// An open file description with write access that no process holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unheld {
    /// What keeps it.
    pub place: Place,
    /// Its name: the loop device, the binfmt_misc entry, the type of the file system.
    pub device: Option<String>,
    /// Of a file system: where it is mounted, as the victim sees it.
    #[serde(default)]
    pub mount: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_b64: Option<String>,
    /// Who opened the file for writing.
    pub opened: Option<Opened>,
}

/// A process that may have held the file, where that is not known: no culprit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Suspect {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub comm: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// Why it may have.
    pub reason: Reason,
}

/// Why a process may have held the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It let go of the file shortly before the call, and the kernel may not have dropped it yet.
    LeftBefore,
    /// It let go of the file during the call.
    LeftDuring,
    /// It got the file during the call.
    CameDuring,
    /// It was seen with the file just after the call, and how it got it was not.
    SeenAfter,
    /// It was in a call that may have been opening the file.
    OpenUnderWay,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// What keeps an open file description that no process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// It is in flight in the queue of a socket (SCM_RIGHTS).
    SocketQueue,
    /// An io_uring has it, as a registered file or for a request under way.
    IoUring,
    /// It backs a loop device.
    LoopDevice,
    /// It is an active swap file.
    SwapFile,
    /// A binfmt_misc entry keeps its interpreter open (flag `F`).
    BinfmtMisc,
    /// The file system itself refused the call.
    FileSystem,
    /// The kernel, in a way that is not known.
    Unknown,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// A process above a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ancestor {
    /// Process.
    pub pid: u32,
    /// Its name.
    pub comm: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// The program it was running; `null` if it had ended.
    pub exe: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe_b64: Option<String>,
}
