//! The write fds that were open before the programs ran.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{How, Via};

use crate::{
    emit::compat_request,
    holds::table,
    kernel::{self, PF_EXITING, offset},
};

/// Notes an fd of a task's table that refers to `file`, if that is open for writing.
///
/// An fd that is closed meanwhile is dropped again: it is noted first and compared with the table second, so
/// that its close comes before the comparison or finds it noted. The same holds for a process that exits.
#[inline(always)]
pub(crate) fn note(task: u64, fd: u32, file: u64) {
    if kernel::is_unfollowed_program(task) {
        compat_request::found();
    }
    if !kernel::is_writer(file) {
        return;
    }
    let table = kernel::table_of(task);
    if table == 0 || table::key_at(table, fd).is_some() {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    table::acquire(task, table, fd, file, Via::Unknown, now, |hold| hold.found = 1);
    if kernel::file_at(table, fd) != file {
        table::release(table, fd, How::None, 0);
    } else if kernel::int(task, offset!(task_flags)) & PF_EXITING != 0 {
        table::release(table, fd, How::Exit, 0);
    }
}
