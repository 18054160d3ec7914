//! A file has been opened by io_uring.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};

use crate::{
    keeper,
    kernel::{self, offset, word},
    open,
};

/// `IORING_OP_OPENAT` and `IORING_OP_OPENAT2`, include/uapi/linux/io_uring.h.
const OPENAT: u32 = 18;
const OPENAT2: u32 = 28;
/// `IORING_FILE_INDEX_ALLOC`, the same: the ring chooses a place.
const FILE_INDEX_ALLOC: u32 = u32::MAX;

/// `io_uring:io_uring_complete`, raw: `(ctx, req, cqe)` from 6.13 on, before that
/// `(ctx, req, user_data, res, …)`.
///
/// At the completion, where the fd is known; a worker thread may have opened the file, but the
/// process is the same, and so is the table. A file that is opened straight into the ring's own table
/// has no fd: who opened it is kept for the search.
#[raw_tracepoint(tracepoint = "io_uring_complete")]
pub fn ring_completes(ctx: RawTracePointContext) -> i32 {
    let request: u64 = ctx.arg(1);
    let opcode = kernel::int(request, offset!(ring_request_opcode)) & 0xff;
    if opcode != OPENAT && opcode != OPENAT2 {
        return 0;
    }
    // The newer tracepoint has no fourth argument, which must not be read there.
    let fd = if offset!(ring_cqe_res) == u32::MAX {
        ctx.arg::<i32>(3)
    } else {
        kernel::int(ctx.arg(2), offset!(ring_cqe_res)) as i32
    };
    if fd < 0 {
        return 0;
    }
    let slot = if offset!(ring_open_slot) == u32::MAX {
        0
    } else {
        kernel::int(request, offset!(ring_open_slot))
    };
    if slot == 0 {
        open::note(fd as u32);
    } else {
        // The ring's place, counted from 1, or the one that it chose.
        let at = if slot == FILE_INDEX_ALLOC { fd as u32 } else { slot - 1 };
        let ring = word(request, offset!(ring_request_context));
        open::note_outlived(keeper::registered(ring, at), at);
    }
    0
}
