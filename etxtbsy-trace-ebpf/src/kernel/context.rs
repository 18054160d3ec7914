//! What a tracepoint of a system call shows.

use aya_ebpf::{EbpfContext as _, programs::TracePointContext};

/// The result of the system call whose exit this is, as every version has it.
#[inline(always)]
pub(crate) fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: `ret` of `struct syscall_trace_exit` (kernel/trace/trace.h).
    unsafe { ctx.as_ptr().byte_add(16).cast::<i64>().read_volatile() }
}

/// An argument of the system call whose entry this is, counted from 0.
#[inline(always)]
pub(crate) fn argument(ctx: &TracePointContext, nth: usize) -> u64 {
    // SAFETY: `args` of `struct syscall_trace_enter` (kernel/trace/trace.h).
    unsafe { ctx.as_ptr().byte_add(16 + nth * 8).cast::<u64>().read_volatile() }
}

/// The number of the system call.
#[inline(always)]
pub(crate) fn syscall(ctx: &TracePointContext) -> i32 {
    // SAFETY: `nr` of both structures.
    unsafe { ctx.as_ptr().byte_add(8).cast::<i32>().read_volatile() }
}
