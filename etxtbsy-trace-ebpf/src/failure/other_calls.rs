//! Calls that fail with ETXTBSY for other reasons than a writer or a running program: only counted.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use etxtbsy_trace_common::{CallCount, CallKey, Count, Lost};

use crate::{
    emit::intake,
    kernel,
    maps::{CALLS_FAILED, NOEXIST, add_to, count, lost},
    tree,
};

/// A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_call(syscall: i32) -> i32 {
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    if !tree::has(tgid) || !intake::is_tracing() {
        return 0;
    }
    let key = CallKey { tgid, syscall };
    if CALLS_FAILED.get_ptr(key).is_none() {
        // SAFETY: no arguments.
        let first_ns = unsafe { bpf_ktime_get_ns() };
        let comm = kernel::comm(kernel::current());
        // Another thread of the process may have put it there first.
        let _ = CALLS_FAILED.insert(key, CallCount { count: 0, first_ns, comm }, NOEXIST);
    }
    match CALLS_FAILED.get_ptr_mut(key) {
        Some(counted) => {
            // SAFETY: the pointer is to `count`, the first field of a map value.
            unsafe { add_to(counted.cast(), 1) };
            // Last: user space reads the counts when this has changed.
            count(Count::OtherCalls, 1);
        }
        None => lost(Lost::CallsFull),
    }
    0
}
