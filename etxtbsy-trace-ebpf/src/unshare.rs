//! A thread has got an fd table of its own.

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};

use crate::{copied, kernel, maps::TABLES};

/// `syscalls:sys_exit_unshare`.
///
/// `unshare(CLONE_FILES)` copies the table without a fork. At the exit, where current has it.
#[tracepoint]
pub fn unshared(_ctx: TracePointContext) -> u32 {
    let task = kernel::current();
    let table = kernel::table_of(task);
    if TABLES.get_ptr(table).is_none() {
        copied::left_shared(task);
    }
    0
}
