//! Fds come in by a message, or are fetched from another process.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_user},
    macros::tracepoint,
    programs::TracePointContext,
};
use etxtbsy_trace_common::Via;

use crate::{
    hold,
    kernel::{self, CALLS, offset, word},
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

/// `syscalls:sys_exit_recvmsg`, `recvmmsg`, `pidfd_getfd`.
///
/// At the exit, when the fds are in the table. Attached once a failure has shown a holder whose fd
/// came in such a way: it would cost each message on machines where none does. What is found in the
/// control data is only where to look: user space can have written there since.
#[tracepoint]
pub fn received(ctx: TracePointContext) -> u32 {
    let result = kernel::result(&ctx);
    if result < 0 {
        return 0;
    }
    let task = kernel::current();
    let syscall = kernel::syscall(&ctx);
    let calls = CALLS.load();
    let message = word(kernel::registers(task), offset!(regs_second));
    if syscall == calls.recvmsg && user_word(message + CONTROL_LEN) == 0 {
        return 0;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let _ = RECEIVED.insert(kernel::table_of(task), now, ANY);
    if syscall == calls.pidfd_getfd {
        note(result as u32, now);
    } else if syscall == calls.recvmsg {
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
    0
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
    if let Some(key) = hold::key_at(table, fd)
        && let Some(known) = HOLDS.get_ptr(key)
        // SAFETY: a map value, see `maps`.
        && unsafe { (*known).file } == file
    {
        return 0;
    }
    hold::acquire(task, table, fd, file, Via::Passed, now, |hold| hold::find_origin(hold, file));
    0
}
