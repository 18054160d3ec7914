//! Questions that user space asks after a failure: programs that are attached to nothing, and run
//! by `BPF_PROG_TEST_RUN`.
//!
//! Written without the macro for raw tracepoints, which drops what a program returns.

use core::ffi::c_void;

use aya_ebpf::programs::RawTracePointContext;

use crate::kernel::{self, offset};

/// Whether a description still has write access: given a `struct task_struct *`, a
/// `struct file *` and its `struct inode *`, whether anything refers to it, or its last reference
/// waits in the task's work.
///
/// No tracepoint tells when a task gets to its work, or when a mapping goes.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/still_open")]
pub fn still_open(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let (task, file, inode) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    (kernel::is_open(file, inode) | kernel::in_works(task, file)) as i32
}

/// The `i_writecount` of the inode behind an fd of the caller: below zero, by how many it is
/// being run.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/write_count")]
pub fn write_count(ctx: *mut c_void) -> i32 {
    let fd: u64 = RawTracePointContext::new(ctx).arg(0);
    let file = kernel::file_at(kernel::table_of(kernel::current()), fd as u32);
    kernel::int(kernel::inode_of(file), offset!(inode_i_writecount)) as i32
}
