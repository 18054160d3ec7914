//! 32-bit programs on a 64-bit kernel (x86_64): the tracepoints of system calls do not tell of what
//! they call.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use etxtbsy_trace_common::{Compat, Compat32, Config, How, Kind, Lost, Next};

use crate::{
    dup,
    fail::{self, ETXTBSY},
    hold,
    kernel::{self, offset, word},
    maps::{COMPAT_NEXT, CONFIG, EXECS, HOLDS, SEARCHES, lost},
    open,
    refused::{AT_FDCWD, tell_refusal},
    tell::{self, WAKE},
    tree, victim,
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

/// Whether a task's program is a 32-bit one, as far as that matters: they are not followed yet.
#[inline(always)]
pub(crate) fn is_new(task: u64) -> bool {
    if state() == Compat32::Followed as u64 {
        return false;
    }
    let task_size = word(word(task, offset!(task_mm)), offset!(mm_task_size));
    // A kernel thread has no memory. (The flag TIF_ADDR32 has had several places.)
    task_size != 0 && task_size >> 32 == 0
}

/// Whether a task is in a 32-bit system call, as far as that matters: that of a 32-bit program, or
/// `int $0x80` of a 64-bit one.
#[inline(always)]
pub(crate) fn is_in_call(task: u64) -> bool {
    state() != Compat32::Followed as u64 && status(task) & TS_COMPAT != 0
}

/// `thread_info.status`; 0 where 32-bit calls cannot be followed.
#[inline(always)]
fn status(task: u64) -> u32 {
    if offset!(task_thread_status) == u32::MAX {
        return 0;
    }
    kernel::int(task, offset!(task_thread_status))
}

/// A [`Compat32`].
#[inline(always)]
fn state() -> u64 {
    // SAFETY: an element of an array map lives as long as the map, and every number is a value.
    CONFIG.get_ptr(Config::Compat as u32).map_or(0, |state| unsafe { state.read_volatile() })
}

#[inline(always)]
fn set_state(to: Compat32) {
    if let Some(state) = CONFIG.get_ptr_mut(Config::Compat as u32) {
        // SAFETY: an element of an array map lives as long as the map; it is written as a whole.
        unsafe { state.write_volatile(to as u64) };
    }
}

/// A process that [`is_new`] begins: it is counted, for its first calls are not followed.
#[inline(always)]
pub(crate) fn ran(tgid: u32) {
    if tree::contains(tgid) && victim::is_tracing() {
        lost(Lost::CompatUnfollowed);
    }
    seen(tgid);
}

/// A process makes 32-bit calls: asks user space to attach [`compat_returns`].
#[inline(always)]
pub(crate) fn seen(tgid: u32) {
    if offset!(task_thread_status) == u32::MAX || state() != Compat32::Unseen as u64 {
        return;
    }
    set_state(Compat32::Seen);
    if !tell::record(&Compat { kind: Kind::Compat as u32, tgid }, WAKE) {
        // The next one asks again.
        set_state(Compat32::Unseen);
    }
}

/// The same at the start, when user space looks by itself.
#[inline(always)]
pub(crate) fn found() {
    if offset!(task_thread_status) != u32::MAX {
        set_state(Compat32::Seen);
    }
}

/// `raw_syscalls:sys_exit`, raw: what the exits of open, dup, close, exec and truncate do for others.
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
    let (first, second) = (offset!(regs_compat_first), offset!(regs_compat_second));
    let argument = |offset: u32| kernel::int(regs, offset);
    let syscall = kernel::int(regs, offset!(regs_syscall));
    if ret == ETXTBSY {
        match syscall {
            EXECVE => exec_failed(task, native::EXECVE, argument(first)),
            EXECVEAT => exec_failed(task, native::EXECVEAT, argument(second)),
            OPEN => write_refused(native::OPEN, argument(first), AT_FDCWD),
            CREAT => write_refused(native::CREAT, argument(first), AT_FDCWD),
            TRUNCATE | TRUNCATE64 => write_refused(native::TRUNCATE, argument(first), AT_FDCWD),
            OPENAT => write_refused(native::OPENAT, argument(second), argument(first) as i32),
            OPENAT2 => write_refused(native::OPENAT2, argument(second), argument(first) as i32),
            OPEN_BY_HANDLE_AT => write_refused(native::OPEN_BY_HANDLE_AT, 0, AT_FDCWD),
            _ => return 0,
        };
        search_on(&ctx, task);
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
            compat_closed(task, argument(first));
        }
        EXECVE | EXECVEAT if ret == 0 => fail::exec_succeeded(task),
        _ => {}
    }
    0
}

/// Continues with the search for the holders of a failure, or for those who run its file.
#[inline(always)]
fn search_on(ctx: &RawTracePointContext, task: u64) {
    let Some(sought) = SEARCHES.get_ptr(task) else { return };
    // SAFETY: an element that this task alone removes.
    let inode = unsafe { (*sought).inode };
    let next = if inode == 0 { Next::Resolve } else { Next::Search };
    // SAFETY: the programs that user space has put there are of this one's type.
    let _ = unsafe { COMPAT_NEXT.tail_call(ctx, next as u32) };
    // It does not return, unless there is no such program yet.
    fail::end_failure(task, 1);
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
        // SAFETY: a map value, see `maps`.
        let (file, inode) = unsafe { ((*hold).file, (*hold).inode) };
        if kernel::file_at(table, fd) != file {
            hold::release(table, fd, How::CloseRange, !kernel::is_open(file, inode) as u32);
        }
    }
    0
}

/// Leaves in `SEARCHES` what [`search_on`] needs.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn exec_failed(task: u64, syscall: i32, path: u32) -> i32 {
    // What is there is of the call by which the program itself began.
    let _ = EXECS.remove(task);
    fail::failed(task, syscall, path as u64);
    0
}

/// The same for a call that the file of a running program refused.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn write_refused(syscall: i32, path: u32, directory: i32) -> i32 {
    tell_refusal(syscall, path as u64, directory);
    0
}
