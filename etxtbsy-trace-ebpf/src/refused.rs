//! The other direction: an open for writing, or a truncate, has failed because the file is being
//! run.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext};
use etxtbsy_trace_common::{Next, TextOf};

use crate::{
    fail::{ETXTBSY, end_failure, end_unknown},
    kernel::{self, CALLS, offset, word},
    maps::{NEXT, Sought},
    text, tree,
    victim::{self, Call},
};

/// `AT_FDCWD`, include/uapi/linux/fcntl.h.
pub(crate) const AT_FDCWD: i32 = -100;

/// `syscalls:sys_exit_truncate`; and the exits of opens, by [`crate::open`]: tells of a call that
/// failed with ETXTBSY.
///
/// When the call returns, the kernel no longer holds a reference to the file. The path is in the
/// arguments that the task's saved registers still have: [`crate::resolve`] walks it again through
/// the kernel's own entries, and [`crate::runners`] finds who runs the file.
#[tracepoint]
pub fn refused(ctx: TracePointContext) -> u32 {
    if kernel::result(&ctx) != ETXTBSY {
        return 0;
    }
    let syscall = kernel::syscall(&ctx);
    let regs = kernel::registers(kernel::current());
    let (first, second) = (word(regs, offset!(regs_first)), word(regs, offset!(regs_second)));
    let calls = CALLS.load();
    let (path, directory) = if syscall == calls.openat || syscall == calls.openat2 {
        (second, first as i32)
    } else if syscall == calls.open_by_handle_at {
        (0, AT_FDCWD)
    } else {
        (first, AT_FDCWD)
    };
    if tell_refusal(syscall, path, directory) {
        // SAFETY: the program that user space has put there is of this one's type.
        let _ = unsafe { NEXT.tail_call(&ctx, Next::Resolve as u32) };
        end_failure(kernel::current(), 1);
    }
    0
}

/// Records that a call of current's failed with ETXTBSY, and leaves in `SEARCHES` what
/// [`crate::resolve`] needs; false if there is nothing to continue with.
/// `path` is a user pointer, 0 if there is none; `directory` is the fd that it is relative to.
#[inline(always)]
pub(crate) fn tell_refusal(syscall: i32, path: u64, directory: i32) -> bool {
    let task = kernel::current();
    if !tree::contains(kernel::tgid_of(task)) || !victim::is_taken() {
        return false;
    }
    // SAFETY: no arguments.
    let exit_ns = unsafe { bpf_ktime_get_ns() };
    let call = Call { syscall, enter_ns: 0, exit_ns, path };
    let Some(subject) = victim::tell(task, &call, 0, 0, 0) else { return false };
    victim::describe(task, subject, path);
    if directory != AT_FDCWD {
        let file = kernel::file_at(kernel::table_of(task), directory as u32);
        text::file_path(task, TextOf::Directory, subject, file);
    }
    let Some(sought) = Sought::begin(task, 0, subject.seq, path, 0) else {
        end_unknown(subject.seq);
        return false;
    };
    // SAFETY: a map value, which this task alone uses.
    unsafe {
        (*sought).exit_ns = exit_ns;
        (*sought).directory = directory;
    }
    true
}
