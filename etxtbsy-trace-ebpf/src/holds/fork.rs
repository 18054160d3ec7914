//! A process forks.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Lineage, Reaped};

use crate::{
    emit::compat_request,
    holds::{fd_table_copy, runs},
    kernel::{self, offset, word},
    maps::{LINEAGE, keep},
    stacks, tree,
};

/// Notes which write fds a child has inherited, and what it runs.
#[inline(always)]
pub(crate) fn note(parent: u64, child: u64) {
    // SAFETY: no arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if is_process(child) {
        note_process(parent, child, now_ns);
    }
    let (parent_table, child_table) = (kernel::table_of(parent), kernel::table_of(child));
    if child_table == 0 {
        return;
    }
    // A table that is shared (CLONE_FILES) gets no holds of its own for this.
    let inherits = if child_table == parent_table {
        is_process(child)
    } else {
        fd_table_copy::note(child, parent_table, now_ns)
    };
    if inherits {
        remember(parent, child, now_ns);
    }
}

/// Whether a task is the first thread of its process.
#[inline(always)]
fn is_process(task: u64) -> bool {
    kernel::tgid_of(task) == kernel::int(task, offset!(task_pid))
}

/// Notes that a process belongs to the traced tree, and what it runs. A function of its own, because the walk of the table
/// needs the stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_process(parent: u64, child: u64, now_ns: u64) -> i32 {
    let tgid = kernel::tgid_of(child);
    tree::forked(kernel::tgid_of(parent), tgid);
    if kernel::is_in_unfollowed_call(parent) {
        compat_request::began(tgid);
    }
    runs::note_fork(parent, child, now_ns);
    0
}

/// Keeps who forked a process. A function of its own, because the walk of the table needs the stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn remember(parent: u64, child: u64, now_ns: u64) -> i32 {
    let lineage = Lineage {
        forker: kernel::actor(parent, now_ns),
        start_ns: word(child, offset!(task_start_time)),
        ppid: kernel::ppid_of(parent),
        wait_pid: kernel::pid_seen_by(child, parent),
        reaped: Reaped { time_ns: 0, task: 0 },
    };
    keep(&LINEAGE, kernel::tgid_of(child), &lineage);
    stacks::note(now_ns);
    0
}
