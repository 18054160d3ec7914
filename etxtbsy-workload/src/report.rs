//! What a workload knows to be true of the failures it made.

use etxtbsy_trace_event::{Evidence, How, Place, Role, State, VerdictKind, Via};
use nix::unistd::{getpid, gettid};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Task {
    /// Its process.
    pub pid: u32,
    /// Its own number.
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

/// What a race counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Race {
    /// Its name on the command line.
    pub scenario: String,
    /// Its process.
    pub pid: u32,
    /// The directory in which it wrote its scripts; gone by now.
    pub dir: PathBuf,
    /// Calls of exec on those scripts.
    pub attempts: u64,
    /// How many of them failed with ETXTBSY.
    pub failures: u64,
    /// How long it took.
    pub seconds: f64,
    /// Its threads. The script `<dir>/fork-exec-N` is written, forked for and exec'd only by
    /// thread N of this list.
    pub threads: Vec<u32>,
}

/// What a storm did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Storm {
    /// Its name on the command line.
    pub scenario: String,
    /// Its process, which had the busy file open for writing, and made the calls that failed.
    pub pid: u32,
    /// The busy file; gone by now.
    pub path: PathBuf,
    /// How many of what it is a storm of.
    pub done: u64,
    /// How many calls of exec failed with ETXTBSY: all there were.
    pub failures: u64,
    /// How long it took, but for the last failure.
    pub seconds: f64,
}

/// What is true of each failure of a race.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroundTruth {
    /// What it counted.
    #[serde(flatten)]
    pub race: Race,
    /// The execs that failed, in no order.
    pub failed: Vec<FailedExec>,
}

/// An exec that failed, and who can have held its file. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedExec {
    /// The process whose exec failed.
    pub victim: u32,
    /// The file's inode number, which no other file has had.
    pub ino: u64,
    /// The thread that wrote the file, closed it, and then forked the victim.
    pub writer: u32,
    /// Before the call.
    pub enter_ns: u64,
    /// After it.
    pub exit_ns: u64,
    /// The processes that had inherited the file and were not known to be gone before the call.
    /// Nobody else can have held it.
    pub inheritors: Vec<Inheritor>,
}

/// A process that inherited an fd of a file that was busy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inheritor {
    /// Process.
    pub pid: u32,
    /// The fds that it inherited, ascending.
    pub fds: Vec<u32>,
    /// The thread that forked it.
    pub forked_by: u32,
    /// Before it called exec; it had the fds until then at least.
    pub before_exec_ns: u64,
    /// It had been waited for by then.
    pub gone_by_ns: u64,
    /// Whether it surely held the file all through the call.
    pub sure: bool,
}

/// What is true of each failure of the mixed load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixed {
    /// What it counted. There are no threads in it.
    #[serde(flatten)]
    pub race: Race,
    /// Where its random choices began.
    pub seed: u64,
    /// How many calls were refused write access with ETXTBSY because a hot file was being run.
    pub refused: u64,
    /// The execs that failed, in the order in which they were called.
    pub failed: Vec<BusyExec>,
}

/// An exec that failed, and all that can have held its file. Times are nanoseconds of
/// CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BusyExec {
    /// The process whose exec failed.
    pub victim: u32,
    /// The file's inode number.
    pub ino: u64,
    /// Before the call.
    pub enter_ns: u64,
    /// After it.
    pub exit_ns: u64,
    /// Nobody else can have held the file during the call.
    pub holders: Vec<PossibleHolder>,
}

/// What is true of each call that was refused because a program ran.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Refusals {
    /// Its name on the command line.
    pub scenario: String,
    /// Its process, which made the calls.
    pub pid: u32,
    /// How often a program was run.
    pub runs: u64,
    /// How many calls of exec failed with ETXTBSY.
    pub failed_execs: u64,
    /// How long it took.
    pub seconds: f64,
    /// The calls that were refused, in no order.
    pub refused: Vec<Refusal>,
}

/// A call that was refused, and who can have run the file. Times are nanoseconds of CLOCK_MONOTONIC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The thread that made it.
    pub tid: u32,
    /// The file's inode number.
    pub ino: u64,
    /// Before the call.
    pub enter_ns: u64,
    /// After it.
    pub exit_ns: u64,
    /// Nobody else can have run the file during the call.
    pub runners: Vec<PossibleRunner>,
}

/// A process that can have run a file during a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PossibleRunner {
    /// Process.
    pub pid: u32,
    /// Before its fork.
    pub from_ns: u64,
    /// It had been waited for by then.
    pub until_ns: u64,
    /// Whether it surely ran the file all through the call.
    pub sure: bool,
}

/// A process that can have held a file during a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PossibleHolder {
    /// Process; for the queue of a socket, who sent it.
    pub pid: u32,
    /// By what.
    pub by: HeldBy,
    /// Whether it surely held the file all through the call.
    pub sure: bool,
    /// The fds at which it can have held it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fds: Vec<u32>,
    /// It did not before.
    pub may_from_ns: u64,
    /// It did not after.
    pub may_until_ns: u64,
}

/// What keeps an open file description.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeldBy {
    /// An fd.
    Fd,
    /// A memory mapping.
    Mapping,
    /// The queue of a socket: no process.
    SocketQueue,
    /// A call under way: an open(2) that has not returned, a truncate(2), a sendmsg(2).
    Call,
}

/// What is true of the one call that a scene made fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scene {
    /// Its name on the command line.
    pub scenario: String,
    /// The call that failed.
    pub syscall: String,
    /// The path as the caller gave it.
    pub path: PathBuf,
    /// The path of the file that was really busy; gone by now.
    pub busy: PathBuf,
    /// The inode number of that file.
    pub ino: u64,
    /// What that file was to the exec; `null` if the call was none.
    pub role: Option<Role>,
    /// How many open file descriptions had write access to it; below zero, by how many processes
    /// it was being run.
    pub writers: i32,
    /// Who made the call.
    pub victim: Task,
    /// Who held the file, in no order.
    pub holders: Vec<Holder>,
    /// What held it otherwise, in no order.
    #[serde(default)]
    pub unheld: Vec<Unheld>,
    /// What it comes to.
    pub verdict: VerdictKind,
}

/// An open file description that no process held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unheld {
    /// What kept it.
    pub place: Place,
    /// Who opened it.
    pub opened: Task,
}

/// A process that held the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process.
    pub pid: u32,
    /// Its pid in its own pid namespace, if that is not the same.
    #[serde(default)]
    pub ns_pid: Option<u32>,
    /// The fds through which it held the file, ascending.
    pub fds: Vec<u32>,
    /// Whether those are close-on-exec.
    pub cloexec: bool,
    /// How it came to hold it.
    pub via: Via,
    /// What it was doing at the failure.
    pub state: State,
    /// Who opened the file for writing; `null` if it was opened for nothing of the kind.
    pub opened: Option<Task>,
    /// The path by which it was opened, if that is not the path of the busy file.
    #[serde(default)]
    pub opened_as: Option<PathBuf>,
    /// Who forked this holder; `null` unless `via` is `fork`.
    pub forked: Option<Task>,
    /// Its ancestors up to the workload's own process, nearest first; empty if it is that process.
    pub ancestors: Vec<u32>,
    /// How it let go, after the failure.
    pub released: How,
    /// Just before and just after the call by which it let go, or else the time from when it was
    /// told to until it had ended; nanoseconds of CLOCK_MONOTONIC.
    #[serde(default)]
    pub released_after: Option<(u64, u64)>,
    /// The program it exec'd, for `close-on-exec`.
    pub exec: Option<PathBuf>,
    /// How it is known that it held the file, if that is the matter of the scene.
    #[serde(default)]
    pub evidence: Option<Evidence>,
    /// The call under way that kept the description, if that is the matter of the scene.
    #[serde(default)]
    pub call: Option<String>,
    /// Its name, and that of the thread that opened the file, if those are the matter of the scene.
    #[serde(default)]
    pub names: Option<(String, String)>,
}
