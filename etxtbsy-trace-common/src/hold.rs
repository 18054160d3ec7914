//! Who holds a file open for writing: the values of the maps in which the programs keep holds.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of `task_struct.comm`, the terminating NUL included (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
/// How many file descriptors one [`FdWord`] covers.
pub const FDS_PER_WORD: usize = 16;
/// How many places one inode has for its holds; see [`HoldKey::slot`].
pub const SLOTS: u32 = 64;
/// How many places one inode has for the descriptions that outlived their opener's fd.
pub const ORPHAN_SLOTS: u32 = 8;
/// How many of an inode's places the programs try before they count a hold as lost.
pub const PROBES: u32 = 16;

/// A thread at one time: who opened a file, who forked a holder.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// When it acted; 0 if no program saw it.
    pub time_ns: u64,
    /// The process (thread group).
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name, NUL padded.
    pub comm: [u8; COMM_LEN],
}

/// How an fd came into an fd table. A `u32` in [`Hold`], so that no padding is left.
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// It was there when tracing began, or arrived on a way that no program follows.
    Unknown = 0,
    /// An open for writing returned it.
    Open = 1,
    /// `copy_files` put it into a new process's table.
    Fork = 2,
    /// dup, dup2, dup3 or `fcntl(F_DUPFD)` made it.
    Dup = 3,
    /// Another process sent it (SCM_RIGHTS), or this one fetched it from another (pidfd_getfd). The
    /// programs see this once they follow it ([`crate::Config::Passed`]); before, user space concludes it
    /// for an fd that arrived unseen and that another process opened.
    Passed = 4,
    /// A mapping refers to the description; there is no fd.
    Mapping = 5,
}

/// [`Hold::fd`] of a mapping.
pub const NO_FD: u32 = u32::MAX;

/// How far a hold's end has come. A `u32` in [`Hold`].
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The fd is in the table.
    Held = 0,
    /// A successful exec closed the fd; its last reference is dropped when that execve returns.
    ExecClosing = 1,
    /// The last thread of the process is in `do_exit`.
    Exiting = 2,
    /// It is over; [`Hold::released_ns`] says since when.
    Released = 3,
}

/// What ended a hold. A `u32` in [`Hold`].
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing yet. At [`Stage::Released`]: no program saw the end, only that the hold was over.
    None = 0,
    /// close: reported at its entry, before the kernel takes the fd from the table.
    Close = 1,
    /// An exec, the fd being close-on-exec.
    CloseOnExec = 2,
    /// Another description was put at the same fd (dup2, dup3).
    Dup = 3,
    /// The process ended.
    Exit = 4,
    /// The process unmapped the file.
    Unmap = 5,
    /// close_range, or the close of a 32-bit process: reported when the fd has left the table.
    CloseRange = 6,
    /// Of a process that ran the file: it runs another program.
    Exec = 7,
}

/// Where a [`Hold`] is kept: under the inode that it keeps busy, so that a failing exec finds all of
/// those, and looks at no others.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HoldKey {
    /// `struct inode *`.
    pub inode: u64,
    /// 0 to [`SLOTS`] − 1; first tried at a hash of the fd table and the fd.
    pub slot: u32,
    /// Zero.
    pub pad: u32,
}

/// One fd, in one fd table, that refers to an open file description with write access to an
/// inode (`f_mode & FMODE_WRITER`).
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// `struct file *`, the open file description. Reused by the kernel once freed: only
    /// together with [`Hold::opened`] it names one.
    pub file: u64,
    /// `struct inode *`.
    pub inode: u64,
    /// `inode.i_ino`.
    pub ino: u64,
    /// `struct files_struct *`, the fd table; for a mapping, `struct mm_struct *`.
    pub table: u64,
    /// `struct task_struct *` of the holder when it got the fd: the child for a fork, else the
    /// thread that made the fd; the exec'ing or exiting thread later.
    pub task: u64,
    /// `task_struct.start_time` of `task`.
    pub start_ns: u64,
    /// When the fd came into this table; if `found` is set, when it was found there. Distinguishes one use of
    /// a place from the next.
    pub acquired_ns: u64,
    /// When it left it; see [`Stage::Released`].
    pub released_ns: u64,
    /// Who opened the description for writing.
    pub opened: Actor,
    /// Which thread forked this holder; `time_ns` is 0 unless `via` is [`Via::Fork`].
    pub forked: Actor,
    /// The holding process.
    pub tgid: u32,
    /// Its parent when it got the fd.
    pub ppid: u32,
    /// The file descriptor; [`NO_FD`] for a mapping.
    pub fd: u32,
    /// `file.f_flags`: O_WRONLY, O_RDWR, O_APPEND…
    pub flags: u32,
    /// A [`Via`].
    pub via: u32,
    /// A [`Stage`].
    pub stage: u32,
    /// A [`How`].
    pub how: u32,
    /// 1 if this was the last reference to the description when the hold ended: then this hold, and no other,
    /// can have kept the description open until the kernel dropped it.
    pub was_last_reference: u32,
    /// 1 if the holder has exec'd since it got the fd, and kept it.
    pub execed: u32,
    /// 1 if no event showed its beginning: it was found in the table, at `acquired_ns`, and began earlier.
    pub found: u32,
    /// 1 if its beginning was reported to user space, so that its end is too.
    pub reported: u32,
    /// `inode.i_generation`: with `ino`, distinguishes a file from an earlier one at the same address.
    pub generation: u32,
    /// Of a copy that a fork made: when the forking table's own fd ended, if that was before the child was
    /// complete, and the table did not have the fd again; else 0. The copy is older than that.
    pub left_ns: u64,
}

/// Where the kernel has a hold: table, fd and `struct file`; all three may be in use again later.
pub type HoldPlace = (u64, u32, u64);

impl Hold {
    /// Where the kernel has it.
    #[must_use]
    pub const fn place(&self) -> HoldPlace {
        (self.table, self.fd, self.file)
    }

    /// Whether both are of the same fd, description and table. If they are also of the same process, they are
    /// the same hold.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        (self.place(), self.acquired_ns) == (other.place(), other.acquired_ns)
    }
}

/// The holds of [`FDS_PER_WORD`] neighbouring fds of one table.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct FdWord {
    /// By fd modulo [`FDS_PER_WORD`]; an `inode` of 0 is an empty place.
    pub at: [HoldKey; FDS_PER_WORD],
}

/// Which [`FdWord`].
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct FdWordKey {
    /// `struct files_struct *`.
    pub table: u64,
    /// fd divided by [`FDS_PER_WORD`].
    pub word: u32,
    /// Zero.
    pub pad: u32,
}

/// An fd table that has, or had, holds.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Table {
    /// The process it belongs to.
    pub tgid: u32,
    /// The highest [`FdWordKey::word`] that was ever used.
    pub max_word: u32,
}

/// Who forked a process that inherited a write fd: the links of a holder's chain, kept because parents may
/// end before user space asks for them.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Lineage {
    /// The forking thread, and when.
    pub forker: Actor,
    /// `task_struct.start_time` of the child.
    pub start_ns: u64,
    /// The parent of the forking process then.
    pub ppid: u32,
    /// The child as the forking process's pid namespace has it: what its wait(2) returns.
    pub wait_pid: u32,
    /// When and by which thread of the forking process it was reaped, if the two pids are the same; else
    /// [`ReapKey`] leads to that.
    pub reaped: Reaped,
}

/// A process that has been reaped: which process did it, and the pid that its wait(2) returned.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReapKey {
    /// The process that waited.
    pub reaper: u32,
    /// What it waited for, in its own pid namespace.
    pub pid: u32,
}

/// When a process was reaped, and by which thread.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Reaped {
    /// When its wait(2) returned.
    pub time_ns: u64,
    /// `struct task_struct *` of the thread that waited.
    pub task: u64,
}

/// A thread that is ending and was the last to use its fd table, until the kernel has closed the files. (As a
/// rule the last thread of a process.)
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Exiting {
    /// `struct files_struct *`.
    pub table: u64,
    /// Its process.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// An inode that a recent failure was about.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// When the last failure was.
    pub failed_ns: u64,
    /// How many more copies made by forks are to be reported, to account for references that a
    /// failure did not find.
    pub wanted: u32,
    /// How many changes found no room in the ring buffer.
    pub lost: u32,
}

/// A description whose close no event shows: user space waits for its release.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct PendingRelease {
    /// `struct file *`.
    pub file: u64,
    /// `struct inode *`; 0 if the last reference waits in the work of a task of the process, which drops it
    /// when it ends at the latest.
    pub inode: u64,
}
