//! A request of an io_uring completes.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use etxtbsy_trace_common::TailCall;

use super::context::tail_call;
use crate::{
    failure::{io_uring, outcome},
    holds::open,
    kernel::{self, ETXTBSY, offset},
    maps::RAW_TAIL_CALLS,
};

/// `IORING_OP_OPENAT` and `IORING_OP_OPENAT2`, include/uapi/linux/io_uring.h.
const OPENAT: u32 = 18;
const OPENAT2: u32 = 28;

/// `io_uring:io_uring_complete`, raw: `(ctx, req, cqe)` from 6.13 on, before that
/// `(ctx, req, user_data, res, …)`.
///
/// At the completion, where the fd is known. A worker thread may have opened the file, but the process is
/// the same, and so is the table.
#[raw_tracepoint(tracepoint = "io_uring_complete")]
pub fn io_uring_completes(ctx: RawTracePointContext) -> i32 {
    let request: u64 = ctx.arg(1);
    let opcode = kernel::int(request, offset!(io_uring_request_opcode)) & 0xff;
    if opcode != OPENAT && opcode != OPENAT2 {
        return 0;
    }
    // The newer tracepoint has no fourth argument, which must not be read there.
    let result = if offset!(io_uring_cqe_res) == u32::MAX {
        ctx.arg::<i32>(3)
    } else {
        kernel::int(ctx.arg(2), offset!(io_uring_cqe_res)) as i32
    };
    if result < 0 {
        if result as i64 == ETXTBSY && io_uring::report_refusal(request, opcode) {
            tail_call(&ctx, &RAW_TAIL_CALLS, TailCall::Resolve);
            outcome::end_failure(kernel::current(), 1);
        }
        return 0;
    }
    open::note_io_uring(request, result as u32);
    0
}
