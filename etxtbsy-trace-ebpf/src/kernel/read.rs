//! Reads of kernel memory.
//!
//! Every read is a plain load behind `bpf_rdonly_cast`, or, on kernels without that (before 6.2), a call of
//! `bpf_probe_read_kernel`. Both give zeros where an address is not mapped: a stale pointer yields a wrong
//! value, never a fault. No read checks for that, because each branch would double what the verifier has to
//! follow. Callers compare what they find (`f_inode`, `f_mode`, the fd table) before they believe it.

use core::{arch::asm, ffi::c_void, mem::MaybeUninit};

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use etxtbsy_trace_common::{CAST_FUNCTION, CAST_WORDS};

/// Whether these are the programs for kernels with the function `bpf_rdonly_cast` (6.2 on). There are
/// two builds of them, because the verifier takes time to remove what one of them does not use.
pub(crate) const CASTS: bool = cfg!(feature = "cast");

/// How many words one pointer from [`cast`] may be read for: `struct pt_regs` has more everywhere.
const WORDS: usize = 16;

/// An address as a pointer to words that may be read by plain loads; an address that is not mapped
/// reads as zeros (`ex_handler_bpf` and its like). A load takes 1 ns, the helper 23.
///
/// A call of `bpf_rdonly_cast`: user space puts its BTF id, and that of `struct pt_regs`, where the
/// placeholders are.
#[inline(always)]
fn cast(address: u64) -> *const u64 {
    let pointer: u64;
    // SAFETY: the verifier puts a move in the place of the call, and checks what is done with its result.
    unsafe {
        asm!(
            "r2 = {words}",
            "call {function}",
            words = const CAST_WORDS,
            function = const CAST_FUNCTION,
            inout("r1") address => _,
            lateout("r0") pointer,
            lateout("r2") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
            options(nomem, nostack, pure),
        );
    }
    pointer as *const u64
}

/// A value at `address` by the helper; zeros if it cannot be read.
#[inline(always)]
fn read<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let size = size_of::<T>() as u32;
    // SAFETY: the helper checks the address, and writes `size` bytes in any case; the types it
    // is used for are integers and arrays of them.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size, address as *const c_void);
        value.assume_init()
    }
}

/// A pointer or other 64-bit word at `base + offset`; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn word(base: u64, offset: u32) -> u64 {
    let address = base + offset as u64;
    if !CASTS {
        return read(address);
    }
    // SAFETY: the verifier knows the type, and a fault gives 0. Volatile: other processors write it.
    unsafe { cast(address).read_volatile() }
}

/// A 32-bit word at `base + offset`; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn int(base: u64, offset: u32) -> u32 {
    let address = base + offset as u64;
    if !CASTS {
        return read(address);
    }
    // SAFETY: as in `word`.
    unsafe { cast(address).cast::<u32>().read_volatile() }
}

/// Words from `address` on; zeros if they cannot be read.
#[inline(always)]
pub(crate) fn words<const N: usize>(address: u64) -> [u64; N] {
    const { assert!(N <= WORDS) };
    if !CASTS {
        return read(address);
    }
    let from = cast(address);
    // SAFETY: as in `word`, for as many words as the type has.
    core::array::from_fn(|at| unsafe { from.add(at).read_volatile() })
}
