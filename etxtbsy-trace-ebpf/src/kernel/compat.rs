//! 32-bit programs on a 64-bit kernel, and their system calls.

use etxtbsy_trace_common::{Compat32, Config};

use crate::{
    kernel::{
        offset,
        read::{int, word},
    },
    maps::CONFIG,
};

/// `TS_COMPAT`, arch/x86/include/asm/thread_info.h: the system call is a 32-bit one.
const TS_COMPAT: u32 = 2;

/// Whether a task's program is a 32-bit one whose system calls no program follows yet.
#[inline(always)]
pub(crate) fn is_unfollowed_program(task: u64) -> bool {
    if compat_state() == Compat32::Followed as u64 {
        return false;
    }
    let task_size = word(word(task, offset!(task_mm)), offset!(mm_task_size));
    // A kernel thread has no memory. (The flag TIF_ADDR32 has had several places.)
    task_size != 0 && task_size >> 32 == 0
}

/// Whether a task is in a 32-bit system call that no program follows yet: that of a 32-bit program, or
/// `int $0x80` of a 64-bit one.
#[inline(always)]
pub(crate) fn is_in_unfollowed_call(task: u64) -> bool {
    compat_state() != Compat32::Followed as u64 && can_follow_compat() && is_compat_call(task)
}

/// Whether the programs can follow 32-bit calls on this kernel.
#[inline(always)]
pub(crate) fn can_follow_compat() -> bool {
    offset!(task_thread_status) != u32::MAX
}

/// Whether a task is in a 32-bit system call, where those can be followed.
#[inline(always)]
pub(crate) fn is_compat_call(task: u64) -> bool {
    int(task, offset!(task_thread_status)) & TS_COMPAT != 0
}

/// Whether the programs follow 32-bit calls, a [`Compat32`].
#[inline(always)]
pub(crate) fn compat_state() -> u64 {
    // SAFETY: an element of an array map lives as long as the map, and every number is a value.
    CONFIG.get_ptr(Config::Compat as u32).map_or(0, |state| unsafe { state.read_volatile() })
}
