//! A thread gets an fd table of its own.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{holds::fd_table_copy, kernel};

/// `syscalls:sys_exit_unshare`.
///
/// `unshare(CLONE_FILES)` copies the table without a fork. At the exit, where current has the copy.
#[tracepoint]
pub fn unshared(_ctx: TracePointContext) -> u32 {
    fd_table_copy::unshared(kernel::current());
    0
}
