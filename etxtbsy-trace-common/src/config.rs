//! What user space decides: before the programs are loaded, and while they run.

/// Which processes are of interest, where a tree is traced.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interest {
    /// All.
    #[default]
    All = 0,
    /// Those of the tree, as victims.
    Victims = 1,
    /// Those of the tree, as victims or holders: failures of other processes are reported too.
    Anyone = 2,
}

/// Settings in the map `CONFIG`, written while the programs run.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Config {
    /// The address of the kernel function `____fput`; 0 until a failure has shown it.
    Fput = 0,
    /// The process whose child makes that failure: the tracer.
    Tracer = 1,
    /// How many processes user space has put into the tree; those that the programs have put
    /// there, less all that have ended, are [`crate::Count::Tree`].
    TreeFound = 2,
    /// A [`Compat32`].
    Compat = 3,
    /// The distance from `task_struct.stack` to the registers that a system call has saved; 0 until a failure
    /// has shown it.
    Registers = 4,
    /// How many pid namespaces there are above the tracer's.
    PidLevel = 5,
    /// The tracer's pid namespace, `struct pid_namespace *`.
    PidNamespace = 6,
    /// An [`Intake`].
    Intake = 7,
    /// Since when the programs follow messages that may bring fds; 0 while they do not.
    Passed = 8,
    /// Not 0 once a call was refused whose process may replace the file.
    Repairs = 9,
    /// When tracing began, in nanoseconds of CLOCK_REALTIME.
    BeganReal = 10,
    /// The bits of [`StacksOf`]: whose stacks are copied.
    Stacks = 11,
}

impl Config {
    /// How many there are.
    pub const ALL: u32 = 12;
}

/// Whose stacks are copied: bits of [`Config::Stacks`].
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StacksOf {
    /// Threads that fork a process which inherits a write fd, and those whose calls fail.
    Others = 1,
    /// Threads that open files for writing.
    Opens = 2,
    /// The same, of the traced tree.
    OpensOfTree = 4,
    /// The same, of the programs in the map `STACK_PROGRAMS`, whose copies are larger.
    OpensOfPrograms = 8,
}

/// What the programs do with failures.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intake {
    /// They skip them: tracing has not begun, or is over.
    Closed = 0,
    /// They report them.
    Open = 1,
    /// They only count them ([`crate::Lost::FailureUnkept`]).
    Full = 2,
}

/// Whether the programs follow 32-bit system calls.
#[repr(u64)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compat32 {
    /// No: none was seen.
    Unseen = 0,
    /// Not yet: the programs have asked user space to attach the one that does.
    Seen = 1,
    /// Yes.
    Followed = 2,
}

/// The targets of tail calls, by index in the map `TAIL_CALLS`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TailCall {
    /// `search`.
    Search = 0,
    /// `runners`.
    Runners = 1,
    /// `refused`.
    WriteRefused = 2,
    /// `resolve`.
    Resolve = 3,
}
