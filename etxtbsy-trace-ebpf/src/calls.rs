//! Calls that fail with ETXTBSY for other reasons than a writer or a running program: counted by
//! process and call.

use aya_ebpf::{
    helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns},
    macros::tracepoint,
    programs::TracePointContext,
};
use etxtbsy_trace_common::{CallCount, CallKey, Count, Lost};

use crate::{
    fail::ETXTBSY,
    kernel,
    maps::{CALLS_FAILED, NOEXIST, add_to, count, lost},
    tree, victim,
};

/// `syscalls:sys_exit_swapon`, `finit_module`, `kexec_file_load`, `copy_file_range`, and those of
/// unlink and rename.
///
/// `swapon` opens its file for writing and a module is read while writing is denied
/// (`kernel_read_file`); a swap file refuses to be copied to; file systems that something else serves
/// refuse to unlink and to rename. All are seldom made, or cost microseconds themselves.
#[tracepoint]
pub fn other_call_returns(ctx: TracePointContext) -> u32 {
    note(&ctx);
    0
}

/// Counts the system call whose exit this is, if it failed with ETXTBSY.
#[inline(always)]
pub(crate) fn note(ctx: &TracePointContext) {
    if kernel::result(ctx) == ETXTBSY {
        note_call(kernel::syscall(ctx));
    }
}

/// A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_call(syscall: i32) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if !tree::has(tgid) || !victim::is_tracing() {
        return 0;
    }
    let key = CallKey { tgid, syscall };
    if CALLS_FAILED.get_ptr(key).is_none() {
        // SAFETY: no arguments.
        let first_ns = unsafe { bpf_ktime_get_ns() };
        let comm = kernel::comm(kernel::current());
        // Another thread of the process may have put it there meanwhile.
        let _ = CALLS_FAILED.insert(key, CallCount { count: 0, first_ns, comm }, NOEXIST);
    }
    match CALLS_FAILED.get_ptr_mut(key) {
        Some(counted) => {
            // SAFETY: `count` is the first field of a map value.
            unsafe { add_to(counted.cast(), 1) };
            // Last: user space reads the counts when this has changed.
            count(Count::OtherCalls, 1);
        }
        None => lost(Lost::CallsFull),
    }
    0
}
