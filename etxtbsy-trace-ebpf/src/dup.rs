//! An fd is duplicated.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext};
use etxtbsy_trace_common::{How, Via};

use crate::{hold, kernel, maps::HOLDS};

/// `syscalls:sys_exit_dup`, `dup2`, `dup3`, `fcntl`.
///
/// At the exit, where the table shows what stands at the returned fd. `fcntl` returns other
/// numbers too; then it shows an fd that is already noted, or one that should be.
#[tracepoint]
pub fn duplicated(ctx: TracePointContext) -> u32 {
    let fd = kernel::result(&ctx);
    if fd < 0 {
        return 0;
    }
    note(fd as u32);
    0
}

/// Notes what stands at an fd of current's that another was duplicated to.
#[inline(always)]
pub(crate) fn note(fd: u32) {
    let task = kernel::current();
    let (table, file) = kernel::current_file(fd);
    if let Some(key) = hold::key_at(table, fd)
        && let Some(before) = HOLDS.get_ptr(key)
    {
        // SAFETY: a map value, see `maps`.
        let before = unsafe { (*before).file };
        if before == file {
            return;
        }
        // dup2 and dup3 close what was there; if nothing else refers to it, its last reference
        // waits in the task's work.
        hold::release(table, fd, How::Dup, kernel::in_works(task, before) as u32);
    }
    if file == 0 || !kernel::is_writer(file) {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    hold::acquire(task, table, fd, file, Via::Dup, now, |hold| hold::find_origin(hold, file));
}
