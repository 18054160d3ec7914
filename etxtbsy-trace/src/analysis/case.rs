//! All that is known of one failure: records of the kernel side, and what user space found out at once.

use std::collections::{HashMap, HashSet};

use etxtbsy_trace_common::{
    self as common, Candidate, Change, Failure, Hold, HoldPlace, How, PinnedBy, Stage, TextOf, Via,
};

use crate::{event::Runtime, host::fs_view::FileSystem};

/// How long a failure waits for the end of its holds, in nanoseconds.
pub const GRACE_NS: u64 = 1_000_000_000;

/// The end of a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptionClosed {
    /// When its write access went.
    pub time_ns: u64,
    /// Whether that was done by a process that was ending.
    pub exiting: bool,
}

/// A file that refused to be written, because it is being run.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// Its path.
    pub path: Vec<u8>,
    /// Its device: major << 20 | minor.
    pub dev: u32,
    /// Its inode number.
    pub ino: u64,
    /// Its `i_writecount` at the failure: below zero, by how many it is being run; `None` if whoever
    /// ran it was gone before it was counted.
    pub count: Option<i32>,
    /// How many of them are accounted for.
    pub explained: u32,
    /// The processes that run it.
    pub runners: Vec<Runner>,
}

impl Running {
    /// How often it is denied by something that was not found.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.count.map_or(0, |count| count.unsigned_abs().saturating_sub(self.explained))
    }
}

/// A process that runs a file.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The process.
    pub tgid: u32,
    /// As the failing call showed it, if it did.
    pub shown: Option<common::Runner>,
    /// When it ran it no more, and how.
    pub left: Option<(How, u64)>,
    /// Whether it is of the traced tree, if there is one.
    pub in_tree: bool,
    /// The script for which it is the interpreter, as it was asked to execute it.
    pub script: Option<Vec<u8>>,
}

/// All records about one failure, and what user space found out.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct Case {
    /// The failure.
    pub failure: Failure,
    /// Whether the exec succeeded: a near miss.
    pub succeeded: bool,
    /// The holds on its inode, those that had just ended too.
    pub candidates: Vec<Candidate>,
    /// Holds that began after it.
    pub acquired: Vec<Change>,
    /// Holds that ended after it.
    pub released: Vec<Change>,
    /// What holders exec'd, by process, as they were asked to.
    pub execs: HashMap<u32, Vec<u8>>,
    /// Texts about the victim and the file.
    pub texts: HashMap<TextOf, Vec<u8>>,
    /// Executables of holders, by process; component names as the kernel side gives them.
    pub exes: HashMap<u32, Vec<u8>>,
    /// What the programs of openers were written in that had ended before they could be looked at, by process.
    pub runtimes: HashMap<u32, Runtime>,
    /// Paths of the descriptions that holders refer to, by process; component names.
    pub files: HashMap<u32, Vec<u8>>,
    /// When processes dropped descriptions that no table showed at the failure, by `struct file`
    /// and process.
    pub dropped: HashMap<(u64, u32), DescriptionClosed>,
    /// Threads, by number, that were found to be opening the file for writing, or truncating it.
    pub opening: HashSet<u32>,
    /// Those that may have been.
    pub may_open: HashSet<u32>,
    /// What of the kernel, or which file system, user space found to keep the file, or to have refused
    /// the call.
    pub pins: Vec<Pin>,
    /// How many references to the descriptions the kernel side did not find.
    pub references: u32,
    /// How many holders have no place of their own in the kernel side's maps.
    pub unplaced: u32,
    /// Since when fds from other processes are followed; 0 if they were not, then.
    pub passed_since_ns: u64,
    /// Descriptions that are registered with an io_uring of their opener, where the kernel side cannot
    /// see that (up to 5.14), by `struct file`.
    pub registered: HashSet<u64>,
    /// Whether something was lost by then that could have shown other holders.
    pub blind: bool,
    /// When fds were found to refer to another description, or none, whose end no event showed; by
    /// table, fd and `struct file`.
    pub gone: HashMap<HoldPlace, u64>,
    /// Direction `write`: the processes that ran a file of the name in question.
    pub named: Vec<common::Runner>,
    /// Direction `write`: which file that was, if the failing call showed it.
    pub refused: Option<common::WriteRefused>,
    /// Direction `write`: the new file that the same process has made in its place.
    pub repaired: Option<common::Repaired>,
    /// Direction `write`: the file that was being run, and by whom.
    pub running: Option<Running>,
    /// Whether its own records are complete.
    pub reported: bool,
    /// Whether some of them found no room.
    pub lost: bool,
    /// Whether the kernel has passed over some program by now: what was not seen may have been.
    pub passed_over: bool,
}

impl Case {
    /// Whether a holder may have got its fd from another process, on a way that was not seen.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        let enter_ns = self.failure.enter_ns;
        self.candidates.iter().any(|candidate| {
            let hold = &candidate.hold;
            let unseen = hold.found != 0
                && hold.acquired_ns > enter_ns
                && hold.via() == Some(Via::Unknown)
                && hold.opened.tgid != hold.tgid;
            unseen && candidate.pinned_by().is_none()
                || candidate.pinned_by() == Some(PinnedBy::Queue)
        })
    }

    /// The threads, with their processes, that sleep in a call which may be opening the file.
    #[must_use]
    pub fn openings(&self) -> Vec<(u32, u32)> {
        let opens = |candidate: &&Candidate| candidate.pinned_by() == Some(PinnedBy::Opening);
        let threads = self.candidates.iter().filter(opens);
        threads.map(|candidate| (candidate.hold.tgid, candidate.tid)).collect()
    }

    /// Whether a holder came to its fd on a way that was not seen.
    #[must_use]
    pub fn has_unseen(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.hold.via() == Some(Via::Unknown))
    }

    /// A text about the victim or the file.
    #[must_use]
    pub fn text(&self, of: TextOf) -> Option<&[u8]> {
        self.texts.get(&of).map(Vec::as_slice)
    }

    /// Whether it is about that inode, or that of a description of the file.
    pub(super) fn is_of(&self, inode: u64) -> bool {
        self.failure.inode == inode
            || self.candidates.iter().any(|candidate| candidate.inode == inode)
    }

    /// Whether a process is among those that may have held the file.
    pub(super) fn has_holder(&self, tgid: u32) -> bool {
        self.candidates.iter().any(|candidate| candidate.hold.tgid == tgid)
            || self.acquired.iter().any(|change| change.hold.tgid == tgid)
    }

    /// Whether it has a record of that hold.
    pub(super) fn knows(&self, hold: &Hold) -> bool {
        self.candidates.iter().any(|candidate| candidate.hold.is(hold))
            || self.acquired.iter().any(|change| change.hold.is(hold))
    }

    /// Whether one of its holds is of that description, by `struct file`.
    pub(super) fn refers_to(&self, file: u64) -> bool {
        self.candidates.iter().any(|candidate| candidate.hold.file == file)
            || self.acquired.iter().any(|change| change.hold.file == file)
    }

    /// The descriptions that no table shows and whose end is waited for: one that an exec has
    /// taken out of its table, and that waits in the task's work; one that is mapped; one that a
    /// system call or an io_uring keeps.
    pub(super) fn pending_releases(&self) -> Vec<&Candidate> {
        let lingers = |candidate: &&Candidate| {
            let hold = &candidate.hold;
            let waits = candidate.fput_pending != 0 && hold.stage() == Some(Stage::Released);
            let mapped = candidate.open != 0 && hold.via() == Some(Via::Mapping);
            (waits || mapped || is_pinned(candidate))
                && !self.dropped.contains_key(&(hold.file, hold.tgid))
        };
        self.candidates.iter().filter(lingers).collect()
    }

    /// Whether its grace period is over.
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.failure.exit_ns.saturating_add(GRACE_NS)
    }

    /// The holds in fd tables whose end is waited for.
    pub(super) fn unended(&self) -> impl Iterator<Item = Hold> {
        let shown = self.candidates.iter().filter(|candidate| candidate.in_table != 0);
        let holds = shown.map(|candidate| candidate.hold);
        let holds = holds.chain(self.acquired.iter().map(|change| change.hold));
        let ended = |hold: &Hold| {
            hold.stage() == Some(Stage::Released)
                || hold.via() == Some(Via::Mapping)
                || self.gone.contains_key(&hold.place())
                || self.released.iter().any(|change| change.hold.place() == hold.place())
        };
        holds.filter(move |hold| !ended(hold))
    }

    /// Whether the call was one that writes, and the file was being run.
    #[must_use]
    pub fn is_write(&self) -> bool {
        let call = i64::from(self.failure.syscall);
        ![libc::SYS_execve, libc::SYS_execveat].contains(&call)
    }

    /// The file system that refused the call, if it was one.
    #[must_use]
    pub fn refused_by(&self) -> Option<&FileSystem> {
        self.pins.iter().find_map(|pin| match pin {
            Pin::FileSystem(found) => Some(found),
            _ => None,
        })
    }
}

/// Whether a process keeps the description of a candidate without an fd.
pub(super) fn is_pinned(candidate: &Candidate) -> bool {
    matches!(candidate.pinned_by(), Some(PinnedBy::Call | PinnedBy::IoUring))
}

/// What keeps a description that no process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The queue of a socket.
    SocketQueue,
    /// A loop device, such as `/dev/loop0`.
    LoopDevice(String),
    /// The kernel swaps to the file.
    SwapFile,
    /// An entry of binfmt_misc with flag `F`, by its name.
    BinfmtMisc(String),
    /// The file system itself answered.
    FileSystem(FileSystem),
    /// That is not known.
    Unknown,
}
