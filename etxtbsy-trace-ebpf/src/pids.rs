//! The processes that a pid namespace has.

use core::ffi::c_void;

use aya_ebpf::{bindings::seq_file, helpers::generated::bpf_seq_write};
use etxtbsy_trace_common::PidPair;

use crate::kernel::{self, offset};

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
    // First: it is a pointer to the verifier, not a number.
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
    // SAFETY: as many bytes as are told. Where they find no room, the kernel takes a larger buffer
    // and comes again.
    unsafe { bpf_seq_write(seq, (&raw const pair).cast(), size_of::<PidPair>() as u32) };
    0
}
