//! Calls that are neither an open nor an exec: they can fail with ETXTBSY, or be the last to use a
//! description.

use aya_ebpf::{
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};

use super::context;
use crate::{
    failure::other_calls,
    holds::pending_release::{self, At},
    kernel::ETXTBSY,
};

/// `syscalls:sys_exit_swapon`, `finit_module`, `kexec_file_load`, `copy_file_range`, and those of
/// unlink and rename.
///
/// `swapon` opens its file for writing. The kernel reads a module while writing is denied
/// (`kernel_read_file`). A swap file refuses to be copied to. File systems that something else serves
/// refuse to unlink and to rename. Programs seldom make these calls, or the calls cost microseconds
/// themselves.
#[tracepoint]
pub fn other_call_returns(ctx: TracePointContext) -> u32 {
    count(&ctx);
    0
}

/// `syscalls:sys_exit_munmap`, `mremap`, `flock`, `fsync`, `fdatasync`, `fallocate`, `ftruncate`:
/// calls after which a mapping may be gone, or that may have used a description for long.
///
/// Always attached, because programs seldom make these calls, or the calls take long: the tracer reports
/// their ends to the microsecond. For all other calls there is [`call_returns`].
#[tracepoint]
pub fn slow_call_returns(ctx: TracePointContext) -> u32 {
    pending_release::check(At::Return);
    // A swap file refuses fallocate and ftruncate.
    count(&ctx);
    0
}

/// `raw_syscalls:sys_exit`, raw: a process may have unmapped a file, or be back from the call that
/// used one.
///
/// Attached only while the tracer waits for that, because it costs every system call of the machine.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn call_returns(_ctx: RawTracePointContext) -> i32 {
    pending_release::check(At::Return);
    0
}

/// Counts the system call that returns, if it failed with ETXTBSY.
#[inline(always)]
fn count(ctx: &TracePointContext) {
    if context::result(ctx) == ETXTBSY {
        other_calls::note_call(context::syscall(ctx));
    }
}
