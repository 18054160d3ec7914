//! What the programs count: failures, and what they lost.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::COMM_LEN;

/// Counters in the map `COUNTS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Processes that were forked into the traced tree, less all that have ended in it.
    Tree = 0,
    /// Calls of interest that failed, reported or not. [`Lost::FailureUnreported`] and
    /// [`Lost::FailureUnkept`] count those that are not reported.
    Failures = 1,
    /// Other calls of interest that failed with ETXTBSY, which the programs only count (`CALLS_FAILED`).
    OtherCalls = 2,
    /// Execs outside the traced tree that failed while a process of the tree held the file.
    Elsewhere = 3,
    /// Execs in the traced tree that succeeded.
    Execs = 4,
    /// Those of them whose file had changed since tracing began, by its `i_ctime`.
    ExecsOfWritten = 5,
    /// Execs in the traced tree that failed with ETXTBSY.
    ExecsFailed = 6,
}

impl Count {
    /// How many there are.
    pub const ALL: u32 = 7;
}

/// A process and a call, whose failures are counted together.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallKey {
    /// The process.
    pub tgid: u32,
    /// The number of the system call.
    pub syscall: i32,
}

/// How often a process's calls of a kind failed with ETXTBSY.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct CallCount {
    /// How often.
    pub count: u64,
    /// When the first of them did.
    pub first_ns: u64,
    /// The name of the process's thread that made the first.
    pub comm: [u8; COMM_LEN],
}

/// What the programs could not keep or report, one counter each, by index in the map `LOST`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A record found no room in the ring buffer.
    RingFull = 0,
    /// A hold found no room: the map is full, or the kernel has no memory for its element.
    HoldsFull = 1,
    /// A loop reached its limit: an fd table, or a list of tasks, was larger.
    WalkTruncated = 2,
    /// A failure of a call that the programs only count: the map of these counts was full.
    CallsFull = 3,
    /// No scratch memory for a text.
    NoScratch = 4,
    /// A process of the traced tree could not be noted.
    TreeFull = 5,
    /// An exec whose entry could not be noted.
    ExecsFull = 6,
    /// The inode of a failure could not be watched for what came after.
    WatchFull = 7,
    /// A failing call that was not reported, because the ring buffer was full, or more than half full: the
    /// rest is for the failures that are being reported. Each is counted here once, and its first record, if
    /// the program tried to write one, also under [`Lost::RingFull`].
    FailureUnreported = 8,
    /// A failure without a search for holders that are not known.
    SearchesFull = 9,
    /// A failing call that was not reported, because user space has as many unfinished failures as it keeps
    /// ([`crate::Config::Intake`]).
    FailureUnkept = 10,
    /// A 32-bit program of the traced tree that began before the programs followed such calls
    /// ([`crate::Config::Compat`]): its failures may not be reported.
    CompatUnfollowed = 11,
    /// An exec that may have failed, and was not looked at: there were too many.
    NearMissUnreported = 12,
}

impl Lost {
    /// What it is called in the JSON lines.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::RingFull => "records: the ring buffer was full",
            Self::HoldsFull => "holds: a map was full, or no memory for it",
            Self::WalkTruncated => "fds: a table was larger than a walk goes",
            Self::CallsFull => "other calls: the map was full",
            Self::NoScratch => "texts: no scratch memory",
            Self::TreeFull => "processes of the tree: the map was full",
            Self::ExecsFull => "execs: the map was full",
            Self::WatchFull => "releases: too many inodes to watch",
            Self::FailureUnreported => "failures: the ring buffer was full",
            Self::SearchesFull => "searches: the map was full",
            Self::FailureUnkept => "failures: more at once than are kept in detail",
            Self::CompatUnfollowed => "32-bit programs: not followed from their start",
            Self::NearMissUnreported => "near misses: more at once than are looked at",
        }
    }

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 13] = [
        Self::RingFull,
        Self::HoldsFull,
        Self::WalkTruncated,
        Self::CallsFull,
        Self::NoScratch,
        Self::TreeFull,
        Self::ExecsFull,
        Self::WatchFull,
        Self::FailureUnreported,
        Self::SearchesFull,
        Self::FailureUnkept,
        Self::CompatUnfollowed,
        Self::NearMissUnreported,
    ];
}
