//! The public model of etxtbsy-trace: the JSON lines and their words.
//!
//! Names and meanings are the project's contract with scripts (docs/json.md). Bytes that are not
//! UTF-8 are written lossily under `<key>`, and exactly, as base64, under `<key>_b64` ([`bytes`] makes
//! both). A value that is not known is `None`, written as `null`.
//!
//! A later version may write words that this one does not know: each set of words has an `Other` for
//! them. The schema leaves `Other` out, because the tracer never writes it.
//!
//! Here: types that are written or read as lines, and what follows from the types alone. Not here: how
//! a value is found (`etxtbsy-trace`'s `analysis`), and how it is shown (`output`, `tui`).

pub mod bytes;
pub mod check;
mod context;
mod holder;
mod incident;
pub mod later_word;
mod near_miss;
mod own_frames;
mod session;
mod stack;
mod unheld;
mod verdict;
pub mod weight;

pub use context::Context;
pub use holder::{Evidence, Fd, Forked, Holder, How, Opened, Released, Runtime, State, Via};
pub use incident::{
    Ancestor, BusyFile, Direction, Incident, LeftOut, Reason, Repaired, Role, Suspect, Victim,
};
pub use near_miss::NearMiss;
pub use own_frames::own_frames;
pub use session::{
    Execs, Filter, Hunt, LossKind, Lost, Meta, Provoke, Refusal, Run, Runs, Summary, TreeRole,
};
pub use stack::Frame;
pub use unheld::{Place, Unheld};
pub use verdict::{Shortfall, Verdict, VerdictKind};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// All values of `type`.
pub const TYPES: [&str; 6] = ["meta", "incident", "near_miss", "refusal", "lost", "summary"];

/// The version of the lines, in `meta.schema`.
pub const SCHEMA: u32 = 2;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Line {
    /// The first line: what was traced, by which program, and where.
    Meta(Meta),
    /// One failed call.
    Incident(Box<Incident>),
    /// An exec that succeeded, but may have failed.
    #[serde(rename = "near_miss")]
    NearMiss(Box<NearMiss>),
    /// Calls that failed with ETXTBSY and are only counted.
    Refusal(Refusal),
    /// Something was lost.
    Lost(Lost),
    /// The last line.
    Summary(Summary),
}

impl From<Incident> for Line {
    fn from(incident: Incident) -> Self {
        Self::Incident(Box::new(incident))
    }
}

impl From<Meta> for Line {
    fn from(meta: Meta) -> Self {
        Self::Meta(meta)
    }
}
