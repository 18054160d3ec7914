//! What a call that failed with ETXTBSY makes the programs do, before it returns.
//!
//! Two directions: an exec was refused because somebody holds the file ([`exec_failed`], then [`candidates`],
//! then, if some are missing, [`search`]); a write was refused because somebody runs it ([`write_refused`],
//! then [`resolve`], then [`runners`]). All keep what they know of the failure in `SEARCHES`, and end in
//! [`outcome`]. How a hold or a run comes about belongs in [`crate::holds`].

pub(crate) mod candidates;
pub(crate) mod exec_failed;
pub(crate) mod io_uring;
mod mappings;
pub(crate) mod near_miss;
pub(crate) mod other_calls;
pub(crate) mod outcome;
mod pinned;
mod references;
pub(crate) mod resolve;
pub(crate) mod runners;
pub(crate) mod search;
mod unnoted;
pub(crate) mod write_refused;
