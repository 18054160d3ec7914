//! What the eBPF programs and user space say to each other: the values of the maps and the
//! records of the ring buffer.
//!
//! Everything here is `repr(C)` with its padding spelled out, for the kernel copies the bytes as
//! they are. Kernel pointers travel as `u64`: user space only compares them. Times are
//! nanoseconds of CLOCK_MONOTONIC (`bpf_ktime_get_ns`).
#![no_std]

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of `task_struct.comm`, the terminating NUL included (`TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;
/// How many file descriptors one [`FdWord`] covers.
pub const FDS_PER_WORD: usize = 16;
/// How many places one inode has for its holds; see [`HoldKey::slot`].
pub const SLOTS: u32 = 64;
/// How many places one inode has for the descriptions that outlive their opener's fd.
pub const ORPHANS: u32 = 8;
/// How many of an inode's places are tried before a hold is given up and counted as lost.
pub const PROBES: u32 = 16;
/// The longest text the kernel side copies: a path (`PATH_MAX`) or an argument vector.
pub const TEXT_MAX: usize = 4096;

/// A thread at a moment: who opened a file, who forked a holder.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Actor {
    /// When it acted; 0 if nobody saw it.
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
    /// It was there when tracing began, or arrived on a way that is not watched.
    Unknown = 0,
    /// An open for writing returned it.
    Open = 1,
    /// `copy_files` put it into a new process's table.
    Fork = 2,
    /// dup, dup2, dup3 or `fcntl(F_DUPFD)` made it.
    Dup = 3,
    /// Another process gave it away (SCM_RIGHTS), or had it taken (pidfd_getfd). Seen once that is
    /// followed ([`Config::Passed`]); before, it is what remains for an fd that came unseen and that
    /// another process opened.
    Passed = 4,
    /// A mapping refers to the description; there is no fd.
    Mapping = 5,
}

/// [`Hold::fd`] of a mapping.
pub const NO_FD: u32 = u32::MAX;

/// [`Candidate::cloexec`] of a process that is in an exec.
pub const CLOEXEC_UNKNOWN: u32 = 2;

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
    /// It has been let go of; [`Hold::released_ns`] says when.
    Released = 3,
}

/// What ended a hold. A `u32` in [`Hold`].
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Nothing yet; of one that is [`Stage::Released`]: not seen, it was gone when it was noticed.
    None = 0,
    /// close: reported at its entry, before the fd goes.
    Close = 1,
    /// An exec, the fd being close-on-exec.
    CloseOnExec = 2,
    /// Another description was put at the same fd (dup2, dup3).
    Dup = 3,
    /// The process ended.
    Exit = 4,
    /// The mapping went.
    Unmap = 5,
    /// close_range, or the close of a 32-bit process: reported when the fd has gone.
    CloseRange = 6,
    /// Of a process that ran the file: it runs another program.
    Exec = 7,
}

/// Where a [`Hold`] is kept: by the inode it keeps busy, so that a failing exec finds all of
/// them without looking at any other.
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
    /// When the fd came into this table; if `found` is set, when it was found there. Tells one use of
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
    /// 1 if this was the last reference to the description when it was let go of: this hold, and
    /// no other, can be what kept it open until the kernel was through with it.
    pub last: u32,
    /// 1 if the holder has exec'd since it got the fd, and kept it.
    pub execed: u32,
    /// 1 if no event brought it: it was found in the table, at `acquired_ns`, and came before that.
    pub found: u32,
    /// 1 if its beginning was reported to user space, so that its end is too.
    pub reported: u32,
    /// `inode.i_generation`: with `ino`, tells a file from an earlier one at the same address.
    pub generation: u32,
    /// Of a copy made by a fork: when the forking table's own fd ended, if it had when the child was
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

    /// Whether both speak of the same fd, description and table: if also of the same process, of the
    /// same hold.
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

/// Who forked a process that inherited a write fd: the links of a holder's chain, kept for
/// parents that end before anyone asks.
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
    /// Zero.
    pub pad: u32,
}

/// What an exec that is under way was asked to do; kept from its entry to its exit.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecCall {
    /// When the system call began.
    pub enter_ns: u64,
    /// User pointer to the path.
    pub path: u64,
    /// `struct files_struct *` at that time: an exec leaves a table that others share. 0 once
    /// `sched_process_exec` has been seen.
    pub table: u64,
    /// When the thread last got a processor before that, by the scheduler's clock
    /// (`sched_info.last_arrival`); 0 if it is not known.
    pub arrival: u64,
}

/// What a process that closed write fds in a successful exec was asked to execute.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug)]
pub struct ExecName {
    /// The process.
    pub tgid: u32,
    /// `bprm->filename`, ended by NUL, cut off if it is longer.
    pub name: [u8; EXEC_NAME_LEN],
}

/// Bytes of [`ExecName::name`].
pub const EXEC_NAME_LEN: usize = 252;

/// A thread that is ending and was the last to use its fd table, until the files are known to be
/// gone. (As a rule the last thread of a process.)
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

/// The first words of every record: what it is.
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Failure`].
    Failure = 1,
    /// [`TextHeader`] and that many bytes.
    Text = 2,
    /// [`Candidate`].
    Candidate = 3,
    /// [`FailureEnd`].
    FailureEnd = 4,
    /// [`Change`]: a new hold on the inode of a recent failure.
    Acquired = 5,
    /// [`Change`]: a hold on the inode of a recent failure has ended.
    Released = 6,
    /// [`TreeEnded`].
    TreeEnded = 7,
    /// [`Dropped`].
    Dropped = 8,
    /// [`Left`].
    Left = 9,
    /// [`Runner`].
    Runner = 11,
    /// [`Compat`].
    Compat = 12,
    /// [`Refused`].
    Refused = 13,
    /// [`Repaired`].
    Repaired = 14,
}

/// An execve or execveat returned −ETXTBSY.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Failure {
    /// [`Kind::Failure`].
    pub kind: u32,
    /// The system call's number.
    pub syscall: i32,
    /// Names this failure in the records that follow.
    pub seq: u64,
    /// When the call began; 0 if its entry was not seen.
    pub enter_ns: u64,
    /// When it returned.
    pub exit_ns: u64,
    /// `struct inode *` of the busy file; 0 if it could not be found.
    pub inode: u64,
    /// `inode.i_ino`.
    pub ino: u64,
    /// `inode.i_writecount` at the exit of the call.
    pub writers: i32,
    /// `super_block.s_dev`: major << 20 | minor.
    pub dev: u32,
    /// 1 if the target was busy itself, more if an interpreter was, 0 if the busy file was not found.
    pub opened: u32,
    /// The victim: process, thread, parent process.
    pub tgid: u32,
    /// Its thread.
    pub tid: u32,
    /// Its parent process.
    pub ppid: u32,
    /// Its pid in its own pid namespace.
    pub ns_pid: u32,
    /// Its user.
    pub uid: u32,
    /// `inode.i_generation`.
    pub generation: u32,
    /// Its pid in the tracer's pid namespace; 0 if it is not in that.
    pub local_pid: u32,
    /// Its cgroup in the v2 hierarchy (`bpf_get_current_cgroup_id`).
    pub cgroup: u64,
    /// Its `start_time`.
    pub start_ns: u64,
    /// `inode.i_flags`.
    pub inode_flags: u32,
    /// 1 if the victim is of the traced tree, or all are of interest.
    pub in_tree: u32,
    /// Its name.
    pub comm: [u8; COMM_LEN],
}

/// `S_SWAPFILE` in `inode.i_flags`, include/linux/fs.h: an active swap file.
pub const SWAP_FILE: u32 = 1 << 8;

/// What a [`Kind::Text`] record is the text of.
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextOf {
    /// The path as the caller gave it.
    Path = 1,
    /// The busy file, as dentry names from the leaf upwards, each ended by NUL.
    BusyFile = 2,
    /// The file that was to be executed, where an interpreter was busy; names as above.
    Target = 3,
    /// The victim's executable; names as above.
    VictimExe = 4,
    /// The victim's working directory; names as above.
    VictimCwd = 5,
    /// The victim's arguments, each ended by NUL.
    VictimArgv = 6,
    /// A candidate's executable at the failure; names as above.
    HolderExe = 7,
    /// The path of the open file description a candidate refers to; names as above.
    HolderFile = 8,
    /// The directory that the path was given relative to by an fd; names as above.
    Directory = 9,
}

/// The head of a text; its bytes follow.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct TextHeader {
    /// [`Kind::Text`].
    pub kind: u32,
    /// A [`TextOf`].
    pub of: u32,
    /// The failure it belongs to.
    pub seq: u64,
    /// The holder it speaks of; 0 for texts of the victim.
    pub tgid: u32,
    /// How many bytes follow.
    pub len: u32,
    /// 1 if the text goes on beyond what was copied.
    pub truncated: u32,
    /// Zero.
    pub pad: u32,
}

/// What can be seen of a holder while its task lives.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// The name of its first thread.
    pub comm: [u8; COMM_LEN],
    /// Its pid in its own pid namespace; 0 if its task is gone, and the others say nothing.
    pub ns_pid: u32,
    /// Its user.
    pub uid: u32,
    /// Its cgroup (v2) id.
    pub cgroup: u64,
    /// The processes above it, nearest first, by `real_parent`; ended by 0 if there is room.
    pub above: [u32; 6],
    /// Its pid in the tracer's pid namespace; 0 if it is not in that.
    pub local_pid: u32,
    /// 1 if its process is of the traced tree; 0 where all are of interest.
    pub in_tree: u32,
    /// `task_struct.start_time` of its first thread.
    pub start_ns: u64,
}

/// How far the drop of a last reference has come that no list of work shows. A `u32` in
/// [`Candidate`].
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// It is over, or has not begun.
    None = 0,
    /// The description has no reference and is not freed yet: its write access is about to go.
    UnderWay = 1,
    /// This kernel leaves no trace in a freed description.
    Unclear = 2,
}

/// What the users of an fd table have been doing since the failing call began. A `u32` in
/// [`Candidate`]; of several users, the bits that all have in common.
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// That is not known.
    No = 0,
    /// None is in a call just now that brings fds from another process.
    NotReceiving = 1,
    /// None has run: what is in the table was in it before the call.
    Idle = 3,
}

/// A hold on the busy inode, as it was when the exec failed.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Candidate {
    /// [`Kind::Candidate`].
    pub kind: u32,
    /// 1 if the fd table shows the description at that fd, and the process uses that table.
    pub in_table: u32,
    /// 1 if the description waits in the task's work (`task_struct.task_works`).
    pub in_works: u32,
    /// 1 if the fd is close-on-exec; [`CLOEXEC_UNKNOWN`] if that could not be told.
    pub cloexec: u32,
    /// 1 if something refers to the description: an fd of any table, a mapping, a queue, a system
    /// call under way.
    pub open: u32,
    /// A [`Drain`].
    pub drain: u32,
    /// A [`KeptBy`], or 0: what keeps the description for this process, which has no fd of it.
    pub kept_by: u32,
    /// Of [`KeptBy::Call`] and [`KeptBy::Opening`]: the number of the call.
    pub syscall: i32,
    /// The thread in that call.
    pub tid: u32,
    /// 1 if the process is ending, though its fds are there: a fatal signal, a core dump.
    pub ending: u32,
    /// A [`Quiet`]: of what no event has brought, whether it was in the table before.
    pub quiet: u32,
    /// Zero.
    pub pad: u32,
    /// When the last message that may have brought fds came to the table; 0 if none was seen.
    pub received_ns: u64,
    /// When the opener's own fd was closed, if the description lived on; else 0.
    pub closed_ns: u64,
    /// The failure.
    pub seq: u64,
    /// `struct inode *`.
    pub inode: u64,
    /// The hold.
    pub hold: Hold,
    /// What was seen of the holder.
    pub holder: Holder,
}

/// The records of one failure are complete.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct FailureEnd {
    /// [`Kind::FailureEnd`].
    pub kind: u32,
    /// 1 if some of this failure's records found no room, or its search ended early.
    pub lost: u32,
    /// The failure.
    pub seq: u64,
    /// How many references to the descriptions were not found, in the end.
    pub references: u32,
    /// How many holders have no place of their own, so that their ends are not seen.
    pub unplaced: u32,
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

/// A hold on the inode of a recent failure began or ended.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Change {
    /// [`Kind::Acquired`] or [`Kind::Released`].
    pub kind: u32,
    /// 1 if the fd is close-on-exec ([`Kind::Acquired`]).
    pub cloexec: u32,
    /// `struct inode *`.
    pub inode: u64,
    /// The hold.
    pub hold: Hold,
    /// What was seen of the holder.
    pub holder: Holder,
}

/// The last process of the traced tree has ended.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct TreeEnded {
    /// [`Kind::TreeEnded`].
    pub kind: u32,
    /// The process that ended last.
    pub tgid: u32,
}

/// A description of which no event tells that it is closed.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Lingering {
    /// `struct file *`.
    pub file: u64,
    /// `struct inode *`; 0 if the last reference waits in the work of a task of the process, where
    /// it is done with when that ends at the latest.
    pub inode: u64,
}

/// A description that lingered is closed: its write access is gone.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Dropped {
    /// [`Kind::Dropped`].
    pub kind: u32,
    /// 1 if the process was ending.
    pub exiting: u32,
    /// `struct file *`.
    pub file: u64,
    /// When.
    pub time_ns: u64,
    /// The process that has let go of it.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// A process that was running a file of interest runs it no more.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Left {
    /// [`Kind::Left`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// When.
    pub time_ns: u64,
    /// 1 if it ended, 0 if it runs another program now.
    pub ended: u32,
    /// Zero.
    pub pad: u32,
    /// `struct inode *` of the file that it ran.
    pub inode: u64,
}

/// What keeps a description that is open while no fd table has it and no mapping, at a failure. A
/// `u32` in [`Candidate`].
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptBy {
    /// A thread is in a system call on an fd that its process has closed since.
    Call = 1,
    /// An io_uring of the process has it: in its table, or for a request under way.
    Ring = 2,
    /// It lies in the receive queue of a unix socket that the process has.
    Queue = 3,
    /// A thread sleeps in a call that may be opening the file, or truncating it; which file it is
    /// about is not known.
    Opening = 4,
}

/// A process that ran a file when a call that would write it was refused: that file, or, where the
/// failing call did not show which file it was ([`Refused`]), one whose name the path ends with.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Runner {
    /// [`Kind::Runner`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// The failure.
    pub seq: u64,
    /// `task_struct.start_time`.
    pub start_ns: u64,
    /// When it exec'd; 0 if that was not seen, or has not come yet.
    pub exec_ns: u64,
    /// When this run began, at the earliest: the entry of its exec, or its fork; 0 if not seen.
    pub began_ns: u64,
    /// When it ended, of one that had ended by the time it was looked for; else 0.
    pub ended_ns: u64,
    /// `struct inode *` of the file.
    pub inode: u64,
    /// `inode.i_ino` of the file.
    pub ino: u64,
    /// `struct mm_struct *`: processes that share it count once.
    pub mm: u64,
    /// `struct task_struct *` of its first thread.
    pub task: u64,
    /// `super_block.s_dev`: major << 20 | minor.
    pub dev: u32,
    /// `inode.i_writecount`.
    pub count: i32,
    /// Its parent.
    pub ppid: u32,
    /// By how many it makes the count smaller: as a rule 1; in its exec, or while it forks, 2; up to
    /// 5.14 by the mappings of its program.
    pub denials: u32,
    /// A [`Stance`].
    pub stance: u32,
    /// The process that exec'd the script for which this one is the interpreter; 0 if there is none.
    pub script: u32,
    /// How it ended, a [`How`].
    pub how: u32,
    /// Zero.
    pub pad: u32,
    /// What was seen of it.
    pub holder: Holder,
}

/// What a process that runs a file was doing at the failure. A `u32` in [`Runner`].
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stance {
    /// It ran the program.
    Runs = 0,
    /// It was in the exec of the file.
    InExec = 1,
    /// It was ending.
    Exiting = 2,
    /// It was a copy of a process that ran it, by a fork, and had not exec'd.
    Forked = 3,
}

/// The file that a refused call was about, as the failing call showed it: found by the walk of the
/// path through the kernel's own directory entries.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Refused {
    /// [`Kind::Refused`].
    pub kind: u32,
    /// `inode.i_writecount`, with what changed it between the failure and this count taken out.
    pub count: i32,
    /// The failure.
    pub seq: u64,
    /// `struct inode *`.
    pub inode: u64,
    /// `inode.i_ino`.
    pub ino: u64,
    /// `super_block.s_dev`: major << 20 | minor.
    pub dev: u32,
    /// `inode.i_generation`.
    pub generation: u32,
    /// `inode.i_flags`.
    pub flags: u32,
    /// 0.
    pub pad: u32,
}

/// The process that was refused has made the file anew: it has opened another file for writing, by
/// the same name in the same directory.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Repaired {
    /// [`Kind::Repaired`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
    /// The failure.
    pub seq: u64,
    /// When.
    pub time_ns: u64,
    /// `inode.i_ino` of the new file.
    pub ino: u64,
}

/// Where a process that was refused may make the file anew.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Repair {
    /// The failure.
    pub seq: u64,
    /// `struct inode *` of the refused file.
    pub inode: u64,
    /// `struct dentry *` of the directory of its name.
    pub directory: u64,
    /// `dentry.d_name.hash_len` of its name.
    pub name: u64,
}

/// What a process runs, since when.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// `task_struct.start_time` of the process.
    pub start_ns: u64,
    /// When it exec'd; 0 of a forked process that has not.
    pub exec_ns: u64,
    /// When this run began, at the earliest: the entry of its exec, or its fork; 0 if not known.
    pub began_ns: u64,
    /// When it began to exit, or when it had ended; 0 until then.
    pub ended_ns: u64,
    /// `struct inode *` of the program.
    pub inode: u64,
    /// `struct mm_struct *`.
    pub mm: u64,
    /// `struct task_struct *` of its first thread.
    pub task: u64,
    /// The process, and its parent.
    pub tgid: u32,
    /// Its parent.
    pub ppid: u32,
    /// The process that exec'd a script for which this one is the interpreter; 0 if there is none.
    pub script: u32,
    /// 1 if it is a copy of a process that ran the program.
    pub forked: u32,
    /// How it ended, a [`How`].
    pub how: u32,
    /// Zero.
    pub pad: u32,
    /// Its name.
    pub comm: [u8; COMM_LEN],
}

/// A process that the tracer's pid namespace has, as the iterator `pids` lists them.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidPair {
    /// Its pid in that namespace.
    pub local: u32,
    /// Its pid in the machine's first.
    pub machine: u32,
}

/// A 32-bit program runs. Recorded once, or again if it was not understood at once.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Compat {
    /// [`Kind::Compat`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
}

/// The programs that others go on with, by index in the map `NEXT`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// `search`.
    Search = 0,
    /// `runners`.
    Runners = 1,
    /// `refused`.
    Refused = 2,
    /// `resolve`.
    Resolve = 3,
}

/// The numbers of the calls that the programs ask for.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub struct Calls {
    pub openat: i32,
    pub openat2: i32,
    pub open_by_handle_at: i32,
    pub execveat: i32,
    pub execve: i32,
    pub close: i32,
    pub truncate: i32,
    pub acct: i32,
    /// `open` and `creat`; −1 where there are no such calls.
    pub open: i32,
    pub creat: i32,
    /// `fork` and `vfork`; −1 where there are no such calls.
    pub fork: i32,
    pub vfork: i32,
    pub clone: i32,
    pub clone3: i32,
    pub recvmsg: i32,
    pub recvmmsg: i32,
    pub pidfd_getfd: i32,
}

/// What could not be kept or told, one counter each, by index in the map `LOST`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// A record found no room in the ring buffer.
    RingFull = 0,
    /// A hold found no room: the map is full, or the kernel has no memory for its element.
    HoldsFull = 1,
    /// An fd table was larger than a walk goes.
    WalkTruncated = 2,
    /// A failure that was counted only, of a call of which nothing more is reported: the map of these was
    /// full.
    CallsFull = 3,
    /// No scratch memory for a text.
    NoScratch = 4,
    /// A process of the traced tree could not be noted.
    TreeFull = 5,
    /// An exec whose entry could not be noted.
    ExecsFull = 6,
    /// The inode of a failure could not be watched for what came after.
    WatchFull = 7,
    /// A failing call of which nothing could be told: the ring buffer was full, or more than half
    /// full; what is left is for those that are being told. Each is counted here once, and its first
    /// record, if that was tried, also under [`Lost::RingFull`].
    FailureUntold = 8,
    /// A failure whose holders could not be searched for beyond those that are known.
    SearchesFull = 9,
    /// A failing call of which nothing was told, because user space has as many failures under way
    /// as it keeps ([`Config::Intake`]).
    FailureUnkept = 10,
    /// A 32-bit program of the traced tree that began while such calls were not followed yet
    /// ([`Config::Compat`]): its failures may not be reported.
    CompatUnfollowed = 11,
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
            Self::FailureUntold => "failures: the ring buffer was full",
            Self::SearchesFull => "searches: the map was full",
            Self::FailureUnkept => "failures: more at once than are kept in detail",
            Self::CompatUnfollowed => "32-bit programs: not followed from their start",
        }
    }

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::RingFull,
        Self::HoldsFull,
        Self::WalkTruncated,
        Self::CallsFull,
        Self::NoScratch,
        Self::TreeFull,
        Self::ExecsFull,
        Self::WatchFull,
        Self::FailureUntold,
        Self::SearchesFull,
        Self::FailureUnkept,
        Self::CompatUnfollowed,
    ];
}

/// Counters in the map `COUNTS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Processes that were forked into the traced tree, less all that have ended in it.
    Tree = 0,
    /// Calls of interest that failed, told or not. All those that are not told are counted in
    /// [`Lost::FailureUntold`] or [`Lost::FailureUnkept`] too.
    Failures = 1,
    /// Other calls of interest that failed with ETXTBSY and are only counted (`CALLS_FAILED`).
    OtherCalls = 2,
    /// Execs outside the traced tree that failed while a process of the tree held the file.
    Elsewhere = 3,
}

impl Count {
    /// How many there are.
    pub const ALL: u32 = 4;
}

/// Whose failing calls of a kind are counted together.
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

/// Which processes are of interest, where a tree is traced.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interest {
    /// All.
    #[default]
    All = 0,
    /// Those of the tree, as victims.
    Victims = 1,
    /// Those of the tree, whoever's call failed: failures of others are reported too.
    Anyone = 2,
}

/// What becomes of failures.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// They are neither counted nor told: tracing has not begun, or is over.
    Closed = 0,
    /// They are told.
    Open = 1,
    /// They are counted, and not told: [`Lost::FailureUnkept`].
    Full = 2,
}

/// What is done about 32-bit system calls.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat32 {
    /// Nothing: none was seen.
    Unseen = 0,
    /// User space was asked to have them followed.
    Seen = 1,
    /// They are followed.
    Followed = 2,
}

/// What stands in the programs where user space puts the BTF id of `bpf_rdonly_cast`: a helper's number
/// that no kernel has.
pub const CAST_FUNCTION: u32 = 0x007a_7a7a;

/// The same for the BTF id of the struct that is cast to.
pub const CAST_WORDS: u32 = 0x007b_7b7b;

/// Where the fields are that the programs read, in bytes: resolved from the running kernel's BTF
/// before the programs are loaded, and constants to the verifier. Named `struct_field`.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the kernel's")]
pub struct Offsets {
    pub task_task_works: u32,
    pub task_files: u32,
    pub task_fs: u32,
    pub task_mm: u32,
    pub task_signal: u32,
    pub task_real_parent: u32,
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_flags: u32,
    /// `thread_info.status`; `u32::MAX` where 32-bit calls are not followed.
    pub task_thread_status: u32,
    pub task_group_leader: u32,
    pub task_stack: u32,
    /// `sizeof(struct pt_regs)`.
    pub regs_size: u32,
    /// `__state`; up to 5.13 `state`, whose lower half is read.
    pub task_state: u32,
    pub task_tasks: u32,
    pub task_thread_node: u32,
    pub task_comm: u32,
    pub task_start_time: u32,
    pub task_real_cred: u32,
    pub task_thread_pid: u32,
    pub task_cgroups: u32,
    pub signal_flags: u32,
    /// `u32::MAX` where they are not known.
    pub task_on_cpu: u32,
    pub task_last_arrival: u32,
    pub task_worker_private: u32,
    /// `io_worker.cur_work`, and `io_kiocb.work` and `io_kiocb.file`; `u32::MAX` if not known.
    pub worker_cur_work: u32,
    pub ring_request_work: u32,
    pub ring_request_file: u32,
    pub signal_live: u32,
    pub signal_nr_threads: u32,
    pub signal_thread_head: u32,
    pub cred_uid: u32,
    pub pid_level: u32,
    pub pid_numbers: u32,
    /// `sizeof(struct upid)`.
    pub upid_size: u32,
    pub upid_nr: u32,
    pub upid_ns: u32,
    pub css_set_dfl_cgrp: u32,
    pub cgroup_kn: u32,
    pub kernfs_node_id: u32,
    pub files_count: u32,
    pub files_fdt: u32,
    pub fdtable_max_fds: u32,
    pub fdtable_fd: u32,
    pub fdtable_open_fds: u32,
    pub fdtable_close_on_exec: u32,
    pub file_f_inode: u32,
    pub file_f_mode: u32,
    pub file_f_flags: u32,
    /// `f_count` up to 6.12, `f_ref` since.
    pub file_refs: u32,
    /// What stands there for a single reference: 1 in `f_count`, 0 in `f_ref`.
    pub file_refs_one: u32,
    pub file_private_data: u32,
    /// 0, the first, where the kernel does not tell: before 6.13, or of a module.
    pub ovl_file_realfile: u32,
    pub file_f_path_mnt: u32,
    pub file_f_path_dentry: u32,
    /// The `callback_head` that waits in `task_works`; its name changed over the versions.
    pub file_task_work: u32,
    /// What a freed `struct file` shows: 0, its work's function is another (freed by RCU, up to 6.6);
    /// 1, its work's link is another (`f_freeptr`, 6.12 to 6.19); 2, nothing.
    pub file_freed: u32,
    pub callback_next: u32,
    pub callback_func: u32,
    pub inode_i_ino: u32,
    pub inode_i_generation: u32,
    pub inode_i_sb: u32,
    pub inode_i_writecount: u32,
    pub inode_i_flags: u32,
    pub inode_i_mapping: u32,
    /// `address_space.i_mmap`, `rb_root_cached.rb_leftmost`.
    pub mapping_i_mmap: u32,
    pub rb_leftmost: u32,
    pub rb_left: u32,
    pub rb_right: u32,
    pub rb_parent: u32,
    /// `vm_area_struct.shared.rb`.
    pub vma_rb: u32,
    pub vma_vm_file: u32,
    pub vma_vm_mm: u32,
    /// The list of a process's mappings, where those of its program deny writing (up to 5.14);
    /// `mm_mmap` is `u32::MAX` where its `exe_file` does.
    pub mm_mmap: u32,
    pub vma_vm_next: u32,
    pub vma_vm_flags: u32,
    pub super_block_s_dev: u32,
    pub super_block_s_magic: u32,
    pub dentry_d_parent: u32,
    pub dentry_d_name_name: u32,
    pub dentry_d_name_len: u32,
    pub vfsmount_mnt_root: u32,
    pub mount_mnt: u32,
    pub mount_mnt_parent: u32,
    pub mount_mnt_mountpoint: u32,
    pub mm_exe_file: u32,
    pub mm_task_size: u32,
    /// `u32::MAX` where the kernel does not know it (without CONFIG_MEMCG).
    pub mm_owner: u32,
    pub mm_arg_start: u32,
    pub mm_arg_end: u32,
    pub fs_pwd_mnt: u32,
    pub fs_pwd_dentry: u32,
    pub fs_root_mnt: u32,
    pub fs_root_dentry: u32,
    pub dentry_d_inode: u32,
    /// `dentry.d_hash.pprev`: 0 of one that is not found by its name any more.
    pub dentry_d_hash_pprev: u32,
    /// The list of a directory's entries, and their link in it: an hlist from 6.8 on.
    pub dentry_children: u32,
    pub dentry_sibling: u32,
    pub dentry_children_hlist: u32,
    /// `dentry.d_name.hash_len`.
    pub dentry_d_name_hash_len: u32,
    pub inode_i_link: u32,
    pub mount_mnt_mounts: u32,
    pub mount_mnt_child: u32,
    pub binprm_filename: u32,
    pub binprm_interp: u32,
    pub binprm_file: u32,
    /// The first argument of a system call at its exit, in `struct pt_regs`.
    pub regs_first: u32,
    /// Of unix sockets and what lies in their queues.
    pub inode_i_mode: u32,
    pub socket_sk: u32,
    pub sock_family: u32,
    pub sock_receive_queue: u32,
    pub sk_buff_cb: u32,
    /// `u32::MAX` if it is not known.
    pub unix_skb_parms_fp: u32,
    pub scm_fp_list_count: u32,
    pub scm_fp_list_fp: u32,
    /// Of io_uring; `ring_nodes` is `u32::MAX` where its tables have another shape than since 6.13:
    /// `ring_files`, and `ring_files_nr`, up to 6.12, `u32::MAX` where they have neither.
    pub ring_files: u32,
    pub ring_files_nr: u32,
    pub ring_nodes: u32,
    pub ring_nr: u32,
    pub ring_node_file: u32,
    /// `io_kiocb.opcode`.
    pub ring_request_opcode: u32,
    /// `io_kiocb.ctx`, and `io_open.file_slot` in `io_kiocb.cmd`; that is `u32::MAX` if it is not known.
    pub ring_request_context: u32,
    pub ring_open_slot: u32,
    /// `u32::MAX` where a completion is told by its result.
    pub ring_cqe_res: u32,
    /// `io_kiocb.cqe.user_data`, and the ring's submissions; `ring_sqes` is `u32::MAX` if one of
    /// them is not known.
    pub ring_user_data: u32,
    pub ring_sqes: u32,
    pub ring_sq_entries: u32,
    pub regs_second: u32,
    /// The number of the system call.
    pub regs_syscall: u32,
    /// The first arguments of a 32-bit system call.
    pub regs_compat_first: u32,
    pub regs_compat_second: u32,
}

/// Settings in the map `CONFIG`, written while the programs run.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    /// The address of the kernel function `____fput`; 0 until it has been learnt.
    Fput = 0,
    /// The process from whose child's failure it is learnt.
    Teacher = 1,
    /// How many processes user space has put into the tree; those that the programs have put
    /// there, less all that have ended, are [`Count::Tree`].
    TreeFound = 2,
    /// A [`Compat32`].
    Compat = 3,
    /// From `task_struct.stack` to the registers that a system call has saved; 0 until it has been
    /// learnt.
    Registers = 4,
    /// How many pid namespaces there are above the tracer's.
    PidLevel = 5,
    /// The tracer's pid namespace, `struct pid_namespace *`.
    PidNamespace = 6,
    /// An [`Intake`].
    Intake = 7,
    /// Since when messages that may bring fds are followed; 0 while they are not.
    Passed = 8,
    /// Not 0 once a call was refused: whose process may make the file anew.
    Repairs = 9,
}

impl Config {
    /// How many there are.
    pub const ALL: u32 = 10;
}

/// What the numbers of records stand for; `None` for one that stands for nothing.
#[cfg(feature = "user")]
mod decoded {
    use super::{Candidate, Drain, Hold, How, KeptBy, Quiet, Run, Runner, Stage, Stance, Via};

    macro_rules! decoded {
        ($($ty:ty { $($field:ident: $word:ty),* })*) => {$(
            impl $ty {
                $(
                    #[doc = concat!("What `", stringify!($field), "` stands for.")]
                    #[must_use]
                    pub fn $field(&self) -> Option<$word> {
                        <$word>::from_repr(self.$field)
                    }
                )*
            }
        )*};
    }
    decoded! {
        Hold { via: Via, stage: Stage, how: How }
        Candidate { drain: Drain, quiet: Quiet, kept_by: KeptBy }
        Runner { stance: Stance, how: How }
        Run { how: How }
    }
}

#[cfg(feature = "user")]
mod pod {
    use super::{
        CallCount, CallKey, Calls, Candidate, Change, Compat, Dropped, ExecCall, ExecName, Failure,
        FailureEnd, Hold, Left, Lineage, Lingering, Offsets, PidPair, Refused, Repaired, Run,
        Runner, TextHeader, TreeEnded, Watch,
    };
    use zerocopy::{FromBytes, IntoBytes};

    /// Says that a type is plain old data.
    macro_rules! pod {
        ($($ty:ty),*) => {$(
            // SAFETY: it is `Copy`, and the bounds, which the compiler checks here, say that every byte
            // pattern is a value and that no byte is padding.
            unsafe impl aya::Pod for $ty where $ty: FromBytes + IntoBytes {}
        )*};
    }
    pod!(
        CallCount, CallKey, Calls, Candidate, Change, Compat, Dropped, ExecCall, ExecName, Failure,
        FailureEnd, Hold, Left, Lineage, Lingering, Offsets, PidPair, Refused, Repaired, Run,
        Runner, TextHeader, TreeEnded, Watch
    );
}
