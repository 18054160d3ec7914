//! The release of descriptions that no fd table shows: a mapping's, one in a socket's queue, one that a
//! system call in progress uses.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use etxtbsy_trace_common::{Dropped, Kind, PendingRelease};

use crate::{
    emit::ringbuf::{self, WAKE},
    kernel,
    maps::{ANY, PENDING_RELEASE},
};

/// Has the programs report when a process drops a description that it has without an fd at a failure: at the
/// latest when the process ends.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn until_exit(tgid: u32, file: u64, inode: u64) -> i32 {
    // If there is no room, user space finds it by a query, a millisecond late.
    let _ = PENDING_RELEASE.insert(tgid, PendingRelease { file, inode }, ANY);
    0
}

/// Where current's process is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// At the return of a system call.
    Return,
    /// In the exit of its last thread, its memory still there, or not (before 6.18).
    Exit { memory: bool },
    /// At its end: it has dropped everything.
    End,
}

/// Reports the release of a description that current's process had, if that has come.
#[inline(always)]
pub(crate) fn check(at: At) {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let Some(pending) = PENDING_RELEASE.get_ptr(tgid) else { return };
    // SAFETY: a map value, see `maps`.
    let PendingRelease { file, inode } = unsafe { *pending };
    // A last reference that waits in this task's own work is dropped before it returns to user
    // mode. The address may be in use again, which does not matter at the end of the process.
    let gone = match at {
        At::End => true,
        At::Exit { .. } if inode == 0 => true,
        At::Return | At::Exit { .. } => inode != 0 && !kernel::is_open(file, inode),
    };
    if !gone || PENDING_RELEASE.remove(tgid).is_err() {
        return;
    }
    // SAFETY: no arguments.
    let time_ns = unsafe { bpf_ktime_get_ns() };
    let exiting = inode != 0 && matches!(at, At::End | At::Exit { memory: false });
    let kind = Kind::Dropped as u32;
    ringbuf::record(&Dropped { kind, exiting: exiting as u32, file, time_ns, tgid, pad: 0 }, WAKE);
}
