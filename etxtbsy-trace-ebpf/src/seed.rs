//! The write fds that were open before the programs ran.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{How, Via};

use crate::{
    compat, hold,
    kernel::{self, PF_EXITING, offset},
};

/// `struct bpf_iter__task_file`, kernel/bpf/task_iter.c.
#[repr(C)]
struct TaskFile {
    meta: u64,
    task: u64,
    fd: u32,
    pad: u32,
    file: u64,
}

/// The iterator `task_file`, read once, after every other program runs: each fd of each table.
///
/// An fd that is closed while this looks at it is dropped again: it is noted first and compared
/// with the table second, so that its close comes before the comparison or finds it noted. The
/// same for a process that exits.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub fn seed(ctx: *mut c_void) -> i32 {
    let ctx = ctx.cast::<TaskFile>();
    // SAFETY: the context of this iterator.
    let (task, fd, file) = unsafe { ((*ctx).task, (*ctx).fd, (*ctx).file) };
    if task == 0 || file == 0 {
        return 0;
    }
    if compat::is_new(task) {
        compat::found();
    }
    if !kernel::is_writer(file) {
        return 0;
    }
    let table = kernel::table_of(task);
    if table == 0 || hold::key_at(table, fd).is_some() {
        return 0;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    hold::acquire(task, table, fd, file, Via::Unknown, now, |hold| hold.found = 1);
    if kernel::file_at(table, fd) != file {
        hold::release(table, fd, How::None, 0);
    } else if kernel::int(task, offset!(task_flags)) & PF_EXITING != 0 {
        hold::release(table, fd, How::Exit, 0);
    }
    0
}
