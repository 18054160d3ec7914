//! The JSON lines: what is written, what replay reads, and what the text view shows.
//!
//! The names and meanings are the project's contract with scripts (docs/json.md). Bytes that are
//! not UTF-8 are given lossily under `<key>`, and exactly, as base64, under `<key>_b64`
//! ([`text`] makes both). What is not known is `None`, written as `null`.
//!
//! A later version may write words that this one does not know: each set of words has an `Other` for
//! them. The schema leaves it out, as the tracer never writes it.

use crate::word::Word;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What `type` can be.
pub const TYPES: [&str; 5] = ["meta", "incident", "refusal", "lost", "summary"];

/// The version of the shape of the lines, in `meta.schema`.
pub const SCHEMA: u32 = 2;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// The first line: what was traced, by what, where.
    Meta(Meta),
    /// One failed call.
    Incident(Box<Incident>),
    /// Calls that failed with ETXTBSY and are only counted.
    Refusal(Refusal),
    /// Something was dropped.
    Lost(Lost),
    /// The last line.
    Summary(Summary),
}

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

/// Bytes as a JSON string, and in base64 where that string is not exact.
#[must_use]
pub fn text(bytes: &[u8]) -> (String, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(STANDARD.encode(bytes))),
    }
}

/// [`text`] for bytes that may not be known.
#[must_use]
pub fn maybe_text(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(text) {
        Some((lossy, exact)) => (Some(lossy), exact),
        None => (None, None),
    }
}

/// [`text`] for a list: the second part is `None` if every element is UTF-8.
#[must_use]
pub fn texts(list: &[Vec<u8>]) -> (Vec<String>, Option<Vec<Option<String>>>) {
    let (lossy, exact): (Vec<_>, Vec<_>) = list.iter().map(|bytes| text(bytes)).unzip();
    let any = exact.iter().any(Option::is_some);
    (lossy, any.then_some(exact))
}
