//! A process has been forked.

use core::ffi::c_void;

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::raw_tracepoint, programs::RawTracePointContext};
use aya_log_ebpf::warn;
use etxtbsy_trace_common::{Actor, Lineage, Lost, Via};

use crate::{
    hold::{self, STEPS, repeat},
    kernel::{self, offset, word},
    maps::{ANY, LINEAGE, ZERO, lost},
    tree,
};

/// The copying of a parent's write fds.
#[repr(C)]
struct Copying {
    /// `fdtable.fd` of the child.
    fds: u64,
    /// `fdtable.open_fds` of the child.
    open: u64,
    /// What is left of the current word of `open`.
    bits: u64,
    /// Which word that is.
    index: u64,
    words: u64,
    child: u64,
    child_table: u64,
    parent_table: u64,
    forker: Actor,
    start_ns: u64,
    tgid: u32,
    found: u32,
}

/// `sched:sched_process_fork`, raw.
///
/// In `kernel_clone`, when the child is complete and has not run yet. Its own table is read, not
/// what is noted of its parent's: `copy_files` was long ago, and the parent may have closed the
/// file since. That is also what proves, after a failure, that a child held the file while it was
/// still being made.
#[raw_tracepoint(tracepoint = "sched_process_fork")]
pub fn forked(ctx: RawTracePointContext) -> i32 {
    let parent: u64 = ctx.arg(0);
    let child: u64 = ctx.arg(1);
    let tgid = kernel::tgid_of(child);
    if tgid == kernel::int(child, offset!(task_pid)) {
        tree::forked(kernel::tgid_of(parent), tgid);
    }
    let (parent_table, child_table) = (kernel::table_of(parent), kernel::table_of(child));
    if child_table == 0 || child_table == parent_table {
        return 0;
    }
    let Some(zero) = ZERO.get_ptr(0) else { return 0 };
    // SAFETY: a map value. Read from there so that the verifier takes it for any number, and
    // does not follow the walk through its every value.
    let zero = unsafe { zero.cast::<u64>().read_volatile() };
    let fdt = word(child_table, offset!(files_fdt));
    let open = word(fdt, offset!(fdtable_open_fds));
    let mut copying = Copying {
        fds: word(fdt, offset!(fdtable_fd)),
        open,
        bits: word(open, 0),
        index: zero,
        words: kernel::int(fdt, offset!(fdtable_max_fds)) as u64 / 64,
        child,
        child_table,
        parent_table,
        // SAFETY: no arguments.
        forker: kernel::actor(parent, unsafe { bpf_ktime_get_ns() }),
        start_ns: word(child, offset!(task_start_time)),
        tgid,
        found: 0,
    };
    if repeat(STEPS, copy_step, &mut copying) >= STEPS as i64 {
        lost(Lost::WalkTruncated);
        warn!(&ctx, "the fd table of process {} is too large to read whole", tgid);
    }
    if copying.found != 0 {
        let lineage = Lineage { forker: copying.forker, start_ns: copying.start_ns };
        let _ = LINEAGE.insert(tgid, lineage, ANY);
    }
    0
}

/// One step: the next word of the bitmap, or the next fd in this one.
unsafe extern "C" fn copy_step(_index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `forked` gives this its own state.
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
    let inode = kernel::inode_of(file);
    let (child, table) = (copying.child, copying.child_table);
    let mut hold = hold::begin(child, table, fd, file, Via::Fork, copying.forker.time_ns);
    hold.forked = copying.forker;
    // With CLONE_PARENT the child's parent is another.
    hold.ppid = copying.forker.tgid;
    hold::find_opener(&mut hold.opened, copying.parent_table, fd, file, inode);
    hold::acquire(inode, &hold);
    copying.found = 1;
}

/// The number of the lowest bit that is set. No branches: the verifier would follow each.
#[inline(always)]
fn lowest(bits: u64) -> u64 {
    let below = (bits & bits.wrapping_neg()).wrapping_sub(1);
    let pairs = below - ((below >> 1) & 0x5555_5555_5555_5555);
    let nibbles = (pairs & 0x3333_3333_3333_3333) + ((pairs >> 2) & 0x3333_3333_3333_3333);
    let bytes = (nibbles + (nibbles >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56
}
