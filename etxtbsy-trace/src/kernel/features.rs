//! What kernels have beside fields at other places: found in the running kernel's BTF, never by
//! its version, for distributions bring features to older kernels.

use btf_rs::{Btf, FuncProto, Type};

use super::offsets::has_field;

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
pub fn ring_completion(btf: &Btf) -> RingCompletion {
    // The first parameter is the data that the callback is registered with. They have no names.
    let parameters = callback(btf).map(|callback| callback.parameters).unwrap_or_default();
    let is_pointer = |at: usize| {
        let ty = parameters.get(at).and_then(|parameter| btf.resolve_chained_type(parameter).ok());
        ty.map(|ty| matches!(ty, Type::Ptr(_)))
    };
    match (is_pointer(2), is_pointer(3)) {
        (Some(true), Some(true)) => RingCompletion::Cqe,
        (Some(true), Some(false)) => RingCompletion::Result,
        _ => RingCompletion::Unknown,
    }
}

/// What is called at `io_uring_complete`.
fn callback(btf: &Btf) -> Option<FuncProto> {
    let types = btf.resolve_types_by_name("btf_trace_io_uring_complete").ok()?;
    let callback = types.into_iter().find_map(|ty| match ty {
        Type::Typedef(found) => Some(found),
        _ => None,
    })?;
    let Type::Ptr(pointer) = btf.resolve_chained_type(&callback).ok()? else { return None };
    let Type::FuncProto(proto) = btf.resolve_chained_type(&pointer).ok()? else { return None };
    Some(proto)
}

/// Whether a map may get its elements' memory when a program inserts one (`bpf_mem_alloc`, 6.1
/// on). Before, the kernel takes that for unsafe in tracing, and complains in its log with a stack
/// (`check_map_prog_compatibility`): all memory is taken at the start then.
#[must_use]
pub fn maps_allocate_late(btf: &Btf) -> bool {
    has_field(btf, "bpf_htab", "ma")
}
