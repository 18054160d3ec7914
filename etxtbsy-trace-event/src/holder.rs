//! A process that held the file: with which fds, how it got them, and how the hold ended.

use crate::{Ancestor, word::Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a holder came to hold the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// It opened it.
    Open,
    /// Its fd table was copied from one that had it.
    Fork,
    /// It duplicated an fd.
    Dup,
    /// The fd was sent to it, or it fetched it from another process.
    Passed,
    /// It maps a description opened for writing.
    Mapping,
    /// It runs the file (direction `write`).
    Running,
    /// Not known, for instance because it had it before tracing began.
    Unknown,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// What a holder was doing at the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// The child was still being made.
    InFork,
    /// Made, and not yet exec'd.
    Forked,
    /// Its exec had taken the fd away, and the kernel had not dropped the file yet.
    ExecClosing,
    /// Direction `write`: in its exec of the file, the program not running yet.
    InExec,
    /// None of the others.
    Running,
    /// In `do_exit`.
    Exiting,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// How it is known that a process held the file at the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The fd stood in its fd table.
    FdTable,
    /// The last reference to the description waited in the work of its task, or was being dropped
    /// there.
    TaskWork,
    /// The end of its fd, or the beginning of its copy, was seen: it held the file on both sides of
    /// the failure.
    Event,
    /// It maps the description.
    Mapping,
    /// An object of the kernel refers to the description for it: an io_uring's table, a call under
    /// way.
    KernelObject,
    /// It ran the file (direction `write`).
    Running,
    /// Nothing showed it: the kernel's count of writers leaves no other known process.
    Elimination,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// A process that held the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Process.
    pub pid: u32,
    /// Its parent when it got the file.
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
    /// Its user.
    pub uid: Option<u32>,
    /// Its cgroup, as a path below its hierarchy's root.
    pub cgroup: Option<String>,
    /// Its pid in its own pid namespace.
    pub ns_pid: Option<u32>,
    /// Its pid in the tracer's pid namespace; `null` if it is not in that, or was not seen.
    #[serde(default)]
    pub local_pid: Option<u32>,
    /// When it was started.
    pub start_ns: Option<u64>,
    /// Direction `write`: when it exec'd the file; `null` if that was not seen, or if it was forked
    /// by a process that had.
    #[serde(default)]
    pub exec_ns: Option<u64>,
    /// Direction `write`: the script for which it runs the file, as its interpreter; `null` if there is
    /// none, or its exec was not seen.
    #[serde(default)]
    pub script: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_b64: Option<String>,
    /// The fds through which it held the file.
    pub fds: Vec<Fd>,
    /// How it came to hold it.
    pub via: Via,
    /// How it is known that it held it; `null` in recordings of schema 1.
    #[serde(default)]
    pub evidence: Option<Evidence>,
    /// The system call under way that keeps the description although the fd is gone.
    #[serde(default)]
    pub call: Option<String>,
    /// What it was doing at the failure.
    pub state: State,
    /// Who opened the file for writing.
    pub opened: Option<Opened>,
    /// Who forked this holder; `null` unless `via` is `fork`.
    pub forked: Option<Forked>,
    /// Its ancestors, nearest first.
    pub ancestors: Vec<Ancestor>,
    /// How and when it dropped the file; `null` if it still holds it.
    pub released: Option<Released>,
}

/// A file descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fd {
    /// Its number.
    pub fd: u32,
    /// Open flags by name: `O_WRONLY`, `O_CLOEXEC`…
    pub flags: Vec<String>,
    /// Whether it is close-on-exec; `null` if it was gone before anyone looked.
    pub cloexec: Option<bool>,
}

/// Who opened the file for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The thread's name.
    pub comm: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// When the open returned.
    pub time_ns: u64,
    /// When the opener's own fd was closed; `null` if it was open still, or that was not seen.
    #[serde(default)]
    pub closed_ns: Option<u64>,
    /// What the program of the opener is written in; `null` if that was not recognised.
    #[serde(default)]
    pub runtime: Option<Runtime>,
    /// The path of the open file description.
    pub path: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
}

/// What a program is written in: the runtime that opens its files and forks its children.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// Go.
    Go,
    /// Java, Kotlin, Scala and others on a Java virtual machine.
    Jvm,
    /// Node.js.
    Node,
    /// CPython or PyPy.
    Python,
    /// Rust.
    Rust,
    /// A shell.
    Shell,
    /// Anything else: C, C++ and others without a runtime that is known here.
    Native,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// Which thread forked a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forked {
    /// Process.
    pub pid: u32,
    /// Thread.
    pub tid: u32,
    /// The thread's name.
    pub comm: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// When the fork was done: the child is about to run for the first time.
    pub time_ns: u64,
}

/// How a holder dropped the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// close or close_range.
    Close,
    /// An exec, the fd being close-on-exec.
    CloseOnExec,
    /// Another description was put at the same fd.
    Dup,
    /// The process ended.
    Exit,
    /// The mapping went.
    Unmap,
    /// Direction `write`: it ran another program.
    Exec,
    /// That was not seen; it had dropped the file by then.
    Unknown,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// How and when a holder dropped the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// By what.
    pub how: How,
    /// When.
    pub time_ns: u64,
    /// The same, counted from the failure; below zero if it did so while the call was failing.
    pub after_ns: i64,
    /// The program it exec'd, for `close-on-exec`.
    pub exec: Option<String>,
    /// Its bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_b64: Option<String>,
}
