//! Copies of the tops of user stacks, which user space reads after a failure: where in its code a thread was.
//!
//! A copy is found again by what is noted anyway, the time and the thread ([`stack_at`]), so it costs no insert into a
//! map. A younger copy may take its place; then user space finds another time there, and has none.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_user;
use etxtbsy_trace_common::{Config, STACK_BYTES, StacksOf, stack_at};

use crate::{
    kernel::{self, offset, word},
    maps::{CONFIG, STACK_PROGRAMS, STACKS},
    tree,
};

/// How much of a stack is copied at an open. More costs every open for writing; this reaches the line that opens in most
/// programs, but not in those with large frames, such as Node.
const OF_OPEN: u32 = 2016;
/// The same at a fork that inherits a write fd, at a failure, and at an open by a program that had a failure before.
const OF_OTHERS: u32 = STACK_BYTES as u32;
/// Where the whole cannot be read, parts of this size are, up to the first that cannot: the end of the stack, or a page
/// that is not there.
const PART: usize = 252;
const PARTS: usize = STACK_BYTES / PART;
/// How far apart the stack pointers of a child and its parent can be for their stack to be one (vfork(2)), in bytes.
const SAME_STACK: u64 = 1 << 16;

/// Copies current's stack, if this is wanted of it at opens; `now` is the time of the open that is noted.
#[inline(always)]
pub(crate) fn note_open(now: u64) {
    let wanted = wanted();
    if wanted & StacksOf::OpensOfPrograms as u64 != 0 && is_listed() {
        copy_stack(now, OF_OTHERS, kernel::current());
    } else if wanted & StacksOf::Opens as u64 != 0
        || (wanted & StacksOf::OpensOfTree as u64 != 0
            && tree::is_member(kernel::tgid_of(kernel::current())))
    {
        copy_stack(now, OF_OPEN, kernel::current());
    }
}

/// Copies current's stack, if this is wanted at forks and failures; `now` is the time that is noted of it.
#[inline(always)]
pub(crate) fn note(now: u64) {
    if wanted() & StacksOf::Others as u64 != 0 {
        copy_stack(now, OF_OTHERS, kernel::current());
    }
}

/// The same for a call that failed. A child of posix_spawn(3) has its parent's memory, but a stack that begins in
/// posix_spawn: who called that shows on the stack of its parent, which waits for it in the kernel.
#[inline(always)]
pub(crate) fn note_failure(now: u64) {
    if wanted() & StacksOf::Others as u64 == 0 {
        return;
    }
    let task = kernel::current();
    // The thread that forked it, not the first of its process (`copy_process`).
    let parent = word(task, offset!(task_real_parent));
    let sp = |task| word(kernel::registers(task), offset!(regs_sp));
    let shares = word(parent, offset!(task_mm)) == word(task, offset!(task_mm));
    let apart = sp(parent).abs_diff(sp(task)) > SAME_STACK;
    copy_stack(now, OF_OTHERS, if shares & apart { parent } else { task });
}

#[inline(always)]
fn wanted() -> u64 {
    match CONFIG.get_ptr(Config::Stacks as u32) {
        // SAFETY: a map value, see `maps`.
        Some(wanted) => unsafe { *wanted },
        None => 0,
    }
}

/// Whether current runs one of the listed programs.
#[inline(always)]
fn is_listed() -> bool {
    let mm = word(kernel::current(), offset!(task_mm));
    STACK_PROGRAMS.get_ptr(kernel::inode_of(word(mm, offset!(mm_exe_file)))).is_some()
}

/// Copies up to `room` bytes of the stack of `whose`, a task with current's memory. A global function, so that the verifier
/// checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_stack(now: u64, room: u32, whose: u64) -> i32 {
    let task = kernel::current();
    let regs = kernel::registers(whose);
    let tid = kernel::int(task, offset!(task_pid));
    let Some(stack) = STACKS.get_ptr_mut(stack_at(now, tid)) else { return 0 };
    let room = if room > OF_OTHERS { OF_OTHERS } else { room };
    let sp = word(regs, offset!(regs_sp));
    // SAFETY: a map value, see `maps`. Another task may write it at the same time, if both were given the same place in
    // one microsecond: then `time_ns` and `complete_ns` differ, or name the one that wrote last. Volatile, because user
    // space reads it too.
    unsafe {
        (&raw mut (*stack).complete_ns).write_volatile(0);
        (&raw mut (*stack).time_ns).write_volatile(now);
        (*stack).tgid = kernel::tgid_of(task);
        (*stack).tid = tid;
        (*stack).ip = word(regs, offset!(regs_ip));
        (*stack).sp = sp;
        (*stack).fp = word(regs, offset!(regs_fp));
        (*stack).lr = if offset!(regs_lr) == u32::MAX { 0 } else { word(regs, offset!(regs_lr)) };
        let bytes = (&raw mut (*stack).bytes).cast::<u8>();
        let mut len = room;
        if bpf_probe_read_user(bytes.cast(), room, sp as *const c_void) != 0 {
            len = 0;
            for part in 0..PARTS {
                let at = part * PART;
                let from = (sp + at as u64) as *const c_void;
                if len + PART as u32 > room
                    || bpf_probe_read_user(bytes.add(at).cast(), PART as u32, from) != 0
                {
                    break;
                }
                len += PART as u32;
            }
        }
        (*stack).len = len;
        (&raw mut (*stack).complete_ns).write_volatile(now);
    }
    0
}
