//! A process ends.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use etxtbsy_trace_common::{Exiting, Lost};

use crate::{
    hold::{self, Task},
    kernel::{self, offset, word},
    maps::{ANY, EXITING, TABLES, lost},
    tree,
};

/// `SIGCHLD`, the same number on every architecture that Rust and eBPF share.
const SIGCHLD: i32 = 17;

/// `sched:sched_process_exit`, raw: a thread is in `do_exit`, its files still there.
///
/// Nothing is let go of yet (`exit_files` comes later, and the last references are task work
/// after that), so the holds of a process whose last thread this is are only marked.
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exiting(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    // `do_exit` counts `signal->live` down before this tracepoint.
    if kernel::int(word(task, offset!(task_signal)), offset!(signal_live)) != 0 {
        return 0;
    }
    let tgid = kernel::tgid_of(task);
    tree::ended(tgid);
    let table = kernel::table_of(task);
    if TABLES.get_ptr(table).is_none() {
        return 0;
    }
    if EXITING.insert(tgid, Exiting { table, task }, ANY).is_err() {
        lost(Lost::HoldsFull);
    }
    hold::walk(table, task, tgid, Task::Exiting);
    0
}

/// `signal:signal_generate`, raw: the parent is told (`exit_notify`), which comes after the
/// files and the task work, and is the first sign that they are done.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn parent_told(ctx: RawTracePointContext) -> i32 {
    let signal: i32 = ctx.arg(0);
    if signal == SIGCHLD {
        exited(kernel::tgid_of(kernel::current()));
    }
    0
}

/// `sched:sched_process_free`, raw: the end of those whose parent is not told by a signal.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn freed(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    exited(kernel::tgid_of(task));
    0
}

#[inline(always)]
fn exited(tgid: u32) {
    let Some(kept) = EXITING.get_ptr(tgid) else { return };
    // SAFETY: a map value.
    let Exiting { table, task } = unsafe { *kept };
    hold::walk(table, task, tgid, Task::Exited);
    if let Some(seen) = TABLES.get_ptr(table) {
        // SAFETY: a map value. A table that is in use again is another process's.
        if unsafe { (*seen).tgid } == tgid {
            let _ = TABLES.remove(table);
        }
    }
    let _ = EXITING.remove(tgid);
}
