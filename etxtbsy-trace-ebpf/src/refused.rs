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
const AT_FDCWD: i32 = -100;

/// `syscalls:sys_exit_truncate`; and the exits of opens, by [`crate::open`]: tells of a call that
/// failed with ETXTBSY.
///
/// Its file is not told: the kernel has forgotten it by the exit of the call. Who runs a file of
/// that name is told ([`crate::runners`]), and user space compares; the path is in the arguments
/// that the task's saved registers still have.
#[tracepoint]
pub fn refused(ctx: TracePointContext) -> u32 {
    if kernel::result(&ctx) == ETXTBSY {
        tell_refusal(&ctx);
    }
    0
}

#[inline(always)]
fn tell_refusal(ctx: &TracePointContext) {
    let task = kernel::current();
    if !tree::contains(kernel::tgid_of(task)) || !victim::is_taken() {
        return;
    }
    let syscall = kernel::syscall(ctx);
    let regs = kernel::registers(task);
    let (first, second) = (word(regs, offset!(regs_first)), word(regs, offset!(regs_second)));
    let calls = CALLS.load();
    let at = syscall == calls.openat || syscall == calls.openat2;
    let path = if at {
        second
    } else if syscall == calls.open_by_handle_at {
        0
    } else {
        first
    };
    // SAFETY: no arguments.
    let exit_ns = unsafe { bpf_ktime_get_ns() };
    let call = Call { syscall, enter_ns: 0, exit_ns, path };
    let Some(subject) = victim::tell(task, &call, 0, 0) else { return };
    victim::describe(task, subject, path);
    if at && first as i32 != AT_FDCWD {
        let file = kernel::file_at(kernel::table_of(task), first as u32);
        text::file_path(task, TextOf::Directory, subject, file);
    }
    if Sought::begin(task, 0, subject.seq, path, 0).is_none() {
        end_unknown(subject.seq);
    } else {
        // SAFETY: the program that user space has put there is of this one's type.
        let _ = unsafe { NEXT.tail_call(ctx, Next::Runners as u32) };
    }
    end_failure(task, 1);
}
