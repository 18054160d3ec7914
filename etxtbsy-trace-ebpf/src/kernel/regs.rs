//! A task's saved registers: which system call it is in, with which arguments.

use etxtbsy_trace_common::Config;

use crate::{
    kernel::{
        offset,
        offsets::syscall,
        read::{int, word},
    },
    maps::CONFIG,
};

/// A task's saved registers of user mode, `struct pt_regs *`; 0 if it is not known where they are.
#[inline(always)]
pub(crate) fn registers(task: u64) -> u64 {
    let Some(at) = CONFIG.get_ptr(Config::Registers as u32) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let at = unsafe { *at };
    if at == 0 { 0 } else { word(task, offset!(task_stack)) + at }
}

/// From `task_struct.stack` to the saved registers, given a task in a system call, the number of
/// that and its first argument; 0 if they are not where they are looked for: at the end of the
/// stack, whose size is a power of two, but for a few words in some configurations
/// (`TOP_OF_KERNEL_STACK_PADDING`).
#[inline(always)]
pub(crate) fn find_registers(task: u64, syscall: i32, first: u64) -> u64 {
    let stack = word(task, offset!(task_stack));
    let mut found = 0;
    for size in 13..18_u32 {
        for padding in 0..8_u32 {
            let at = ((1 << size) - offset!(regs_size) - padding * 8) as u64;
            let number = int(stack + at, offset!(regs_syscall)) as i32;
            if number == syscall && word(stack + at, offset!(regs_first)) == first {
                found = at;
            }
        }
    }
    found
}

/// Whether a task last entered the kernel by that system call: it is still in it, or has run in user mode
/// without a trap since.
#[inline(always)]
pub(crate) fn in_call(task: u64, syscall: i32) -> bool {
    let regs = registers(task);
    regs == 0 || int(regs, offset!(regs_syscall)) as i32 == syscall
}

/// Whether a task is in a system call of that number, whose first argument is an fd.
#[inline(always)]
pub(crate) fn is_call_on(task: u64, syscall: i32, fd: u32) -> bool {
    in_call_on(task, syscall, fd) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn in_call_on(task: u64, syscall: i32, fd: u32) -> i32 {
    let regs = registers(task);
    let is_it = (int(regs, offset!(regs_syscall)) as i32 == syscall)
        & (word(regs, offset!(regs_first)) as u32 == fd)
        & (regs != 0);
    is_it as i32
}

/// The system call that a task has made last, which it may be in; 0 if that cannot be read.
#[inline(always)]
pub(crate) fn last_call(task: u64) -> i32 {
    int(registers(task), offset!(regs_syscall)) as i32
}

/// Whether a system call opens files by their paths or handles.
#[inline(always)]
pub(crate) fn is_open_call(syscall: i32) -> bool {
    // −1 is a call that this architecture does not have, and the call of a task that entered the kernel by
    // none.
    (syscall >= 0)
        & ((syscall == syscall!(openat))
            | (syscall == syscall!(openat2))
            | (syscall == syscall!(open))
            | (syscall == syscall!(creat))
            | (syscall == syscall!(open_by_handle_at)))
}
