//! What a tracepoint of a system call shows, and how a program ends in another.

use aya_ebpf::{EbpfContext, maps::ProgramArray, programs::TracePointContext};
use etxtbsy_trace_common::TailCall;

/// The result of the system call that returns, at the place where every kernel version has it.
#[inline(always)]
pub(crate) fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: `ret` of `struct syscall_trace_exit` (kernel/trace/trace.h).
    unsafe { ctx.as_ptr().byte_add(16).cast::<i64>().read_volatile() }
}

/// An argument of the system call that begins, counted from 0.
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

/// Continues with another program. Returns if user space has put none there, or if the kernel's limit of
/// tail calls is reached.
#[inline(always)]
pub(crate) fn tail_call(ctx: &impl EbpfContext, programs: &ProgramArray, target: TailCall) {
    // SAFETY: the kernel keeps only programs of one type in such a map, that of the caller.
    let _ = unsafe { programs.tail_call(ctx, target as u32) };
}
