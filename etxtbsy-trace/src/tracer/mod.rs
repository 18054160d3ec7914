//! The kernel side as seen from user space: finding field offsets, loading and attaching the
//! programs, and reading their records.
//!
//! Here: all that touches the programs, maps and the ring buffer. Not here: what a record means (`analysis`).

pub mod backend;
pub mod calibrate;
mod dormant;
pub mod features;
pub mod layout;
pub mod loader;
pub mod lockdown;
pub mod memlock;
mod mounts;
pub mod nofile;
mod numbers;
mod object;
pub mod offsets;
pub mod perf_event;
pub mod programs;
mod queries;
pub mod reaper;
pub mod records;
mod stack_copies;
pub mod tracefs;

pub use backend::{Backend, ExecCounts};
pub use loader::Tracer;
pub use stack_copies::StacksWanted;
