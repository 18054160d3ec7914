//! An fd table has been copied: by a fork, by `unshare`, or by an exec that left a shared one.

use core::ffi::c_void;

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Actor, Lost, Via};

use crate::{
    hold::{self, STEPS, repeat},
    kernel::{self, offset, word},
    maps::{ZERO, lost},
};

/// A copy of an fd table.
pub(crate) struct Copied {
    /// Whose it is.
    pub(crate) task: u64,
    /// The copy.
    pub(crate) table: u64,
    /// What it was copied from; 0 if that is not known.
    pub(crate) parent_table: u64,
    /// Who forked the task; a time of 0 if the task itself left a table that it shared.
    pub(crate) forker: Actor,
    /// When.
    pub(crate) now_ns: u64,
}

/// The walk of a copied table.
#[repr(C)]
struct Copying {
    /// `fdtable.fd`.
    fds: u64,
    /// `fdtable.open_fds`.
    open: u64,
    /// What is left of the current word of `open`.
    bits: u64,
    /// Which word that is.
    index: u64,
    words: u64,
    task: u64,
    table: u64,
    parent_table: u64,
    forker: Actor,
    now_ns: u64,
    found: u64,
}

/// Notes the write fds of a copied table; whether it has any.
#[inline(always)]
pub(crate) fn note(copied: &Copied) -> bool {
    let Some(zero) = ZERO.get_ptr(0) else { return false };
    // SAFETY: a map value. Read from there so that the verifier takes it for any number, and
    // does not follow the walk through its every value.
    let zero = unsafe { zero.cast::<u64>().read_volatile() };
    let fdt = word(copied.table, offset!(files_fdt));
    let open = word(fdt, offset!(fdtable_open_fds));
    let mut copying = Copying {
        fds: word(fdt, offset!(fdtable_fd)),
        open,
        bits: word(open, 0),
        index: zero,
        words: kernel::int(fdt, offset!(fdtable_max_fds)) as u64 / 64,
        task: copied.task,
        table: copied.table,
        parent_table: copied.parent_table,
        forker: copied.forker,
        now_ns: copied.now_ns,
        found: 0,
    };
    if repeat(STEPS, copy_step, &mut copying) >= STEPS as i64 {
        lost(Lost::WalkTruncated);
    }
    copying.found != 0
}

/// One step: the next word of the bitmap, or the next fd in this one.
unsafe extern "C" fn copy_step(_index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `note` gives this its own state.
    let copying = unsafe { &mut *context.cast::<Copying>() };
    let bits = copying.bits;
    if bits == 0 {
        copying.index += 1;
        if copying.index >= copying.words {
            return 1;
        }
        copying.bits = word(copying.open + copying.index * 8, 0);
        return 0;
    }
    copying.bits = bits & (bits - 1);
    let fd = copying.index * 64 + lowest(bits);
    let file = word(copying.fds + fd * 8, 0);
    if file != 0 && kernel::is_writer(file) {
        inherit(copying, fd as u32, file);
    }
    0
}

#[inline(always)]
fn inherit(copying: &mut Copying, fd: u32, file: u64) {
    let forked = copying.forker.time_ns != 0;
    let via = if forked { Via::Fork } else { Via::Unknown };
    let mut hold = hold::begin(copying.task, copying.table, fd, file, via, copying.now_ns);
    hold.forked = copying.forker;
    if forked {
        // With CLONE_PARENT the child's parent is another.
        hold.ppid = copying.forker.tgid;
    }
    // What a fork copied may have left the parent's table since.
    hold::find_opener(&mut hold.opened, copying.parent_table, fd, file, hold.inode);
    if hold.opened.time_ns == 0 {
        hold::find_origin(&mut hold);
    }
    hold::acquire(&hold);
    copying.found = 1;
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
pub(crate) fn left_shared(task: u64, table: u64) {
    // SAFETY: no arguments.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    note(&Copied { task, table, parent_table: 0, forker: hold::NOBODY, now_ns });
}
