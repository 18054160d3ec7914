//! An fd table has been copied: by a fork, by `unshare`, or by an exec that left a shared one.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Lost, Via};

use crate::{
    hold::{self, SOME},
    kernel::{self, offset, word},
    maps::lost,
};

/// How many words of the bitmap of open fds are looked at: 131,072 fds.
const WORDS: u32 = 2048;

/// A copied table had write fds.
const FOUND: i32 = 1;

/// Notes the write fds of `task`'s table, a copy; whether it has any. `parent_table` is what
/// current's fork copied it from, 0 if `task` itself left a table that it shared.
#[inline(always)]
pub(crate) fn note(task: u64, parent_table: u64, now_ns: u64) -> bool {
    copy_table(task, parent_table, now_ns) & FOUND != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_table(task: u64, parent_table: u64, now_ns: u64) -> i32 {
    let fdt = word(kernel::table_of(task), offset!(files_fdt));
    let words = kernel::int(fdt, offset!(fdtable_max_fds)) / 64;
    let mut found = 0;
    for index in 0..WORDS {
        if index >= words {
            return found;
        }
        found |= copy_word(task, parent_table, now_ns, index) & FOUND;
    }
    lost(Lost::WalkTruncated);
    found
}

/// The fds of one word of the bitmap.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copy_word(task: u64, parent_table: u64, now_ns: u64, index: u32) -> i32 {
    let fdt = word(kernel::table_of(task), offset!(files_fdt));
    let fds = word(fdt, offset!(fdtable_fd)) + index as u64 * 64 * 8;
    let mut bits = word(word(fdt, offset!(fdtable_open_fds)) + index as u64 * 8, 0);
    let mut found = 0;
    for _ in 0..SOME {
        if bits == 0 {
            break;
        }
        let fd = lowest(bits);
        bits &= bits - 1;
        let file = word(fds + fd * 8, 0);
        if file != 0 && kernel::is_writer(file) {
            found |= inherit(task, parent_table, now_ns, index * 64 + fd as u32) & FOUND;
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
    hold::acquire(task, table, fd, file, via, now_ns, |hold| {
        if forked {
            hold.forked = kernel::actor(kernel::current(), now_ns);
            // With CLONE_PARENT the child's parent is another.
            hold.ppid = hold.forked.tgid;
        }
        // What a fork copied may have left the parent's table since.
        hold::find_opener(&mut hold.opened, parent_table, fd, file, hold.inode);
        if hold.opened.time_ns == 0 {
            hold::find_origin(hold, file);
        }
    });
    FOUND
}

/// The number of the lowest bit that is set. No branches: the verifier would follow each.
#[inline(always)]
pub(crate) fn lowest(bits: u64) -> u64 {
    let below = (bits & bits.wrapping_neg()).wrapping_sub(1);
    let pairs = below - ((below >> 1) & 0x5555_5555_5555_5555);
    let nibbles = (pairs & 0x3333_3333_3333_3333) + ((pairs >> 2) & 0x3333_3333_3333_3333);
    let bytes = (nibbles + (nibbles >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56
}

/// Notes the write fds of a table that `task` has got for itself alone, leaving one it shared.
#[inline(always)]
pub(crate) fn left_shared(task: u64) {
    // SAFETY: no arguments.
    note(task, 0, unsafe { bpf_ktime_get_ns() });
}
