//! A thread or a process ends.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Exiting, Lost};

use crate::{
    emit::{compat_request, report},
    holds::{
        pending_release::{self, At},
        runs,
        table_walk::{self, Event},
    },
    kernel::{self, offset, word},
    maps::{ANY, EXITING, TABLES, lost},
    tree,
};

/// Marks the holds of a table whose last user is in `do_exit`.
#[inline(always)]
pub(crate) fn begin(task: u64) {
    let tgid = kernel::tgid_of(task);
    if is_last(task) {
        if tree::ended(tgid) {
            report::tree_ended(tgid);
        }
        runs::exiting(task, tgid);
        if kernel::is_in_unfollowed_call(task) {
            compat_request::seen(tgid);
        }
        // From 6.18 on, this comes before `exit_mm`.
        pending_release::check(At::Exit { memory: word(task, offset!(task_mm)) != 0 });
    }
    let table = kernel::table_of(task);
    let Some(seen) = TABLES.get_ptr_mut(table) else { return };
    if kernel::users_of(table) != 1 {
        return;
    }
    // SAFETY: a map value, see `maps`.
    unsafe { (*seen).tgid = tgid };
    if EXITING.insert(task, Exiting { table, tgid, pad: 0 }, ANY).is_err() {
        lost(Lost::HoldsFull);
    }
    table_walk::walk(table, task, tgid, Event::Exiting);
}

/// Ends the holds of current, whose parent is being notified that it has ended.
#[inline(always)]
pub(crate) fn parent_notified(current: u64) {
    exited(current);
    // The kernel sends the same signal for a child that was stopped, and a process may send it by kill(2).
    if is_last(current) {
        pending_release::check(At::End);
        // SAFETY: no arguments.
        runs::note_exit(current, unsafe { bpf_ktime_get_ns() });
        report::program_exited(kernel::tgid_of(current), 1, 0);
    }
}

/// Ends the holds of a task that the kernel frees.
#[inline(always)]
pub(crate) fn freed(task: u64) {
    exited(task);
    if kernel::tgid_of(task) == kernel::int(task, offset!(task_pid)) {
        runs::note_exit(task, 0);
    }
}

/// Whether this is the last thread of its process, and is ending: `do_exit` counts `signal->live` down before
/// all of these tracepoints.
#[inline(always)]
fn is_last(task: u64) -> bool {
    kernel::int(word(task, offset!(task_signal)), offset!(signal_live)) == 0
}

#[inline(always)]
fn exited(task: u64) {
    let Some(kept) = EXITING.get_ptr(task) else { return };
    // SAFETY: a map value, see `maps`.
    let Exiting { table, tgid, .. } = unsafe { *kept };
    table_walk::walk(table, task, tgid, Event::Exited);
    if let Some(seen) = TABLES.get_ptr(table) {
        // SAFETY: a map value, see `maps`. A table that is in use again is another process's.
        if unsafe { (*seen).tgid } == tgid {
            let _ = TABLES.remove(table);
        }
    }
    let _ = EXITING.remove(task);
}
