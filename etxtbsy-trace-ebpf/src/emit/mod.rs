//! Records for user space.
//!
//! Here belongs how a record is written: the ring buffer, texts, what is seen of a process, and whether there
//! is room. Which holds or runs a failure reports, and why, belongs in [`crate::failure`]; when a hold begins
//! or ends, in [`crate::holds`].

pub(crate) mod compat_request;
pub(crate) mod holder;
pub(crate) mod intake;
pub(crate) mod report;
pub(crate) mod ringbuf;
pub(crate) mod text;
pub(crate) mod victim;
