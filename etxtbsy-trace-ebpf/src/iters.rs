//! Iterators: programs that run once for each thing the kernel has, when user space reads them.

use core::ffi::c_void;

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use etxtbsy_trace_common::PidPair;

use crate::{
    holds::snapshot,
    kernel::{self, offset},
};

/// `struct bpf_iter__task_file`, kernel/bpf/task_iter.c.
#[repr(C)]
struct TaskFile {
    meta: u64,
    task: u64,
    fd: u32,
    pad: u32,
    file: u64,
}

/// The iterator `task_file`, read once, after every other program is attached: each fd of each table.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
pub fn snapshot_files(ctx: *mut c_void) -> i32 {
    let ctx = ctx.cast::<TaskFile>();
    // SAFETY: the context of this iterator.
    let (task, fd, file) = unsafe { ((*ctx).task, (*ctx).fd, (*ctx).file) };
    if task == 0 || file == 0 {
        return 0;
    }
    snapshot::note(task, fd, file);
    0
}

/// `struct bpf_iter__task`, kernel/bpf/task_iter.c.
#[repr(C)]
struct Task {
    meta: *const Meta,
    task: u64,
}

/// The beginning of `struct bpf_iter_meta`, include/linux/bpf.h.
#[repr(C)]
struct Meta {
    seq: *mut seq_file,
}

/// The iterator `task`: a [`PidPair`] for each process of the reader's pid namespace.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub fn pids(ctx: *mut c_void) -> i32 {
    let ctx = ctx.cast::<Task>();
    // SAFETY: the context of this iterator.
    let (seq, task) = unsafe { ((*(*ctx).meta).seq, (*ctx).task) };
    // First: to the verifier it is a pointer, not a number.
    if task == 0 {
        return 0;
    }
    let machine = kernel::tgid_of(task);
    let is_leader = kernel::int(task, offset!(task_pid)) == machine;
    let local = kernel::local_pid(task);
    if !is_leader || local == 0 {
        return 0;
    }
    let pair = PidPair { local, machine };
    // SAFETY: `pair` has as many bytes as the helper is given. Where they find no room, the kernel takes a
    // larger buffer and calls the program again.
    unsafe { bpf_seq_write(seq, (&raw const pair).cast(), size_of::<PidPair>() as u32) };
    0
}
