//! An open for writing has succeeded.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext};
use etxtbsy_trace_common::{Hold, How, Stage, Via};

use crate::{
    hold,
    kernel::{self, offset},
};

/// `syscalls:sys_exit_open`, `openat`, `openat2`, `creat`, `open_by_handle_at`.
///
/// At the exit, for only then the fd and its `struct file` exist; the file is taken from
/// current's table, so the entry need not be remembered. A fork of another thread between
/// `fd_install` and this point copies an fd that is not noted yet; the child's fd is then noted
/// without its opener, which user space takes from this record.
#[tracepoint]
pub fn opened(ctx: TracePointContext) -> u32 {
    // SAFETY: `ret` of a system call's exit, at this offset in every version.
    let Ok(fd) = (unsafe { ctx.read_at::<i64>(16) }) else { return 0 };
    if fd < 0 {
        return 0;
    }
    let task = kernel::current();
    let table = kernel::table_of(task);
    let file = kernel::file_at(table, fd as u32);
    if file == 0 || !kernel::is_writer(file) {
        return 0;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let opener = kernel::actor(task, now);
    let inode = kernel::inode_of(file);
    let hold = Hold {
        file,
        table,
        task,
        start_ns: kernel::word(task, offset!(task_start_time)),
        acquired_ns: now,
        released_ns: 0,
        opened: opener,
        forked: Default::default(),
        tgid: opener.tgid,
        ppid: kernel::ppid_of(task),
        fd: fd as u32,
        flags: kernel::int(file, offset!(file_f_flags)),
        via: Via::Open as u32,
        stage: Stage::Held as u32,
        how: How::None as u32,
        last: 0,
        execed: 0,
        alone: (kernel::int(inode, offset!(inode_i_writecount)) == 1) as u32,
    };
    hold::acquire(inode, &hold);
    0
}
