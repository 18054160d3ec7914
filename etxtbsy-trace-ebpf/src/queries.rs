//! Queries by user space: programs that are attached to nothing, and that user space runs by
//! `BPF_PROG_TEST_RUN`.
//!
//! They do without the macro for raw tracepoints, which drops what a program returns.

use core::ffi::c_void;

use aya_ebpf::programs::RawTracePointContext;

use etxtbsy_trace_common::{Config, SWAP_FILE};

use crate::{
    kernel::{self, offset},
    maps::{ANY, CONFIG},
};

/// Notes who the tracer is: the calling process, and its pid namespace. Gives how many pid namespaces there
/// are above that.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/introduce")]
pub fn introduce(_ctx: *mut c_void) -> i32 {
    let task = kernel::current();
    let (level, namespace) = kernel::pid_namespace(task);
    let _ = CONFIG.set(Config::Tracer as u32, kernel::tgid_of(task) as u64, ANY);
    let _ = CONFIG.set(Config::PidLevel as u32, level as u64, ANY);
    let _ = CONFIG.set(Config::PidNamespace as u32, namespace, ANY);
    level as i32
}

/// Whether a process lives that is known by one of its tasks: given a `struct task_struct *` and
/// its `start_time`.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/lives")]
pub fn lives(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let (task, start_ns): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let same = kernel::word(task, offset!(task_start_time)) == start_ns;
    let signal = kernel::word(task, offset!(task_signal));
    (same & (kernel::int(signal, offset!(signal_live)) != 0)) as i32
}

/// Whether a description still has write access: given a `struct task_struct *`, a `struct file *` and its
/// `struct inode *`, whether anything refers to the description, or its last reference waits in the task's
/// work.
///
/// No tracepoint shows when a task does its work, or when a process unmaps a file.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/still_open")]
pub fn still_open(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let (task, file, inode) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
    (kernel::is_open(file, inode) | kernel::is_fput_pending(task, file)) as i32
}

/// Whether an fd still refers to a description: given a `struct files_struct *`, the fd, and the
/// `struct file *` with its `struct inode *`.
///
/// For a hold whose end was not reported: the kernel may have skipped the program that reports it.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/still_there")]
pub fn still_there(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let (table, fd, file, inode): (u64, u64, u64, u64) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3));
    let used = kernel::users_of(table) != 0;
    (used & kernel::is_open(file, inode) & (kernel::file_at(table, fd as u32) == file)) as i32
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

/// Whether the inode behind an fd of the caller is an active swap file.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/is_swap_file")]
pub fn is_swap_file(ctx: *mut c_void) -> i32 {
    let fd: u64 = RawTracePointContext::new(ctx).arg(0);
    let file = kernel::file_at(kernel::table_of(kernel::current()), fd as u32);
    (kernel::int(kernel::inode_of(file), offset!(inode_i_flags)) & SWAP_FILE != 0) as i32
}

/// Whether a binfmt_misc entry, by an fd of the caller for its file in binfmt_misc, has an inode open
/// as its interpreter: a `struct inode *` and its `i_ino`, for another may lie there by now.
///
/// The entry is `inode.i_private` of its file, a `Node` (fs/binfmt_misc.c), whose `interp_file` is set
/// by flag `F`. The offsets of both fields are given, for binfmt_misc may be a module.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/keeps")]
pub fn keeps(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let (inode, ino, entry, private, interpreter): (u64, u64, u64, u64, u64) =
        (ctx.arg(0), ctx.arg(1), ctx.arg(2), ctx.arg(3), ctx.arg(4));
    let table = kernel::table_of(kernel::current());
    let entry = kernel::inode_of(kernel::file_at(table, entry as u32));
    let kept = kernel::word(kernel::word(entry, private as u32), interpreter as u32);
    let is_it = (kept != 0) & (kernel::inode_of(kept) == inode);
    (is_it & (kernel::word(inode, offset!(inode_i_ino)) == ino)) as i32
}

/// The `struct inode *` behind an fd of the caller, by its halves: the lower one, the upper one if
/// the second argument is not 0.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tracepoint/inode_at")]
pub fn inode_at(ctx: *mut c_void) -> i32 {
    let ctx = RawTracePointContext::new(ctx);
    let (fd, upper): (u64, u64) = (ctx.arg(0), ctx.arg(1));
    let inode = kernel::inode_of(kernel::file_at(kernel::table_of(kernel::current()), fd as u32));
    (if upper != 0 { inode >> 32 } else { inode }) as i32
}
