//! A process duplicates an fd.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{How, Via};

use crate::{
    holds::{origin, table},
    kernel,
    maps::HOLDS,
};

/// Notes the description at an fd of current's that another was duplicated to.
#[inline(always)]
pub(crate) fn note(fd: u32) {
    let task = kernel::current();
    let (table, file) = kernel::current_file(fd);
    if let Some(key) = table::key_at(table, fd)
        && let Some(before) = HOLDS.get_ptr(key)
    {
        // SAFETY: a map value, see `maps`.
        let before = unsafe { (*before).file };
        if before == file {
            return;
        }
        // dup2 and dup3 close what was there; if nothing else refers to it, its last reference
        // waits in the task's work.
        table::release(table, fd, How::Dup, kernel::is_fput_pending(task, before) as u32);
    }
    if file == 0 || !kernel::is_writer(file) {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    table::acquire(task, table, fd, file, Via::Dup, now, |hold| origin::find_origin(hold, file));
}
