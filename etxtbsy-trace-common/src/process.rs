//! What processes execute and run: the values of the maps in which the programs keep that.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::COMM_LEN;

/// What an exec was asked to execute, kept from its entry to its exit.
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
    /// `struct file *` of the program that it ran then.
    pub exe: u64,
}

/// The path that an exec was given.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug)]
pub struct ExecName {
    /// The process.
    pub tgid: u32,
    /// `bprm->filename`, ended by NUL, truncated if it is longer.
    pub name: [u8; EXEC_NAME_LEN],
}

/// Bytes of [`ExecName::name`].
pub const EXEC_NAME_LEN: usize = 252;

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
    /// How it ended, a [`crate::How`].
    pub how: u32,
    /// Zero.
    pub pad: u32,
    /// Its name.
    pub comm: [u8; COMM_LEN],
}

/// Where a process whose write was refused may replace the file.
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

/// A process of the tracer's pid namespace, as the iterator `pids` lists them.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PidPair {
    /// Its pid in that namespace.
    pub local: u32,
    /// Its pid in the machine's first.
    pub machine: u32,
}
