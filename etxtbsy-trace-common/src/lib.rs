//! What the eBPF programs and user space share: the values of the maps and the records of the ring buffer.
//!
//! Every type that crosses is `repr(C)` with its padding spelled out, because the kernel copies the bytes as
//! they are. Kernel pointers are `u64`: user space only compares them. Times are nanoseconds of
//! CLOCK_MONOTONIC (`bpf_ktime_get_ns`).
#![no_std]

mod config;
mod counters;
#[cfg(feature = "user")]
mod decoded;
mod hold;
mod offsets;
#[cfg(feature = "user")]
mod pod;
mod process;
mod record;
mod stack;

pub use config::*;
pub use counters::*;
pub use hold::*;
pub use offsets::*;
pub use process::*;
pub use record::*;
pub use stack::*;
