//! Fd tables (`struct files_struct`).

use core::arch::asm;

use aya_ebpf::{Global, helpers::generated::bpf_get_current_task_btf};

use crate::kernel::{
    offset,
    read::{CASTS, int, word},
    task::current,
};

/// A task's fd table, `struct files_struct *`; 0 once the task has dropped it.
#[inline(always)]
pub(crate) fn table_of(task: u64) -> u64 {
    word(task, offset!(task_files))
}

/// The file at an fd of a table; 0 if there is none.
#[inline(always)]
pub(crate) fn file_at(table: u64, fd: u32) -> u64 {
    let fdt = word(table, offset!(files_fdt));
    if fdt == 0 || fd >= int(fdt, offset!(fdtable_max_fds)) {
        return 0;
    }
    word(word(fdt, offset!(fdtable_fd)) + fd as u64 * 8, 0)
}

/// Whether an fd of a table is close-on-exec.
#[inline(always)]
pub(crate) fn cloexec_at(table: u64, fd: u32) -> u32 {
    let fdt = word(table, offset!(files_fdt));
    let bits = word(word(fdt, offset!(fdtable_close_on_exec)) + (fd / 64) as u64 * 8, 0);
    (bits >> (fd % 64)) as u32 & 1
}

/// How many tasks use an fd table.
#[inline(always)]
pub(crate) fn users_of(table: u64) -> u32 {
    int(table, offset!(files_count))
}

/// Set by user space before loading: 1 where the verifier knows the type of what
/// `bpf_get_current_task_btf` returns (5.11 on). The program then reads what it reaches from there by plain
/// loads, at a tenth of the cost of the helper that reads any address.
#[unsafe(no_mangle)]
static TYPED: Global<u32> = Global::new(0);

/// A field of something whose type the verifier knows.
#[inline(always)]
fn typed<T: Copy>(pointer: u64, offset: u32) -> T {
    // SAFETY: the verifier allows it where there is such a field; a stale pointer reads as zeros.
    unsafe { ((pointer + offset as u64) as *const T).read_volatile() }
}

/// A pointer as a number, for maps and functions: by its distance from current.
#[inline(always)]
fn number(pointer: u64, task: u64) -> u64 {
    let mut distance = pointer;
    // SAFETY: a subtraction. In assembly, so that it is one of two pointers, which gives a number.
    unsafe { asm!("{} -= {}", inout(reg) distance, in(reg) task) };
    distance.wrapping_add(current())
}

/// Current's fd table.
#[inline(always)]
pub(crate) fn current_table() -> u64 {
    if CASTS || TYPED.load() == 0 {
        return table_of(current());
    }
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as u64;
    number(typed(task, offset!(task_files)), task)
}

/// Current's fd table, and the file at an fd of it, which is 0 if there is none.
#[inline(always)]
pub(crate) fn current_file(fd: u32) -> (u64, u64) {
    if CASTS || TYPED.load() == 0 {
        let table = table_of(current());
        return (table, file_at(table, fd));
    }
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as u64;
    let table: u64 = typed(task, offset!(task_files));
    let fdt: u64 = typed(table, offset!(files_fdt));
    let file = if fd < typed(fdt, offset!(fdtable_max_fds)) {
        word(typed::<u64>(fdt, offset!(fdtable_fd)) + fd as u64 * 8, 0)
    } else {
        0
    };
    (number(table, task), file)
}
