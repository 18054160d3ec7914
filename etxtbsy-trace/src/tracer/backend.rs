//! What the rest of the program asks of the kernel side: the seam at which another backend, or a recording,
//! can stand in for the running kernel.

use std::{io, os::fd::AsRawFd};

use etxtbsy_trace_common::{
    CallCount, CallKey, Hold, Intake, Lineage, Lost, PendingRelease, Run, Stack,
};

use crate::host::pids::Pids;

/// How many execs there were in the tree, or on the machine if all of it is of interest.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExecCounts {
    /// Those that succeeded.
    pub succeeded: u64,
    /// Those of them whose file had changed since tracing began.
    pub of_written_files: u64,
    /// Those that failed with ETXTBSY.
    pub failed: u64,
}

/// A source of records, with the questions that user space asks about them. [`Tracer`](super::Tracer) is the running
/// kernel.
pub trait Backend {
    /// Starts the delivery of records. To be called once, within a tokio runtime.
    fn listen(&mut self) -> anyhow::Result<()>;

    /// Waits until there may be a record.
    fn readable(&mut self) -> impl Future<Output = io::Result<()>>;

    /// The next record, if there is one; `read` gets its bytes.
    fn next_record<R>(&mut self, read: impl FnOnce(&[u8]) -> R) -> Option<R>;

    /// The processes that can be seen from here, by their pids here and in the machine's first
    /// namespace.
    fn pids(&mut self) -> anyhow::Result<Pids>;

    /// Whether only the processes of a tree are of interest.
    fn is_filtered(&self) -> bool;

    /// The processes of the tree, as the programs know them.
    fn tree(&mut self) -> anyhow::Result<Vec<u32>>;

    /// Whether a process is of the tree.
    fn is_in_tree(&self, pid: u32) -> bool;

    /// How many processes of the tree live.
    fn tree_size(&self) -> u64;

    /// How many calls of interest have failed so far, reported or not.
    fn failures(&self) -> u64;

    /// How many calls failed that are only counted.
    fn other_calls(&self) -> u64;

    /// The same by process and call.
    fn other_calls_by_process(&mut self) -> anyhow::Result<Vec<(CallKey, CallCount)>>;

    /// How many execs there were in the tree.
    fn execs(&self) -> ExecCounts;

    /// How many execs outside the tree failed while a process of the tree held the file.
    fn elsewhere(&self) -> u64;

    /// Sets what happens to failures from now on.
    fn take(&self, intake: Intake);

    /// How much of a kind has been lost so far.
    fn lost(&self, what: Lost) -> u64;

    /// How often the kernel has skipped a program so far because it or another was already running on
    /// that CPU: interrupted, or (7.2 on) preempted. Counted from 5.12 on.
    fn missed(&self) -> u64;

    /// Who forked a process, if it inherited a write fd then.
    fn lineage(&self, pid: u32) -> Option<Lineage>;

    /// When a process last executed a program, if that was seen and is not long ago; else 0.
    fn last_exec_ns(&self, pid: u32) -> u64;

    /// The script that a process was asked to execute, which runs its interpreter.
    fn script(&self, tgid: u32) -> Option<Vec<u8>>;

    /// What a process runs, if it was forked or has exec'd since tracing began.
    fn run(&self, tgid: u32) -> Option<Run>;

    /// Whether a thread, by its `struct task_struct *`, is in an exec.
    fn is_in_exec(&self, task: u64) -> bool;

    /// What a process that closed write fds in an exec was asked to execute; `task` is
    /// [`etxtbsy_trace_common::Hold::task`].
    fn exec_name(&self, task: u64, tgid: u32) -> Option<Vec<u8>>;

    /// Whether stacks are copied.
    fn copies_stacks(&self) -> bool;

    /// The copy of the stack of a thread that did something at a time; `None` if none was made, or it is gone.
    fn stack(&self, time_ns: u64, tid: u32) -> Option<Box<Stack>>;

    /// Has stacks copied when the program in that file opens files for writing; only where stacks are copied.
    fn copy_stacks_of(&mut self, program: &impl AsRawFd) -> anyhow::Result<()>;

    /// Whether a description still has write access to its inode, or its last reference waits in the work of
    /// `task`, a `struct task_struct *`.
    fn still_open(&mut self, task: u64, lingering: &PendingRelease) -> anyhow::Result<bool>;

    /// Whether the process of `task`, a `struct task_struct *` that started at `start_ns`, lives.
    fn lives(&mut self, task: u64, start_ns: u64) -> anyhow::Result<bool>;

    /// The `i_writecount` of a file's inode: below zero, by how many it is being run.
    fn write_count(&mut self, file: &impl AsRawFd) -> anyhow::Result<i32>;

    /// Whether the kernel swaps to a file.
    fn is_swap_file(&mut self, file: &impl AsRawFd) -> anyhow::Result<bool>;

    /// The `struct inode *` of a file.
    fn inode_at(&mut self, file: &impl AsRawFd) -> anyhow::Result<u64>;

    /// Whether the binfmt_misc entry with that file in its file system has an inode open, by its address
    /// and number; `None` if this kernel does not show it.
    fn is_kept_by(&mut self, inode: (u64, u64), entry: &impl AsRawFd) -> Option<bool>;

    /// Whether an fd still refers to the description of a hold.
    fn still_there(&mut self, hold: &Hold) -> anyhow::Result<bool>;

    /// Asks for a record at the moment when `tgid` drops a description.
    fn await_end(&mut self, tgid: u32, lingering: &PendingRelease) -> anyhow::Result<()>;

    /// Ends all such requests.
    fn await_no_end(&mut self);

    /// Ends the watch over an inode that last made an exec fail at `failed_ns`; or not, if it may
    /// have made another fail of which no record was read yet. Whether it is over.
    fn unwatch(&mut self, inode: u64, failed_ns: u64) -> anyhow::Result<bool>;

    /// Adds a process to those whose failures are of interest; false if it was there already.
    fn add_to_tree(&mut self, pid: u32) -> anyhow::Result<bool>;

    /// Takes a process out again that was added when it had ended already.
    fn remove_from_tree(&mut self, pid: u32) -> anyhow::Result<()>;

    /// Follows the system calls of 32-bit programs from now on, if one was seen to run. Running it
    /// again repeats nothing.
    fn follow_compat(&mut self) -> anyhow::Result<()>;

    /// Whether a 32-bit program was seen to run.
    fn has_seen_compat(&self) -> bool;

    /// Since when fds that come from other processes are followed; 0 if they are not.
    fn passed_since_ns(&self) -> u64;

    /// Follows fds that come from other processes, from now on: once one of them has made an exec fail,
    /// for it costs every message that brings control data.
    fn follow_passed(&mut self) -> anyhow::Result<()>;
}
