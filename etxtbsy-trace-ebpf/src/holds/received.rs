//! Fds that come from another process: in a message, or fetched by `pidfd_getfd`.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_user};
use etxtbsy_trace_common::Via;

use crate::{
    holds::{origin, table},
    kernel::{self, offset, syscall, word},
    maps::{ANY, HOLDS, RECEIVED},
};

/// `SOL_SOCKET` and `SCM_RIGHTS`, include/linux/socket.h, as `cmsg_level` and `cmsg_type` of a
/// `struct cmsghdr` have them.
const RIGHTS: u64 = 1 << 32 | 1;
/// Where `struct user_msghdr` (include/linux/socket.h) has its control data, and the length of that.
const CONTROL: u64 = 32;
const CONTROL_LEN: u64 = 40;
/// `sizeof(struct cmsghdr)`, and how many of them and of their fds are looked at.
const HEADER: u64 = 16;
const HEADERS: u32 = 2;
const FDS: u64 = 32;

/// Notes the fds that a call of current's has brought; the call returned `result`.
///
/// The control data only shows where to look: user space can have written there since.
#[inline(always)]
pub(crate) fn note_call(syscall: i32, result: u32) {
    let task = kernel::current();
    let message = word(kernel::registers(task), offset!(regs_second));
    if syscall == syscall!(recvmsg) && user_word(message + CONTROL_LEN) == 0 {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let _ = RECEIVED.insert(kernel::table_of(task), now, ANY);
    if syscall == syscall!(pidfd_getfd) {
        note(result, now);
    } else if syscall == syscall!(recvmsg) {
        let mut control = user_word(message + CONTROL);
        let end = control + user_word(message + CONTROL_LEN);
        for _ in 0..HEADERS {
            if control + HEADER > end {
                break;
            }
            let len = user_word(control);
            if user_word(control + 8) == RIGHTS {
                note_fds(control + HEADER, len.wrapping_sub(HEADER) / 4, now);
            }
            control += (len + 7) & !7;
        }
    }
}

/// A word of user memory; 0 if it cannot be read.
#[inline(always)]
fn user_word(address: u64) -> u64 {
    let mut value = 0_u64;
    // SAFETY: the helper checks the address, and writes eight bytes.
    unsafe { bpf_probe_read_user((&raw mut value).cast(), 8, address as *const c_void) };
    value
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_fds(fds: u64, count: u64, now: u64) -> i32 {
    for at in 0..FDS {
        if at >= count {
            break;
        }
        note(user_word(fds + at * 4) as u32, now);
    }
    0
}

/// Notes an fd of current's that came from another process, if it is open for writing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note(fd: u32, now: u64) -> i32 {
    let task = kernel::current();
    let table = kernel::table_of(task);
    let file = kernel::file_at(table, fd);
    if file == 0 || !kernel::is_writer(file) {
        return 0;
    }
    if let Some(key) = table::key_at(table, fd)
        && let Some(known) = HOLDS.get_ptr(key)
        // SAFETY: a map value, see `maps`.
        && unsafe { (*known).file } == file
    {
        return 0;
    }
    table::acquire(task, table, fd, file, Via::Passed, now, |hold| origin::find_origin(hold, file));
    0
}
