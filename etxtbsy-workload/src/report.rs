//! Reports of workloads: what is true of the failures that they made.

use etxtbsy_trace_event::{Evidence, How, Place, Role, State, VerdictKind, Via};
use nix::unistd::{getpid, gettid};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// The process id.
    pub pid: u32,
    /// The thread id.
    pub tid: u32,
}

impl Task {
    pub(super) fn current() -> Self {
        Self { pid: getpid().as_raw().cast_unsigned(), tid: gettid().as_raw().cast_unsigned() }
    }

    /// The only thread of a forked child.
    pub(super) fn main_of(pid: i32) -> Self {
        Self { pid: pid.cast_unsigned(), tid: pid.cast_unsigned() }
    }
}

/// The report of a race.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Race {
    /// Its name on the command line.
    pub scenario: String,
    /// Its process.
    pub pid: u32,
    /// The directory of its scripts, which is removed at the end.
    pub dir: PathBuf,
    /// The number of execs of those scripts.
    pub attempts: u64,
    /// How many of them failed with ETXTBSY.
    pub failures: u64,
    /// How long it took.
    pub seconds: f64,
    /// Its threads. Only thread N of this list writes and execs `<dir>/fork-exec-N`, and forks for it.
    pub threads: Vec<u32>,
}

/// The report of a storm.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// Its name on the command line.
    pub scenario: String,
    /// Its process, which had the busy file open for writing, and made the calls that failed.
    pub pid: u32,
    /// The busy file, which is removed at the end.
    pub path: PathBuf,
    /// How often it did its thing.
    pub done: u64,
    /// The number of execs, all of which failed with ETXTBSY.
    pub failures: u64,
    /// How long it took, without the last failure.
    pub seconds: f64,
}

/// The report of the race `ground-truth`, with the facts of each failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroundTruth {
    /// The counts.
    #[serde(flatten)]
    pub race: Race,
    /// The execs that failed, unordered.
    pub failed: Vec<FailedExec>,
    /// The execs that succeeded and whose files other processes had inherited, unordered.
    pub won: Vec<WonExec>,
}

/// An exec that succeeded, and who had inherited its file. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WonExec {
    /// The process that executed the file.
    pub victim: u32,
    /// The file's inode number, which is never reused.
    pub ino: u64,
    /// The thread that wrote the file, closed it, and then forked the victim.
    pub writer: u32,
    /// The time before that fork.
    pub fork_begins_ns: u64,
    /// The time before the exec.
    pub enter_ns: u64,
    /// The processes that had inherited the file and may not have been reaped when the victim was forked; `sure` are
    /// those that certainly had not. No other process had it.
    pub inheritors: Vec<Inheritor>,
}

/// A failed exec, and who may have held its file. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedExec {
    /// The process whose exec failed.
    pub victim: u32,
    /// The file's inode number, which is never reused.
    pub ino: u64,
    /// The thread that wrote the file, closed it, and then forked the victim.
    pub writer: u32,
    /// The time before the call.
    pub enter_ns: u64,
    /// The time after the call.
    pub exit_ns: u64,
    /// The processes that had inherited the file and may have lived during the call. No other process
    /// can have held it.
    pub inheritors: Vec<Inheritor>,
}

/// A process that inherited an fd of a file that was busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inheritor {
    /// The process id.
    pub pid: u32,
    /// The inherited fds, ascending.
    pub fds: Vec<u32>,
    /// The thread that forked it.
    pub forked_by: u32,
    /// The time before its exec; it had the fds at least until then.
    pub before_exec_ns: u64,
    /// A time by which it had been waited for.
    pub gone_by_ns: u64,
    /// Whether it certainly held the file during the whole call.
    pub sure: bool,
}

/// The report of the workload `mixed`, with the facts of each failure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixed {
    /// The counts, without threads.
    #[serde(flatten)]
    pub race: Race,
    /// The seed of its random choices.
    pub seed: u64,
    /// How many calls failed with ETXTBSY because one of the files was running.
    pub refused: u64,
    /// The failed execs, in the order of the calls.
    pub failed: Vec<BusyExec>,
}

/// A failed exec, and everything that may have held its file. Times are nanoseconds of
/// CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyExec {
    /// The process whose exec failed.
    pub victim: u32,
    /// The file's inode number.
    pub ino: u64,
    /// The time before the call.
    pub enter_ns: u64,
    /// The time after the call.
    pub exit_ns: u64,
    /// Everything that may have held the file during the call.
    pub holders: Vec<PossibleHolder>,
}

/// The report of the workload `refusals`, with the facts of each refused call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusals {
    /// Its name on the command line.
    pub scenario: String,
    /// Its process, which made the calls.
    pub pid: u32,
    /// How many programs were run.
    pub runs: u64,
    /// How many execs failed with ETXTBSY.
    pub failed_execs: u64,
    /// How long it took.
    pub seconds: f64,
    /// The refused calls, unordered.
    pub refused: Vec<Refusal>,
}

/// A refused call, and who may have run the file. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The thread that made the call.
    pub tid: u32,
    /// The file's inode number.
    pub ino: u64,
    /// The time before the call.
    pub enter_ns: u64,
    /// The time after the call.
    pub exit_ns: u64,
    /// Every process that may have run the file during the call.
    pub runners: Vec<PossibleRunner>,
}

/// A process that may have run a file during a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PossibleRunner {
    /// The process id.
    pub pid: u32,
    /// The time before its fork.
    pub from_ns: u64,
    /// A time by which it had been waited for.
    pub until_ns: u64,
    /// Whether it certainly ran the file during the whole call.
    pub sure: bool,
}

/// A process that may have held a file during a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PossibleHolder {
    /// The process id; for the queue of a socket, that of the sender.
    pub pid: u32,
    /// What it held the file by.
    pub by: HeldBy,
    /// Whether it certainly held the file during the whole call.
    pub sure: bool,
    /// The fds that may have referred to the file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fds: Vec<u32>,
    /// It did not hold the file before this time.
    pub may_from_ns: u64,
    /// It did not hold the file after this time.
    pub may_until_ns: u64,
}

/// What keeps an open file description open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// An fd.
    Fd,
    /// A memory mapping.
    Mapping,
    /// The queue of a socket; no process holds it.
    SocketQueue,
    /// A call that has not returned: open(2), truncate(2) or sendmsg(2).
    Call,
}

/// The report of a scene: the facts of its failed call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// Its name on the command line.
    pub scenario: String,
    /// The call that failed.
    pub syscall: String,
    /// The path as the caller gave it.
    pub path: PathBuf,
    /// The path of the busy file, which is removed at the end.
    pub busy: PathBuf,
    /// The inode number of that file.
    pub ino: u64,
    /// The file's role in the exec; `null` if the call was not an exec.
    pub role: Option<Role>,
    /// How many open file descriptions had write access to it; below zero, how many processes ran it.
    pub writers: i32,
    /// The thread that made the call.
    pub victim: Task,
    /// The holders, unordered.
    pub holders: Vec<Holder>,
    /// Descriptions that no process held, unordered.
    #[serde(default)]
    pub unheld: Vec<Unheld>,
    /// The expected verdict.
    pub verdict: VerdictKind,
}

/// An open file description that no process held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unheld {
    /// What kept it open.
    pub place: Place,
    /// The thread that opened it.
    pub opened: Task,
}

/// A process that held the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The process id.
    pub pid: u32,
    /// Its pid in its own pid namespace, if different.
    #[serde(default)]
    pub ns_pid: Option<u32>,
    /// The fds that referred to the file, ascending.
    pub fds: Vec<u32>,
    /// Whether these fds were close-on-exec.
    pub cloexec: bool,
    /// How it came to hold the file.
    pub via: Via,
    /// What it was doing at the failure.
    pub state: State,
    /// The thread that opened the file for writing; `null` if no open is involved.
    pub opened: Option<Task>,
    /// The path that was opened, if it is not the path of the busy file.
    #[serde(default)]
    pub opened_as: Option<PathBuf>,
    /// The thread that forked this holder; `null` unless `via` is `fork`.
    pub forked: Option<Task>,
    /// Its ancestors up to the workload's process, nearest first; empty for that process.
    pub ancestors: Vec<u32>,
    /// How it dropped the file after the failure.
    pub released: How,
    /// The times just before and after the call that dropped the file, or from the order to end until the
    /// end; nanoseconds of CLOCK_MONOTONIC.
    #[serde(default)]
    pub released_after: Option<(u64, u64)>,
    /// The program it exec'd, for `close-on-exec`.
    pub exec: Option<PathBuf>,
    /// The expected evidence, if the scene tests it.
    #[serde(default)]
    pub evidence: Option<Evidence>,
    /// The call in progress that kept the description open, if the scene tests it.
    #[serde(default)]
    pub call: Option<String>,
    /// Its name, and that of the opener's thread, if the scene tests them.
    #[serde(default)]
    pub names: Option<(String, String)>,
}
