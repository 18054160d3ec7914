//! What kernels have beside fields at other places: found in the running kernel's BTF, never by
//! its version, for distributions bring features to older kernels.

use super::layout::Layout;

/// How the tracepoint `io_uring_complete` tells what a request has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingCompletion {
    /// `(ctx, req, cqe)`: 6.13 on.
    Cqe,
    /// `(ctx, req, user_data, res, …)`: 6.0 to 6.12.
    Result,
    /// It does not tell of which request.
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
