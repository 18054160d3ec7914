//! What kernels have beside fields at other places: found in the running kernel's BTF, never by
//! its version, for distributions bring features to older kernels.

use std::fs;

use crate::tracer::layout::{Kernel, Layout};

/// How the tracepoint `io_uring_complete` shows the result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingCompletion {
    /// `(ctx, req, cqe)`: 6.13 on.
    Cqe,
    /// `(ctx, req, user_data, res, …)`: 6.0 to 6.12.
    Result,
    /// It does not show which request.
    Unknown,
}

/// See [`RingCompletion`].
#[must_use]
pub fn ring_completion(kernel: &impl Layout) -> RingCompletion {
    match kernel.pointers("io_uring_complete").as_deref() {
        Some([_, true, true, ..]) => RingCompletion::Cqe,
        Some([_, true, false, ..]) => RingCompletion::Result,
        _ => RingCompletion::Unknown,
    }
}

/// Whether a map may get its elements' memory when a program inserts one (`bpf_mem_alloc`, 6.1
/// on). Before, the kernel takes that for unsafe in tracing, and complains in its log with a stack
/// (`check_map_prog_compatibility`): all memory is taken at the start then.
#[must_use]
pub fn maps_allocate_late(kernel: &impl Layout) -> bool {
    kernel.offset("bpf_htab", "ma").is_some()
}

/// Whether the mappings of a running program deny writing to it, each by itself (`VM_DENYWRITE`, up
/// to 5.14), and not its `mm_struct.exe_file` as a whole. `replace_mm_exe_file` came with the change
/// (fe69d560b5bd, "kernel/fork: always deny write access to current MM exe_file").
#[must_use]
pub fn mappings_deny(kernel: &impl Layout) -> bool {
    !kernel.has_function("replace_mm_exe_file")
}

/// Whether programs on the tracepoints of system calls can be preempted (7.2 on), so that the kernel
/// passes over one for the others that come on its processor meanwhile.
#[must_use]
pub fn preempts_programs(kernel: &impl Layout) -> bool {
    kernel.has_function("trace_call_bpf_faultable")
}

/// Whether there is the helper by which the verifier knows the type of current (5.11 on).
#[must_use]
pub fn current_is_typed(kernel: &impl Layout) -> bool {
    kernel.has_function("bpf_get_current_task_btf")
}

/// By which ids a kernel's BTF has what lets a program read any address by plain loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cast {
    /// The function `bpf_rdonly_cast`.
    pub function: u32,
    /// A struct of words, `struct pt_regs`.
    pub words: u32,
}

/// See [`Cast`]; `None` where there is no such function (before 6.2), and where programs are not
/// compiled, for only compiled ones can call one (`check_kfunc_call`, kernel/bpf/verifier.c).
#[must_use]
pub fn cast(kernel: &Kernel) -> Option<Cast> {
    // It is not shown in a network namespace other than the first.
    let jit = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable");
    if jit.is_ok_and(|jit| jit.trim() == "0") {
        return None;
    }
    Some(Cast {
        function: kernel.function_id("bpf_rdonly_cast")?,
        words: kernel.structure_id("pt_regs")?,
    })
}
