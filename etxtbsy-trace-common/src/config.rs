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
    /// Those of the tree, whoever's call failed: failures of others are reported too.
    Anyone = 2,
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
