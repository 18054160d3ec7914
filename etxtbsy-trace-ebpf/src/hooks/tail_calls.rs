//! The targets of tail calls: programs that continue another one, at the exit of the same failing call.
//! They are programs of their own because the verifier limits the size of each.

use aya_ebpf::{
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};

use super::context::tail_call;
use crate::{
    failure::{resolve, runners, search},
    maps::{RAW_TAIL_CALLS, TAIL_CALLS},
};

/// Continues [`super::exec::exec_returns`], which has reported what is known already: searches for holders
/// that no event showed. All its runs together come to half a million threads and words of fd tables.
#[tracepoint]
pub fn search(ctx: TracePointContext) -> u32 {
    search::run(|target| tail_call(&ctx, &TAIL_CALLS, target));
    0
}

/// The same after a 32-bit call.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn compat_search(ctx: RawTracePointContext) -> i32 {
    search::run(|target| tail_call(&ctx, &RAW_TAIL_CALLS, target));
    0
}

/// Continues [`super::write_refused::write_refused`]: finds the file of the refused call.
#[tracepoint]
pub fn resolve(ctx: TracePointContext) -> u32 {
    resolve::run(|target| tail_call(&ctx, &TAIL_CALLS, target));
    0
}

/// The same after a 32-bit call, or a request of an io_uring.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn compat_resolve(ctx: RawTracePointContext) -> i32 {
    resolve::run(|target| tail_call(&ctx, &RAW_TAIL_CALLS, target));
    0
}

/// Continues [`resolve()`]: reports the processes that run the file, before they are gone. Where the file
/// is not known, it reports those whose program has the name that the path ends with.
#[tracepoint]
pub fn runners(ctx: TracePointContext) -> u32 {
    runners::run(|target| tail_call(&ctx, &TAIL_CALLS, target));
    0
}

/// The same after a 32-bit call, or a request of an io_uring.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn compat_runners(ctx: RawTracePointContext) -> i32 {
    runners::run(|target| tail_call(&ctx, &RAW_TAIL_CALLS, target));
    0
}
