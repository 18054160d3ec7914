//! A process ends.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use etxtbsy_trace_common::{Exiting, Lost};

use crate::{
    compat,
    hold::{self, Event},
    kernel::{self, offset, word},
    linger::{self, At},
    maps::{ANY, EXITING, TABLES, lost},
    run, tell, tree,
};

/// `SIGCHLD`, the same number on every architecture that Rust and eBPF share.
const SIGCHLD: i32 = 17;

/// `sched:sched_process_exit`, raw: a thread is in `do_exit`, its files still there.
///
/// Nothing is let go of yet (`exit_files` comes later, and the last references are task work
/// after that), so the holds of a table whose last user this is are only marked. As a rule that
/// is the last thread of a process; but threads can have tables of their own (`unshare`), and
/// processes can share one (`CLONE_FILES`).
#[raw_tracepoint(tracepoint = "sched_process_exit")]
pub fn exiting(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let tgid = kernel::tgid_of(task);
    if is_last(task) {
        tree::ended(tgid);
        run::exiting(task, tgid);
        if compat::is_in_call(task) {
            compat::seen(tgid);
        }
        // From 6.18 on, this comes before `exit_mm`.
        linger::check(At::Exit { memory: word(task, offset!(task_mm)) != 0 });
    }
    let table = kernel::table_of(task);
    let Some(seen) = TABLES.get_ptr_mut(table) else { return 0 };
    if kernel::users_of(table) != 1 {
        return 0;
    }
    // SAFETY: a map value, see `maps`.
    unsafe { (*seen).tgid = tgid };
    if EXITING.insert(task, Exiting { table, tgid, pad: 0 }, ANY).is_err() {
        lost(Lost::HoldsFull);
    }
    hold::walk(table, task, tgid, Event::Exiting);
    0
}

/// `signal:signal_generate`, raw: the parent is told (`exit_notify`), which comes after the
/// files and the task work, and is the first sign that they are done.
#[raw_tracepoint(tracepoint = "signal_generate")]
pub fn parent_told(ctx: RawTracePointContext) -> i32 {
    let signal: i32 = ctx.arg(0);
    if signal == SIGCHLD {
        let current = kernel::current();
        exited(current);
        // Not where a process is told of a child that was stopped, or sent the signal by hand.
        if is_last(current) {
            linger::check(At::End);
            // SAFETY: no arguments.
            run::note_exit(current, unsafe { bpf_ktime_get_ns() });
            tell::left(kernel::tgid_of(current), 1, 0);
        }
    }
    0
}

/// `sched:sched_process_free`, raw: the end of those whose parent is not told by a signal.
#[raw_tracepoint(tracepoint = "sched_process_free")]
pub fn freed(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    exited(task);
    if kernel::tgid_of(task) == kernel::int(task, offset!(task_pid)) {
        run::note_exit(task, 0);
    }
    0
}

/// Whether this is the last thread of its process, and is ending: `do_exit` counts
/// `signal->live` down before all of these tracepoints.
#[inline(always)]
fn is_last(task: u64) -> bool {
    kernel::int(word(task, offset!(task_signal)), offset!(signal_live)) == 0
}

#[inline(always)]
fn exited(task: u64) {
    let Some(kept) = EXITING.get_ptr(task) else { return };
    // SAFETY: a map value, see `maps`.
    let Exiting { table, tgid, .. } = unsafe { *kept };
    hold::walk(table, task, tgid, Event::Exited);
    if let Some(seen) = TABLES.get_ptr(table) {
        // SAFETY: a map value, see `maps`. A table that is in use again is another process's.
        if unsafe { (*seen).tgid } == tgid {
            let _ = TABLES.remove(table);
        }
    }
    let _ = EXITING.remove(task);
}
