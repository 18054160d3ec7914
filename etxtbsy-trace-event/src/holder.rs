//! A process that held the file: its fds, how it got them, and how it released the file.

use crate::{Ancestor, Context, Frame, later_word::Word};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a holder got the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// It opened the file.
    Open,
    /// A fork copied the fd into its fd table.
    Fork,
    /// It duplicated an fd (dup, dup2, fcntl).
    Dup,
    /// Another process sent the fd to it (SCM_RIGHTS), or it fetched the fd (pidfd_getfd).
    Passed,
    /// It maps an open file description that was opened for writing.
    Mapping,
    /// It runs the file (direction `write`).
    Running,
    /// Not known, for instance because it had the file before tracing began.
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
    /// Its fork was not complete.
    InFork,
    /// Its fork was complete, and it had not exec'd.
    Forked,
    /// Its exec had closed the fd, but the kernel had not released the file yet.
    ExecClosing,
    /// Direction `write`: it was in an exec of the file, and the program did not run yet.
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

/// What shows that a process held the file at the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// The fd was in its fd table.
    FdTable,
    /// The last reference to the description was in the task's work list, or was being dropped
    /// from there.
    TaskWork,
    /// An event after the failure: the end of its fd, or the copy of the fd in its fork. It held the
    /// file before and after the failure.
    Event,
    /// It maps the description.
    Mapping,
    /// A kernel object of this process refers to the description: the table of an io_uring, an
    /// unfinished call.
    KernelObject,
    /// It ran the file (direction `write`).
    Running,
    /// Only the kernel's count of writers, which leaves no other known process.
    Elimination,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// A process that held the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Holder {
    /// Its pid.
    pub pid: u32,
    /// Its parent when it got the file.
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
    /// When it started.
    pub start_ns: Option<u64>,
    /// Direction `write`: when it exec'd the file; `null` if the exec was not seen, or if an ancestor
    /// exec'd the file.
    #[serde(default)]
    pub exec_ns: Option<u64>,
    /// Direction `write`: the script, if it runs the file as the interpreter of a script; `null` if
    /// not, or if the exec was not seen.
    #[serde(default)]
    pub script: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub script_b64: Option<String>,
    /// The fds through which it held the file.
    pub fds: Vec<Fd>,
    /// How it got the file.
    pub via: Via,
    /// What shows that it held the file; `null` in recordings of schema 1.
    #[serde(default)]
    pub evidence: Option<Evidence>,
    /// The unfinished system call that keeps the description although the fd is closed.
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
    /// How and when it released the file; `null` if it still held the file when the line was written.
    pub released: Option<Released>,
}

/// A file descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fd {
    /// Its number.
    pub fd: u32,
    /// Open flags by name: `O_WRONLY`, `O_CLOEXEC`…
    pub flags: Vec<String>,
    /// Whether it is close-on-exec; `null` if it was closed before the tracer read the flag.
    pub cloexec: Option<bool>,
}

/// The thread that opened the file for writing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Opened {
    /// Its pid.
    pub pid: u32,
    /// The thread's id.
    pub tid: u32,
    /// The thread's name.
    pub comm: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// When the open returned.
    pub time_ns: u64,
    /// When the opener's own fd was closed; `null` if it was still open, or the close was not seen.
    #[serde(default)]
    pub closed_ns: Option<u64>,
    /// The language runtime of the opener's program; `null` if it was not recognised.
    #[serde(default)]
    pub runtime: Option<Runtime>,
    /// The test, job and container that it belongs to; `null` if none is known.
    #[serde(default)]
    pub context: Option<Context>,
    /// The path of the open file description.
    pub path: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_b64: Option<String>,
    /// Where in its code it was, innermost frame first, without frames that nothing names; `null` if not
    /// known.
    #[serde(default)]
    pub stack: Option<Vec<Frame>>,
    /// How many frames `stack` leaves out because nothing names them; `null` without a stack.
    #[serde(default)]
    pub frames_unknown: Option<u32>,
}

/// The language runtime of a program, which opens its files and forks its children.
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
    /// Anything else: C, C++ and others without a known runtime.
    Native,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// The thread that forked a holder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Forked {
    /// Its pid.
    pub pid: u32,
    /// The thread's id.
    pub tid: u32,
    /// The thread's name.
    pub comm: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comm_b64: Option<String>,
    /// When the fork was complete, just before the child runs for the first time.
    pub time_ns: u64,
    /// Where in its code it was, innermost frame first, without frames that nothing names; `null` if not
    /// known.
    #[serde(default)]
    pub stack: Option<Vec<Frame>>,
    /// How many frames `stack` leaves out because nothing names them; `null` without a stack.
    #[serde(default)]
    pub frames_unknown: Option<u32>,
}

/// How a holder released the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// close or close_range.
    Close,
    /// An exec closed the fd, which is close-on-exec.
    CloseOnExec,
    /// dup2 or dup3 replaced the fd.
    Dup,
    /// The process exited.
    Exit,
    /// The mapping was removed.
    Unmap,
    /// Direction `write`: it exec'd another program.
    Exec,
    /// Not seen; `time_ns` is when the tracer found the file released.
    Unknown,
    /// A word of a later version.
    #[serde(untagged)]
    #[schemars(skip)]
    Other(Word),
}

/// How and when a holder released the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Released {
    /// How.
    pub how: How,
    /// When.
    pub time_ns: u64,
    /// The same, counted from the failure; at most 0 if it was released while the call was failing.
    pub after_ns: i64,
    /// The program it exec'd, for `close-on-exec`.
    pub exec: Option<String>,
    /// The exact bytes, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_b64: Option<String>,
}
