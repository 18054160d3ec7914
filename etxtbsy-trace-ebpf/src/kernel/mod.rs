//! The running kernel's structures: how to read them, and what they say.
//!
//! Here belongs what only reads the kernel: a function takes a pointer, and returns what one or a few fields
//! mean. What a holder, a failure or a record is belongs elsewhere, and so does every map but `CONFIG`, which
//! has what calibration has shown about this kernel.

mod compat;
mod fd_table;
mod file;
mod io_uring;
mod offsets;
mod pid;
mod read;
mod regs;
mod task;
mod uapi;

pub(crate) use compat::*;
pub(crate) use fd_table::*;
pub(crate) use file::*;
pub(crate) use io_uring::*;
pub(crate) use offsets::*;
pub(crate) use pid::*;
pub(crate) use read::*;
pub(crate) use regs::*;
pub(crate) use task::*;
pub(crate) use uapi::*;
