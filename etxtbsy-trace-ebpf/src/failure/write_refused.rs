//! A call that would write a file was refused because a process runs the file.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::TextOf;

use crate::{
    emit::{
        intake, text,
        victim::{self, Call},
    },
    failure::outcome,
    kernel::{self, AT_FDCWD, offset, syscall, word},
    maps::SearchState,
    stacks, tree,
};

/// Reports a call of current's that has returned −ETXTBSY; false if there is nothing to continue with.
#[inline(always)]
pub(crate) fn report_call(syscall: i32) -> bool {
    let regs = kernel::registers(kernel::current());
    let (first, second) = (word(regs, offset!(regs_first)), word(regs, offset!(regs_second)));
    let (path, directory) = if syscall == syscall!(openat) || syscall == syscall!(openat2) {
        (second, first as i32)
    } else if syscall == syscall!(open_by_handle_at) {
        (0, AT_FDCWD)
    } else {
        (first, AT_FDCWD)
    };
    report(syscall, path, directory)
}

/// Reports that a call of current's failed with ETXTBSY, and leaves in `SEARCHES` what
/// [`crate::failure::resolve`] needs; false if there is nothing to continue with.
/// `path` is a user pointer, 0 if there is none; `directory` is the fd that it is relative to.
#[inline(always)]
pub(crate) fn report(syscall: i32, path: u64, directory: i32) -> bool {
    let task = kernel::current();
    if !tree::contains(kernel::tgid_of(task)) || !intake::is_taken() {
        return false;
    }
    // SAFETY: no arguments.
    let exit_ns = unsafe { bpf_ktime_get_ns() };
    let call = Call { syscall, enter_ns: 0, exit_ns };
    let Some(subject) = victim::report(task, &call, 0, 0, 0) else { return false };
    stacks::note(exit_ns);
    victim::describe(task, subject, path);
    if directory != AT_FDCWD {
        let file = kernel::file_at(kernel::table_of(task), directory as u32);
        text::file_path(task, TextOf::Directory, subject, file);
    }
    let Some(search) = SearchState::begin(task, 0, subject.seq, path, 0) else {
        outcome::end_unknown(subject.seq);
        return false;
    };
    // SAFETY: a map value, which this task alone uses.
    unsafe {
        (*search).exit_ns = exit_ns;
        (*search).directory = directory;
    }
    true
}
