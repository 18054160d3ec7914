//! The attach points: what the kernel calls, and what each of them takes from its context.
//!
//! Here belongs a function for each program that is attached to a tracepoint or is the target of a tail
//! call. It reads its context, calls a core in [`crate::holds`] or [`crate::failure`] with plain values,
//! and makes the tail calls that the core asks for. What a hold or a failure is does not belong here:
//! another kind of program (fentry, tp_btf) would call the same cores.

mod calls;
mod close;
mod compat;
mod context;
mod dup;
mod exec;
mod exit;
mod fork;
mod io_uring;
mod open;
mod received;
mod tail_calls;
mod unshare;
mod wait;
mod write_refused;
