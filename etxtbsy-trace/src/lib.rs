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
//! 5. [`provoke`]: delays that make the race likely
//! 6. [`command`]: the traced command of `run`
//! 7. [`analysis`]: from records to an answer
//! 8. [`timeline`]: who did what when, as plain values
//! 9. [`output`]: text, JSON, and recordings
//! 10. [`report`]: one report from many recordings
//! 11. [`session`]: the loop
//! 12. [`hunt`]: a command again and again
//! 13. [`tui`]: the view
//! 14. [`check`]: what this machine can do
//! 15. [`demo`]: failures on purpose
//! 16. [`cli`]: options and subcommands

pub mod text;
pub use etxtbsy_trace_event as event;
pub mod analysis;
pub mod check;
pub mod cli;
pub mod command;
pub mod demo;
pub mod host;
pub mod hunt;
pub mod output;
pub mod provoke;
pub mod report;
pub mod session;
pub mod timeline;
pub mod tracer;
pub mod tui;
