//! Where the kernel's fields are, and its numbers of system calls: set before the programs are loaded.

use core::mem::MaybeUninit;

use aya_ebpf::Global;
use etxtbsy_trace_common::{Calls, Offsets};

/// Set by user space before loading; constants to the verifier.
#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> =
    // SAFETY: integers, for which zeros are a value.
    Global::new(unsafe { MaybeUninit::zeroed().assume_init() });

/// Set by user space before loading.
#[unsafe(no_mangle)]
static CALLS: Global<Calls> =
    // SAFETY: integers, for which zeros are a value.
    Global::new(unsafe { MaybeUninit::zeroed().assume_init() });

/// The number of one system call. All of [`CALLS`] at once would take a stack that small programs need.
macro_rules! syscall {
    ($name:ident) => {{
        const AT: usize = core::mem::offset_of!(etxtbsy_trace_common::Calls, $name);
        $crate::kernel::syscall_at(AT)
    }};
}
pub(crate) use syscall;

/// One of [`CALLS`], by its place among them.
#[inline(always)]
pub(crate) fn syscall_at(at: usize) -> i32 {
    // SAFETY: as in [`offset_at`].
    unsafe { (&raw const CALLS).byte_add(at).cast::<i32>().read_volatile() }
}

/// The offset of one field.
macro_rules! offset {
    ($field:ident) => {{
        const AT: usize = core::mem::offset_of!(etxtbsy_trace_common::Offsets, $field);
        $crate::kernel::offset_at(AT)
    }};
}
pub(crate) use offset;

/// One of [`OFFSETS`], by its place among them.
#[inline(always)]
pub(crate) fn offset_at(at: usize) -> u32 {
    // SAFETY: within the static; volatile, because user space sets it in the object file.
    unsafe { (&raw const OFFSETS).byte_add(at).cast::<u32>().read_volatile() }
}
