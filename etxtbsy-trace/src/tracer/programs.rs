//! The eBPF programs: one table of what runs where, and when each is loaded and attached.

use etxtbsy_trace_common::TailCall;

/// An eBPF program, and how it gets to run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its name in the object file.
    pub(super) program: &'static str,
    /// What runs it.
    pub(super) runs: Runs,
    /// When it is loaded and attached.
    pub(super) start: Start,
}

/// What runs a program.
#[derive(Clone, Copy, Debug)]
pub(super) enum Runs {
    /// Tracepoints of system calls, `syscalls:NAME`. Those that the kernel does not have (older
    /// architectures' calls) are left out, if `optional`.
    Calls {
        /// The names.
        tracepoints: &'static [&'static str],
        /// Whether a kernel need not have them.
        optional: bool,
    },
    /// A raw tracepoint.
    Raw(&'static str),
    /// The raw tracepoint of io_uring, which shows the request since 6.0 only
    /// ([`features::ring_completion`](super::features::ring_completion)).
    IoUring(&'static str),
    /// A tail call of a program at a system call's tracepoint.
    TailCall(TailCall),
    /// A tail call of a program at a raw tracepoint.
    RawTailCall(TailCall),
    /// A read of an iterator (`bpf_iter`).
    Iterator,
    /// A query of user space (`BPF_PROG_TEST_RUN`).
    Query,
}

/// When a program is loaded and attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// At the start.
    Attached,
    /// The same, where programs can be preempted ([`features::preempts_programs`](super::features::preempts_programs)).
    IfPreempted,
    /// It is loaded at the start, and attached once it is needed.
    Loaded,
    /// Once it is needed.
    Later,
}

impl Start {
    /// Whether a program is attached at the start; `preempted` says whether programs can be preempted.
    pub(super) fn is_attached(self, preempted: bool) -> bool {
        self == Self::Attached || (self == Self::IfPreempted && preempted)
    }

    /// Whether it is loaded at the start.
    pub(super) fn is_loaded(self, preempted: bool) -> bool {
        self == Self::Loaded || self.is_attached(preempted)
    }
}

const fn at_calls(
    program: &'static str,
    tracepoints: &'static [&'static str],
    optional: bool,
) -> Entry {
    Entry { program, runs: Runs::Calls { tracepoints, optional }, start: Start::Attached }
}

const fn at_raw(program: &'static str, tracepoint: &'static str) -> Entry {
    Entry { program, runs: Runs::Raw(tracepoint), start: Start::Attached }
}

const fn loaded(program: &'static str, runs: Runs) -> Entry {
    Entry { program, runs, start: Start::Loaded }
}

/// The program that is attached once an fd from another process has made an exec fail.
pub(super) const RECEIVED: &str = "received";
/// The tracepoints of [`RECEIVED`].
pub(super) const RECEIVING: &[&str] =
    &["sys_exit_recvmsg", "sys_exit_recvmmsg", "sys_exit_pidfd_getfd"];
/// The program that is attached while the end of a call is awaited.
pub(super) const CALL_RETURNS: &str = "call_returns";
/// The program that is attached once a 32-bit program runs.
pub(super) const COMPAT_RETURNS: &str = "compat_returns";
/// The tail call of [`COMPAT_RETURNS`] after an exec, which is loaded then.
pub(super) const COMPAT_SEARCH: (&str, TailCall) = ("compat_search", TailCall::Search);
/// The iterator over all open files, at the start.
pub(super) const SNAPSHOT: &str = "snapshot_files";
/// The iterator over the processes of our pid namespace.
pub(super) const PIDS: &str = "pids";
/// The raw tracepoint at the return of every system call.
pub(super) const SYS_EXIT: &str = "sys_exit";

/// Programs for 32-bit programs, which only x86_64 runs beside its own.
const COMPAT: Start = if cfg!(target_arch = "x86_64") { Start::Loaded } else { Start::Later };

/// All programs. Releases are attached before acquisitions, so that whatever is seen to begin is seen to
/// end: raw tracepoints first, then those of system calls, each in this order.
pub(super) const PROGRAMS: &[Entry] = &[
    at_calls("closing", &["sys_enter_close"], false),
    // 5.9 on.
    at_calls("closed_range", &["sys_exit_close_range"], true),
    at_calls("write_refused", &["sys_exit_truncate"], false),
    at_calls(
        "slow_call_returns",
        &[
            "sys_exit_munmap",
            "sys_exit_mremap",
            "sys_exit_flock",
            "sys_exit_fsync",
            "sys_exit_fdatasync",
            "sys_exit_fallocate",
            "sys_exit_ftruncate",
        ],
        false,
    ),
    at_calls(
        "other_call_returns",
        &[
            "sys_exit_swapon",
            "sys_exit_finit_module",
            "sys_exit_copy_file_range",
            "sys_exit_unlinkat",
            "sys_exit_renameat",
            "sys_exit_renameat2",
        ],
        true,
    ),
    // arm64 has none of the last two; the first needs CONFIG_KEXEC_FILE.
    at_calls(
        "other_call_returns",
        &["sys_exit_kexec_file_load", "sys_exit_unlink", "sys_exit_rename"],
        true,
    ),
    at_calls("wait4_returns", &["sys_exit_wait4"], false),
    at_calls("waitid_returns", &["sys_exit_waitid"], false),
    at_calls("unshared", &["sys_exit_unshare"], false),
    at_calls("exec_returns", &["sys_exit_execve", "sys_exit_execveat"], false),
    at_calls("enter_execve", &["sys_enter_execve"], false),
    at_calls("enter_execveat", &["sys_enter_execveat"], false),
    at_calls("duplicated", &["sys_exit_dup", "sys_exit_dup3", "sys_exit_fcntl"], false),
    at_calls(
        "opened",
        &["sys_exit_openat", "sys_exit_openat2", "sys_exit_open_by_handle_at"],
        false,
    ),
    // arm64 has none of these calls.
    at_calls("opened", &["sys_exit_open", "sys_exit_creat"], true),
    // arm64 does not have it.
    at_calls("duplicated", &["sys_exit_dup2"], true),
    // Where programs are preempted, the kernel may skip the first for an exec's return: the second does its work.
    Entry {
        program: "exec_returns_again",
        runs: Runs::Calls {
            tracepoints: &["sys_exit_execve", "sys_exit_execveat"],
            optional: false,
        },
        start: Start::IfPreempted,
    },
    loaded(RECEIVED, Runs::Calls { tracepoints: RECEIVING, optional: false }),
    at_raw("sigchld_sent", "signal_generate"),
    at_raw("freed", "sched_process_free"),
    at_raw("exiting", "sched_process_exit"),
    at_raw("execed", "sched_process_exec"),
    at_raw("forked", "sched_process_fork"),
    loaded(CALL_RETURNS, Runs::Raw(SYS_EXIT)),
    Entry { program: COMPAT_RETURNS, runs: Runs::Raw(SYS_EXIT), start: COMPAT },
    loaded("io_uring_completes", Runs::IoUring("io_uring_complete")),
    loaded("search", Runs::TailCall(TailCall::Search)),
    loaded("runners", Runs::TailCall(TailCall::Runners)),
    loaded("write_refused", Runs::TailCall(TailCall::WriteRefused)),
    loaded("resolve", Runs::TailCall(TailCall::Resolve)),
    // io_uring's continues with them too.
    loaded("compat_runners", Runs::RawTailCall(TailCall::Runners)),
    loaded("compat_resolve", Runs::RawTailCall(TailCall::Resolve)),
    Entry {
        program: COMPAT_SEARCH.0,
        runs: Runs::RawTailCall(COMPAT_SEARCH.1),
        start: Start::Later,
    },
    loaded(SNAPSHOT, Runs::Iterator),
    Entry { program: PIDS, runs: Runs::Iterator, start: Start::Later },
    loaded("introduce", Runs::Query),
    loaded("lives", Runs::Query),
    loaded("still_open", Runs::Query),
    loaded("still_there", Runs::Query),
    loaded("write_count", Runs::Query),
    loaded("keeps", Runs::Query),
    loaded("is_swap_file", Runs::Query),
    loaded("inode_at", Runs::Query),
];

/// A tracepoint that a program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// Its name, such as `sys_exit_execve`.
    pub name: &'static str,
    /// The program.
    pub program: &'static str,
    /// How it is attached to.
    pub kind: TracepointKind,
}

/// How a tracepoint is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracepointKind {
    /// Of a system call, by its number in tracefs. Without one there is no such call, if it is
    /// `optional`.
    Syscall {
        /// Whether a kernel need not have that call.
        optional: bool,
    },
    /// By its name.
    Raw,
    /// By its name, where it has the known shape
    /// ([`features::ring_completion`](super::features::ring_completion)).
    Ring,
}

/// Every tracepoint that programs are attached to, in the order of the table.
pub fn tracepoints() -> impl Iterator<Item = Tracepoint> {
    // A second program at a tracepoint that another needs anyway is no news.
    let entries = PROGRAMS.iter().filter(|entry| entry.start != Start::IfPreempted);
    entries.flat_map(|&Entry { program, runs, .. }| {
        let (names, kind) = match runs {
            Runs::Calls { tracepoints, optional } => {
                (tracepoints.to_vec(), TracepointKind::Syscall { optional })
            }
            Runs::Raw(name) => (vec![name], TracepointKind::Raw),
            Runs::IoUring(name) => (vec![name], TracepointKind::Ring),
            Runs::TailCall(_) | Runs::RawTailCall(_) | Runs::Iterator | Runs::Query => {
                (Vec::new(), TracepointKind::Raw)
            }
        };
        names.into_iter().map(move |name| Tracepoint { name, program, kind })
    })
}
