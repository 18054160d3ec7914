//! Says who held the write fd that made an exec fail with ETXTBSY ("Text file busy").
//!
//! Data goes one way: kernel events ([`tracer`]) → ledger, incident, verdict ([`analysis`]) → [`output`] and
//! [`tui`]. [`session`] drives it.
//!
//! A folder imports only from those before it in this list, which `xtask/src/layers.rs` tests:
//!
//! 1. [`text`]: quoting, times, words
//! 2. [`event`]: the JSON lines, a crate of its own
//! 3. [`host`]: /proc, users, privileges, files
//! 4. [`tracer`]: the eBPF programs and their maps
//! 5. [`command`]: the traced command of `run`
//! 6. [`analysis`]: from records to an answer
//! 7. [`timeline`]: who did what when, as plain values
//! 8. [`output`]: text, JSON, and recordings
//! 9. [`report`]: one report from many recordings
//! 10. [`session`]: the loop
//! 11. [`tui`]: the view
//! 12. [`check`]: what this machine can do
//! 13. [`demo`]: failures on purpose
//! 14. [`cli`]: options and subcommands

pub mod text;
pub use etxtbsy_trace_event as event;
pub mod analysis;
pub mod check;
pub mod cli;
pub mod command;
pub mod demo;
pub mod host;
pub mod output;
pub mod report;
pub mod session;
pub mod timeline;
pub mod tracer;
pub mod tui;
