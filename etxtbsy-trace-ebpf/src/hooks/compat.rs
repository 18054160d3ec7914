//! 32-bit programs on a 64-bit kernel (x86_64): the tracepoints of system calls do not show their calls, so
//! one program on `raw_syscalls:sys_exit` does what the programs on those tracepoints do for others.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use etxtbsy_trace_common::TailCall;

use super::context::tail_call;
use crate::{
    failure::{exec_failed, outcome, write_refused},
    holds::{close, dup, exec, open},
    kernel::{self, AT_FDCWD, ETXTBSY, offset},
    maps::{RAW_TAIL_CALLS, SEARCHES},
};

/// Numbers of arch/x86/entry/syscalls/syscall_32.tbl.
const OPEN: u32 = 5;
const CLOSE: u32 = 6;
const CREAT: u32 = 8;
const EXECVE: u32 = 11;
const DUP: u32 = 41;
const FCNTL: u32 = 55;
const DUP2: u32 = 63;
const TRUNCATE: u32 = 92;
const TRUNCATE64: u32 = 193;
const FCNTL64: u32 = 221;
const OPENAT: u32 = 295;
const DUP3: u32 = 330;
const OPEN_BY_HANDLE_AT: u32 = 342;
const EXECVEAT: u32 = 358;
const OPENAT2: u32 = 437;

/// What these are for 64-bit programs (syscall_64.tbl); user space knows no others.
mod native {
    pub(super) const OPEN: i32 = 2;
    pub(super) const EXECVE: i32 = 59;
    pub(super) const TRUNCATE: i32 = 76;
    pub(super) const CREAT: i32 = 85;
    pub(super) const OPENAT: i32 = 257;
    pub(super) const OPEN_BY_HANDLE_AT: i32 = 304;
    pub(super) const EXECVEAT: i32 = 322;
    pub(super) const OPENAT2: i32 = 437;
}

/// `raw_syscalls:sys_exit`, raw: the exits of open, dup, close, exec and truncate.
///
/// User space attaches this once a 32-bit program is seen, because it costs every system call of the machine.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn compat_returns(ctx: RawTracePointContext) -> i32 {
    let task = kernel::current();
    if !kernel::is_compat_call(task) {
        return 0;
    }
    let regs: u64 = ctx.arg(0);
    let ret: i64 = ctx.arg(1);
    let first = || kernel::int(regs, offset!(regs_compat_first));
    let second = || kernel::int(regs, offset!(regs_compat_second));
    let syscall = kernel::int(regs, offset!(regs_syscall));
    if ret == ETXTBSY {
        match syscall {
            EXECVE => compat_exec(task, native::EXECVE, first()),
            EXECVEAT => compat_exec(task, native::EXECVEAT, second()),
            OPEN => compat_write(native::OPEN, first(), AT_FDCWD),
            CREAT => compat_write(native::CREAT, first(), AT_FDCWD),
            TRUNCATE | TRUNCATE64 => compat_write(native::TRUNCATE, first(), AT_FDCWD),
            OPENAT => compat_write(native::OPENAT, second(), first() as i32),
            OPENAT2 => compat_write(native::OPENAT2, second(), first() as i32),
            OPEN_BY_HANDLE_AT => compat_write(native::OPEN_BY_HANDLE_AT, 0, AT_FDCWD),
            _ => return 0,
        };
        continue_failure(&ctx, task);
        return 0;
    }
    match syscall {
        OPEN | CREAT | OPENAT | OPENAT2 | OPEN_BY_HANDLE_AT if ret >= 0 => {
            compat_opened(ret as u32);
        }
        DUP | DUP2 | DUP3 | FCNTL | FCNTL64 if ret >= 0 => {
            compat_duplicated(ret as u32);
        }
        CLOSE => {
            close::compat_closed(task, first());
        }
        EXECVE | EXECVEAT if ret == 0 => exec::succeeded(task),
        _ => {}
    }
    0
}

/// Continues with the search for the holders of a failure, or for those who run its file.
#[inline(always)]
fn continue_failure(ctx: &RawTracePointContext, task: u64) {
    let Some(search) = SEARCHES.get_ptr(task) else { return };
    // SAFETY: an element that this task alone removes.
    let inode = unsafe { (*search).inode };
    let next = if inode == 0 { TailCall::Resolve } else { TailCall::Search };
    tail_call(ctx, &RAW_TAIL_CALLS, next);
    outcome::end_failure(task, 1);
}

// Global functions, because a failure needs the stack that they would take in their caller.

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn compat_opened(fd: u32) -> i32 {
    open::note(fd);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn compat_duplicated(fd: u32) -> i32 {
    dup::note(fd);
    0
}

/// Leaves in `SEARCHES` what [`continue_failure`] needs.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn compat_exec(task: u64, syscall: i32, path: u32) -> i32 {
    // What is noted there is the call by which the program itself began.
    exec::forget(task);
    exec_failed::report_failure(task, syscall, path as u64);
    0
}

/// The same for a call that was refused because a process runs the file.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn compat_write(syscall: i32, path: u32, directory: i32) -> i32 {
    write_refused::report(syscall, path as u64, directory);
    0
}
