//! Says who held the write fd that made an exec fail with ETXTBSY ("Text file busy").
//!
//! Data goes one way: kernel events ([`tracer`]) → ledger, incident, verdict ([`analysis`]) → [`output`] and
//! [`tui`]. [`session`] drives it. A folder imports only from those above it in this list (tests/layers.rs):

pub mod text;
pub use etxtbsy_trace_event as event;
pub mod analysis;
pub mod check;
pub mod cli;
pub mod command;
pub mod demo;
pub mod host;
pub mod output;
pub mod session;
pub mod timeline;
pub mod tracer;
pub mod tui;
