//! The traced command of `run`. It waits before its exec until tracing is live; otherwise it runs as
//! if the shell had started it. It has the tracer's process group and terminal, and the fds that the
//! tracer's caller passed. The tracer's own fds are all close-on-exec.
//!
//! Here: the process of the command, from its fork to its exit status. Not here: tracing it (`session`), and as whom
//! it runs (`host::identity`).

mod child;
mod error;
mod plan;
mod prepared;
mod signals;
mod started;
mod strings;

pub use self::{error::ExecError, prepared::Prepared, signals::FORWARDED, started::Started};

#[cfg(test)]
mod tests;
