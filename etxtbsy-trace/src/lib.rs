//! Says who held the write fd that made an exec fail with ETXTBSY ("Text file busy").
//!
//! Data goes one way: kernel events ([`kernel`]) → [`ledger`] → [`attribution`] → [`incident`] →
//! [`verdict`] → [`output`]. [`session`] drives it; the rest is the command line's.

pub mod attribution;
pub mod binfmt_misc;
pub mod bounds;
pub mod check;
pub mod cli;
pub mod command;
pub mod demo;
pub mod incident;
pub mod kernel;
pub mod ledger;
pub mod lines;
pub mod login;
pub mod lookup;
pub mod loop_device;
pub mod memory;
pub mod opening;
pub mod output;
pub mod output_file;
pub mod pids;
pub mod planted;
pub mod process;
pub mod replay;
pub mod rights;
pub mod running;
pub mod runtime;
pub mod schema;
pub mod session;
pub mod stdio;
pub mod sudo;
pub mod teach;
pub mod trace;
pub mod tree;
pub mod tui;
pub mod user;
pub mod verdict;
pub mod word;
pub mod workload;
