//! Copies of the tops of user stacks: where in its code a thread was when it opened a file, forked, or failed to exec.

#[cfg(feature = "user")]
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// How many copies there is room for. A power of two.
pub const STACK_PLACES: u32 = 1024;
/// The most bytes that one copy has.
pub const STACK_BYTES: usize = 4032;

/// The top of a thread's user stack, and the registers that unwinding begins with. One element of an array that user
/// space maps: the programs write it, and user space reads it after a failure.
#[repr(C)]
#[cfg_attr(feature = "user", derive(FromBytes, Immutable, IntoBytes, KnownLayout))]
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    /// [`crate::Actor::time_ns`] of what the thread did. With `tid`, it names the copy.
    pub time_ns: u64,
    /// The process.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// The program counter.
    pub ip: u64,
    /// The stack pointer: the address of `bytes[0]`.
    pub sp: u64,
    /// The frame pointer: rbp, x29.
    pub fp: u64,
    /// The link register of arm64, x30; else 0.
    pub lr: u64,
    /// How many of the bytes there are.
    pub len: u32,
    /// Zero.
    pub pad: u32,
    /// `time_ns` again, written last: where the two differ, the copy is being written.
    pub complete_ns: u64,
    /// The stack from `sp` on.
    pub bytes: [u8; STACK_BYTES],
}

/// The element for the copy of a thread at a time: a hash of both, so that it is found again without a map.
#[must_use]
#[inline]
pub const fn stack_at(time_ns: u64, tid: u32) -> u32 {
    // Fibonacci hashing: the highest bits of the product.
    let mixed = (time_ns ^ (tid as u64) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 40) as u32 & (STACK_PLACES - 1)
}
