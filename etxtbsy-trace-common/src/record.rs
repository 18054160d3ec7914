//! The records of the ring buffer: what the programs report to user space.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{COMM_LEN, Hold};

/// The longest text the kernel side copies: a path (`PATH_MAX`) or an argument vector.
pub const TEXT_MAX: usize = 4096;

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
    /// [`ProgramExited`].
    ProgramExited = 9,
    /// [`Runner`].
    Runner = 11,
    /// [`Compat`].
    Compat = 12,
    /// [`WriteRefused`].
    WriteRefused = 13,
    /// [`Repaired`].
    Repaired = 14,
    /// [`Failure`]: an exec that succeeded, but may have failed.
    NearMiss = 15,
}

/// How long before an exec its file may have been opened for writing for the last time, and a copy may have ended, for
/// the exec to be a near miss; in nanoseconds.
pub const NEAR_MISS_NS: u64 = 1_000_000_000;

/// How long a last reference may take to be dropped after an exec has taken its fd, where the kernel shows nothing of
/// it (6.7 to 6.11); in nanoseconds. It is done when the task returns to user mode, after microseconds as a rule;
/// under load, with the task preempted just then, 70 ms have been measured.
pub const DRAIN_NS: u64 = 200_000_000;

/// An execve or execveat returned −ETXTBSY; or, with [`Kind::NearMiss`], it returned 0, and another process had a
/// copy of a write fd of the file a short time ago.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Failure {
    /// [`Kind::Failure`] or [`Kind::NearMiss`].
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
    /// Of a near miss: when the file was last opened for writing, as far as that is known; else 0.
    pub last_open_ns: u64,
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
    /// The directory that the path is relative to, if the caller gave an fd of it; names as above.
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
    /// The holder it is about; 0 for texts of the victim.
    pub tgid: u32,
    /// How many bytes follow.
    pub len: u32,
    /// 1 if the text is longer than what was copied.
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
    /// Its pid in its own pid namespace; 0 if its task has ended, and the other fields mean nothing.
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

/// How far the drop of a last reference has come, if no task's work has it. A `u32` in [`Candidate`].
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// It is over, or has not begun.
    None = 0,
    /// The description has no reference and is not freed yet: the kernel is about to drop its write access.
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
    /// None has run: what is in the table was there before the call.
    Idle = 3,
}

/// [`Candidate::cloexec`] of a process that is in an exec.
pub const CLOEXEC_UNKNOWN: u32 = 2;

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
    pub fput_pending: u32,
    /// 1 if the fd is close-on-exec; [`CLOEXEC_UNKNOWN`] if the table does not show it.
    pub cloexec: u32,
    /// 1 if something refers to the description: an fd of any table, a mapping, a queue, a system
    /// call under way.
    pub open: u32,
    /// A [`Drain`].
    pub drain: u32,
    /// A [`PinnedBy`], or 0: what pins the description for this process, which has no fd of it.
    pub pinned_by: u32,
    /// Of [`PinnedBy::Call`] and [`PinnedBy::Opening`]: the number of the call.
    pub syscall: i32,
    /// The thread in that call.
    pub tid: u32,
    /// 1 if the process is ending, though its fds are there: a fatal signal, a core dump.
    pub ending: u32,
    /// A [`Quiet`]: for a hold whose beginning no event showed, whether it was in the table before the call.
    pub quiet: u32,
    /// Of a near miss: 1 if the thread that exec'd had reaped the holder, or a process that had reaped it, and so on.
    pub reaped_by_victim: u32,
    /// Of a near miss: when the holder was reaped; 0 if that was not seen.
    pub reaped_ns: u64,
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

/// What pins a description that is open at a failure though no fd table and no mapping has it. A `u32` in
/// [`Candidate`].
#[repr(u32)]
#[cfg_attr(feature = "user", derive(strum::FromRepr))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PinnedBy {
    /// A thread is in a system call on an fd that its process has closed since.
    Call = 1,
    /// An io_uring of the process has it: in its table, or for a request in progress.
    IoUring = 2,
    /// It is in the receive queue of a unix socket that the process has.
    Queue = 3,
    /// A thread sleeps in a call that may be opening the file, or truncating it; the programs do not know
    /// which file the call is about.
    Opening = 4,
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

/// A description whose release user space waited for is closed: its write access is dropped.
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
    /// The process that dropped it.
    pub tgid: u32,
    /// Zero.
    pub pad: u32,
}

/// A process has stopped running a file of interest.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct ProgramExited {
    /// [`Kind::ProgramExited`].
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

/// A process that ran the file when a write of it was refused. Where the failing call did not show which file
/// it was ([`WriteRefused`]): one that ran a file whose name the path ends with.
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
    /// When it exec'd; 0 if no program saw that, or the exec has not come so far.
    pub exec_ns: u64,
    /// When this run began, at the earliest: the entry of its exec, or its fork; 0 if not seen.
    pub began_ns: u64,
    /// When it ended, if that was before the program looked at it; else 0.
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
    /// How it ended, a [`crate::How`].
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

/// The file that a refused call was about: found by a walk along the path through the kernel's own directory
/// entries, during that call.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteRefused {
    /// [`Kind::WriteRefused`].
    pub kind: u32,
    /// `inode.i_writecount`, without what changed it between the failure and this reading.
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

/// The process whose write was refused has replaced the file: it has opened another file for writing, by the
/// same name in the same directory.
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

/// A 32-bit program runs. Reported once, or again if the first record was lost.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default)]
pub struct Compat {
    /// [`Kind::Compat`].
    pub kind: u32,
    /// The process.
    pub tgid: u32,
}
