//! The tracer on the live kernel, with real processes. Tests that trace need root, and are skipped
//! without.
//!
//! With `ETXTBSY_TRACE_RACE_SECONDS=60`, each race runs for that long instead of for a few failures.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that panics has failed")]

mod action;
mod check;
mod command;
mod containers;
mod contexts;
mod demos;
mod faults;
mod fuse;
mod hostile;
mod hunt;
mod kernel_keeps;
mod leftovers;
mod losses;
mod mixed;
mod near_misses;
mod outputs;
mod precision;
mod provoke;
mod races;
mod recipes;
mod recording_files;
mod reuse;
mod rights;
mod roles;
mod scenes;
mod stacks;
mod storms;
mod suites;
mod support;
