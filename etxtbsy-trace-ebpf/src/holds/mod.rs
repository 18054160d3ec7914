//! Tables in the kernel: who holds files open for writing, and who runs which program.
//!
//! Here belongs what an event that did not fail does to the maps of holds and runs: one file per event, over
//! the tables ([`table`], [`runs`]). What a failed call reads of them belongs in [`crate::failure`]. How an
//! event arrives does not matter here: functions take tasks, fds and pointers, not contexts of programs.

pub(crate) mod close;
pub(crate) mod copies;
pub(crate) mod dup;
pub(crate) mod exec;
pub(crate) mod exit;
pub(crate) mod fd_table_copy;
pub(crate) mod fork;
pub(crate) mod last_drop;
pub(crate) mod open;
pub(crate) mod origin;
pub(crate) mod pending_release;
pub(crate) mod reaped;
pub(crate) mod received;
mod repair;
pub(crate) mod runs;
pub(crate) mod snapshot;
pub(crate) mod table;
mod table_walk;
