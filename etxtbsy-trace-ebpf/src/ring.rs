//! A file has been opened by io_uring.

use aya_ebpf::{macros::raw_tracepoint, programs::RawTracePointContext};
use etxtbsy_trace_common::Next;

use crate::{
    fail::{ETXTBSY, end_failure},
    keeper,
    kernel::{self, offset, word},
    maps::COMPAT_NEXT,
    open,
    refused::tell_refusal,
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
        if fd as i64 == ETXTBSY {
            refused(&ctx, request, opcode);
        }
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

/// `io_uring_enter`, the same number on every architecture that Rust and eBPF share.
const ENTER: i32 = 426;
/// How many of a ring's submissions one call of [`some_submissions`] looks at, and how many such calls there
/// are.
const SUBMISSIONS: u32 = 16;
const PARTS: u32 = 32;
/// Of `struct io_uring_sqe`, include/uapi/linux/io_uring.h.
const SIZE: u64 = 64;

/// An open for writing was refused. The request has no path any more; the submission that it came
/// from, in memory that the ring shares with the process, has one until the process reuses it.
#[inline(always)]
fn refused(ctx: &RawTracePointContext, request: u64, opcode: u32) {
    let ring = word(request, offset!(ring_request_context));
    let found = submission(ring, word(request, offset!(ring_user_data)), opcode);
    let (path, directory) = match found {
        0 => (0, 0),
        found => (word(found, 16), kernel::int(found, 4) as i32),
    };
    if tell_refusal(ENTER, path, directory) {
        // SAFETY: the program that user space has put there is of this one's type.
        let _ = unsafe { COMPAT_NEXT.tail_call(ctx, Next::Resolve as u32) };
        end_failure(kernel::current(), 1);
    }
}

/// The submission, `struct io_uring_sqe *`, of a request with that data; 0 if it is not found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn submission(ring: u64, data: u64, opcode: u32) -> u64 {
    if offset!(ring_sqes) == u32::MAX {
        return 0;
    }
    let submissions = word(ring, offset!(ring_sqes));
    let many = kernel::int(ring, offset!(ring_sq_entries));
    for part in 0..PARTS {
        let at = part * SUBMISSIONS;
        if at >= many {
            break;
        }
        let found = some_submissions(submissions + at as u64 * SIZE, many - at, data, opcode);
        if found != 0 {
            return found;
        }
    }
    0
}

/// The same of [`SUBMISSIONS`] at that address, or of as many as there are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn some_submissions(from: u64, many: u32, data: u64, opcode: u32) -> u64 {
    for at in 0..SUBMISSIONS {
        if at >= many {
            break;
        }
        // `opcode` at 0, `fd` at 4, `addr` at 16, `user_data` at 32.
        let one = from + at as u64 * SIZE;
        if word(one, 32) == data && kernel::int(one, 0) & 0xff == opcode {
            return one;
        }
    }
    0
}
