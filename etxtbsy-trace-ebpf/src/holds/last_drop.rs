//! How far the kernel has come with the drop of a last reference, after its hold ended.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Hold, How, Stage};

use crate::kernel::{self, syscall};

/// How long the drop of a last reference may take, in nanoseconds, unless an exec or the end of a process
/// drops it. After that, its address may be in use again.
const DROP_NS: u64 = 1_000_000;
/// The same for close(2), counted from its entry.
const CLOSE_NS: u64 = 20_000;

/// Whether the task of a hold that is over may still be in the call that ended it. Later, a description in
/// its work is another one, at an address that is in use again.
#[inline(always)]
pub(crate) fn may_wait(hold: &Hold) -> bool {
    may_be_in_call(hold.task, how(hold), hold.fd, hold.released_ns) != 0
}

/// How a hold ended; an exec that is closing the fd counts as its end.
#[inline(always)]
fn how(hold: &Hold) -> u32 {
    let closing = hold.stage == Stage::ExecClosing as u32;
    if closing { How::CloseOnExec as u32 } else { hold.how }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn may_be_in_call(task: u64, how: u32, fd: u32, released_ns: u64) -> i32 {
    let may_be = if how == How::Close as u32 {
        kernel::is_call_on(task, syscall!(close), fd)
    } else if how == How::CloseOnExec as u32 {
        kernel::in_call(task, syscall!(execve)) || kernel::in_call(task, syscall!(execveat))
    } else {
        // SAFETY: no arguments.
        how == How::Exit as u32 || released_ns + DROP_NS >= unsafe { bpf_ktime_get_ns() }
    };
    may_be as i32
}

/// How far the drop of a last reference has come, if no list of work has it: a
/// [`etxtbsy_trace_common::Drain`].
#[inline(always)]
pub(crate) fn drain(hold: &Hold, inode: u64) -> u32 {
    let over = hold.stage == Stage::Released as u32;
    let how = how(hold);
    // The programs note the end of a process when everything is dropped.
    if over & (how == How::Exit as u32) {
        return 0;
    }
    if over & (how != How::CloseOnExec as u32) {
        // SAFETY: no arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        let limit = if how == How::Close as u32 { CLOSE_NS } else { DROP_NS };
        if hold.released_ns + limit < now {
            return 0;
        }
    }
    if how == How::Close as u32 && !kernel::is_call_on(hold.task, syscall!(close), hold.fd) {
        return 0;
    }
    // An exec's own task drops what the exec closed, before it runs the new program. After that, the address may
    // be that of another description, which another task drops.
    if how == How::CloseOnExec as u32 && !(kernel::is_task_of(hold) && may_wait(hold)) {
        return 0;
    }
    kernel::drain_of(hold.task, hold.file, inode, how)
}
