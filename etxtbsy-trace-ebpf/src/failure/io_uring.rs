//! An open by io_uring was refused because a process runs the file.

use crate::{
    failure::write_refused,
    kernel::{self, offset, word},
};

/// `io_uring_enter`, the same number on every architecture that Rust and eBPF share.
const ENTER: i32 = 426;
/// How many of a ring's submissions one call of [`some_submissions`] looks at, and how many such calls there
/// are.
const SUBMISSIONS: u32 = 16;
const PARTS: u32 = 32;
/// Of `struct io_uring_sqe`, include/uapi/linux/io_uring.h.
const SIZE: u64 = 64;

/// Reports a refused open; false if there is nothing to continue with. The request has no path any more. The
/// submission that it came from, in memory that the ring shares with the process, has the path until the
/// process reuses that memory.
#[inline(always)]
pub(crate) fn report_refusal(request: u64, opcode: u32) -> bool {
    let ring = word(request, offset!(io_uring_request_context));
    let found = submission(ring, word(request, offset!(io_uring_user_data)), opcode);
    let (path, directory) = match found {
        0 => (0, 0),
        found => (word(found, 16), kernel::int(found, 4) as i32),
    };
    write_refused::report(ENTER, path, directory)
}

/// The submission, `struct io_uring_sqe *`, of a request with that data; 0 if it is not found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn submission(ring: u64, data: u64, opcode: u32) -> u64 {
    if offset!(io_uring_sqes) == u32::MAX {
        return 0;
    }
    let submissions = word(ring, offset!(io_uring_sqes));
    let many = kernel::int(ring, offset!(io_uring_sq_entries));
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
