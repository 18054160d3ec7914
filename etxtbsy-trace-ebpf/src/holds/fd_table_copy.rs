//! An fd table is copied: by a fork, by `unshare`, or by an exec that leaves a shared one.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::Via;

use crate::{
    bounded_loop::{END, FOUND, in_parts},
    holds::{origin, table},
    kernel::{self, offset, word},
    maps::TABLES,
};

/// How many words of the bitmap of open fds one part of a walk goes through, and how many
/// such parts there are: 131,072 fds.
const WORDS: u32 = 32;
const CALLS: u32 = 64;
/// How many fds' files are read at once.
const BLOCK: u32 = 4;

/// Notes the write fds of `task`'s table, a copy; whether it has any. `parent_table` is what
/// current's fork copied it from, 0 if `task` itself left a table that it shared.
#[inline(always)]
pub(crate) fn note(task: u64, parent_table: u64, now_ns: u64) -> bool {
    copy_table(task, parent_table, now_ns) & FOUND != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_table(task: u64, parent_table: u64, now_ns: u64) -> i32 {
    in_parts(CALLS, WORDS, |from| copy_words(task, parent_table, now_ns, from))
}

/// The fds of some words of the bitmap. (Few variables: the frames of nested functions have 512 bytes
/// together.)
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_words(task: u64, parent_table: u64, now_ns: u64, from: u32) -> i32 {
    let fdt = word(kernel::table_of(task), offset!(files_fdt));
    let words = kernel::int(fdt, offset!(fdtable_max_fds)) / 64;
    let mut found = 0;
    for index in 0..WORDS {
        if from + index >= words {
            return found | END;
        }
        found |= copy_word(task, parent_table, now_ns, from + index) & FOUND;
    }
    found
}

/// The fds of one word of the bitmap, block by block.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_word(task: u64, parent_table: u64, now_ns: u64, index: u32) -> i32 {
    let fdt = word(kernel::table_of(task), offset!(files_fdt));
    let mut bits = word(word(fdt, offset!(fdtable_open_fds)) + index as u64 * 8, 0);
    let mut fd = index * 64;
    let mut found = 0;
    // The verifier knows that this loop ends: a number that is shifted becomes 0.
    while bits != 0 {
        if bits & ((1 << BLOCK) - 1) != 0 {
            found |= copy_block(task, parent_table, now_ns, fd);
        }
        bits >>= BLOCK;
        fd += BLOCK;
    }
    found
}

/// The fds of one block.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_block(task: u64, parent_table: u64, now_ns: u64, first: u32) -> i32 {
    let fdt = word(kernel::table_of(task), offset!(files_fdt));
    let files: [u64; BLOCK as usize] =
        kernel::words(word(fdt, offset!(fdtable_fd)) + first as u64 * 8);
    let mut found = 0;
    for (at, file) in files.into_iter().enumerate() {
        if file != 0 && kernel::is_writer(file) {
            found |= inherit(task, parent_table, now_ns, first + at as u32) & FOUND;
        }
    }
    found
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn inherit(task: u64, parent_table: u64, now_ns: u64, fd: u32) -> i32 {
    let forked = parent_table != 0;
    let table = kernel::table_of(task);
    let file = kernel::file_at(table, fd);
    let via = if forked { Via::Fork } else { Via::Unknown };
    table::acquire(task, table, fd, file, via, now_ns, |hold| {
        if forked {
            hold.forked = kernel::actor(kernel::current(), now_ns);
            // With CLONE_PARENT the child's parent is another.
            hold.ppid = hold.forked.tgid;
        }
        // The parent's table may have lost since what the fork copied.
        hold.left_ns = origin::find_opener(&mut hold.opened, parent_table, fd, file, hold.inode);
        if hold.opened.time_ns == 0 {
            origin::find_origin(hold, file);
        }
    });
    FOUND
}

/// Notes the write fds of the table that `task` has for itself, after it left one that it shared.
#[inline(always)]
pub(crate) fn left_shared(task: u64) {
    // SAFETY: no arguments.
    note(task, 0, unsafe { bpf_ktime_get_ns() });
}

/// Notes the write fds of the table of a task that may have one of its own now.
#[inline(always)]
pub(crate) fn unshared(task: u64) {
    if TABLES.get_ptr(kernel::table_of(task)).is_none() {
        left_shared(task);
    }
}
