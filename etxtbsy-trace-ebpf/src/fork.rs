//! A process has been forked.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use etxtbsy_trace_common::Lineage;

use crate::{
    compat, copied,
    kernel::{self, offset, word},
    maps::{ANY, LINEAGE},
    run, tree,
};

/// `sched:sched_process_fork`, raw.
///
/// In `kernel_clone`, when the child is complete and has not run yet. Its own table is read, not
/// what is noted of its parent's: `copy_files` was long ago, and the parent may have closed the
/// file since. That is also what proves, after a failure, that a child held the file while it was
/// still being made.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn forked(ctx: RawTracePointContext) -> i32 {
    let parent: u64 = ctx.arg(0);
    let child: u64 = ctx.arg(1);
    let tgid = kernel::tgid_of(child);
    let is_process = tgid == kernel::int(child, offset!(task_pid));
    if is_process {
        tree::forked(kernel::tgid_of(parent), tgid);
        if compat::is_in_call(parent) {
            compat::ran(tgid);
        }
    }
    // SAFETY: no arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if is_process {
        run::note_fork(parent, child, now_ns);
    }
    let (parent_table, child_table) = (kernel::table_of(parent), kernel::table_of(child));
    if child_table == 0 {
        return 0;
    }
    // A table that is shared (CLONE_FILES) has no holds of its own for this.
    let inherits = if child_table == parent_table {
        is_process
    } else {
        copied::note(child, parent_table, now_ns)
    };
    if inherits {
        remember(parent, child, now_ns);
    }
    0
}

/// Keeps who forked a process. A function of its own for the sake of its stack, which the walk of
/// the table needs.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn remember(parent: u64, child: u64, now_ns: u64) -> i32 {
    let lineage = Lineage {
        forker: kernel::actor(parent, now_ns),
        start_ns: word(child, offset!(task_start_time)),
        ppid: kernel::ppid_of(parent),
        pad: 0,
    };
    let _ = LINEAGE.insert(kernel::tgid_of(child), lineage, ANY);
    0
}
