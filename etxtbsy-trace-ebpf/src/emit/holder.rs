//! What can be seen of a process that holds a file, or runs it, while its task lives.

use etxtbsy_trace_common::{Hold, Holder};

use crate::{
    kernel::{self, offset, word},
    tree,
};

/// What can be seen of a holder now: zeros if its task has ended. Returns its task, or 0.
///
/// # Safety
///
/// `hold` can be read, `holder` can be written.
#[inline(always)]
pub(crate) unsafe fn of_hold(hold: *const Hold, holder: *mut Holder) -> u64 {
    // SAFETY: the caller's promise.
    unsafe {
        let task = (*hold).task;
        // Reading at 0 gives zeros, and needs no branches.
        let task = if kernel::is_task_of(&*hold) { task } else { 0 };
        of_task(task, holder);
        task
    }
}

/// What can be seen of a task.
///
/// # Safety
///
/// `holder` can be written.
#[inline(always)]
pub(crate) unsafe fn of_task(task: u64, holder: *mut Holder) {
    // SAFETY: the caller's promise.
    unsafe {
        let leader = word(task, offset!(task_group_leader));
        (*holder).comm = kernel::comm(leader);
        (*holder).start_ns = word(leader, offset!(task_start_time));
        (*holder).ns_pid = kernel::ns_pid(task);
        (*holder).local_pid = kernel::local_pid(task);
        (*holder).in_tree = tree::is_member(kernel::tgid_of(task)) as u32;
        (*holder).uid = kernel::uid(task);
        (*holder).cgroup = kernel::cgroup(task);
        let mut above = task;
        for at in 0..6 {
            above = word(above, offset!(task_real_parent));
            (*holder).above[at] = kernel::tgid_of(above);
        }
    }
}
