//! `hunt`: runs a command again and again under one tracer.
//!
//! A process of its own, the launcher ([`launcher`]), starts the command each time: it was forked before tracing
//! began, so that it has one thread and all privileges. It is the root of the traced tree. This side decides which
//! run is next ([`plan`]), and when it is over ([`search`]). The end of the hunt is a table ([`table`]) and the
//! comparison with an earlier hunt ([`compare`]).
//!
//! Here: the runs, and what they came to. Not here: one run of a command (`command`), its delays (`provoke`), tracing
//! (`session`).

mod collected;
pub mod compare;
pub mod launcher;
pub mod plan;
mod progress;
pub mod search;
pub mod table;
