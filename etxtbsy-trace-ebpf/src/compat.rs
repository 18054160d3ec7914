//! 32-bit programs on a 64-bit kernel (x86_64): the tracepoints of system calls do not tell of what
//! they call.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use etxtbsy_trace_common::{Compat, Config, How, Kind};

use crate::{
    dup,
    fail::{self, ETXTBSY},
    hold,
    kernel::{self, offset, word},
    maps::{CONFIG, HOLDS},
    open,
    tell::{self, WAKE},
};

/// `TS_COMPAT`, arch/x86/include/asm/thread_info.h: the system call is a 32-bit one.
const TS_COMPAT: u32 = 2;

/// Numbers of arch/x86/entry/syscalls/syscall_32.tbl.
const OPEN: u32 = 5;
const CLOSE: u32 = 6;
const CREAT: u32 = 8;
const EXECVE: u32 = 11;
const DUP: u32 = 41;
const FCNTL: u32 = 55;
const DUP2: u32 = 63;
const FCNTL64: u32 = 221;
const OPENAT: u32 = 295;
const DUP3: u32 = 330;
const OPEN_BY_HANDLE_AT: u32 = 342;
const EXECVEAT: u32 = 358;
const OPENAT2: u32 = 437;
/// What the two are for 64-bit programs; user space knows no others.
const NATIVE_EXECVE: i32 = 59;
const NATIVE_EXECVEAT: i32 = 322;

/// Notes that 32-bit programs run, if this task's is one; user space attaches [`compat_returns`]
/// then. `told` says whether it is to be told: it asks by itself once, at the start.
#[inline(always)]
pub(crate) fn note(task: u64, told: bool) {
    let task_size = word(word(task, offset!(task_mm)), offset!(mm_task_size));
    // A kernel thread has no memory. (The flag TIF_ADDR32 has had several places.)
    if offset!(task_thread_status) == u32::MAX || task_size == 0 || task_size >> 32 != 0 {
        return;
    }
    let Some(seen) = CONFIG.get_ptr_mut(Config::Compat as u32) else { return };
    // SAFETY: a map value; two tasks that find it 0 tell it twice, which does no harm.
    unsafe {
        if *seen != 0 {
            return;
        }
        *seen = 1;
    }
    if told {
        let tgid = kernel::tgid_of(task);
        tell::record(&Compat { kind: Kind::Compat as u32, tgid }, WAKE);
    }
}

/// `raw_syscalls:sys_exit`, raw: what the exits of open, dup, close and exec do for others.
///
/// Attached once a 32-bit program is seen, for it costs every system call of the machine.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn compat_returns(ctx: RawTracePointContext) -> i32 {
    let task = kernel::current();
    if kernel::int(task, offset!(task_thread_status)) & TS_COMPAT == 0 {
        return 0;
    }
    let regs: u64 = ctx.arg(0);
    let ret: i64 = ctx.arg(1);
    let argument = |offset: u32| kernel::int(regs, offset);
    match kernel::int(regs, offset!(regs_syscall)) {
        OPEN | CREAT | OPENAT | OPENAT2 | OPEN_BY_HANDLE_AT if ret >= 0 => {
            compat_opened(ret as u32);
        }
        DUP | DUP2 | DUP3 | FCNTL | FCNTL64 if ret >= 0 => {
            compat_duplicated(ret as u32);
        }
        CLOSE => {
            compat_closed(task, argument(offset!(regs_compat_first)));
        }
        EXECVE if ret == ETXTBSY => {
            exec_failed(task, NATIVE_EXECVE, argument(offset!(regs_compat_first)));
        }
        EXECVEAT if ret == ETXTBSY => {
            exec_failed(task, NATIVE_EXECVEAT, argument(offset!(regs_compat_second)));
        }
        EXECVE | EXECVEAT if ret == 0 => fail::exec_succeeded(task),
        _ => {}
    }
    0
}

// Global functions for the sake of their caller's stack, which a failure needs.

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

/// An fd has been closed, if its hold's description is not there any more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn compat_closed(task: u64, fd: u32) -> i32 {
    let table = kernel::table_of(task);
    if let Some(key) = hold::key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
    {
        // SAFETY: a map value.
        let (file, inode) = unsafe { ((*hold).file, (*hold).inode) };
        if kernel::file_at(table, fd) != file {
            hold::release(table, fd, How::CloseRange, !kernel::is_open(file, inode) as u32);
        }
    }
    0
}

/// The known holders are told; there is no search (that program is of another type). A global function
/// for the sake of its stack, which the walk of a table needs.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn exec_failed(task: u64, syscall: i32, path: u32) -> i32 {
    fail::failed(task, syscall, path as u64);
    fail::end_failure(task, 1);
    0
}
