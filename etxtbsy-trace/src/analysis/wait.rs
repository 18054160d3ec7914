//! How long a file stayed busy after a failure.

use crate::event::{Holder, Incident};

/// Until when the file was busy; the longest is the greatest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wait {
    /// Nobody is known to have held it.
    Unknown,
    /// The last known holder dropped the file that many nanoseconds after the failure.
    Over(u64),
    /// Somebody still held it.
    Endless,
}

impl Wait {
    /// How long a retry of this call would have had to wait.
    #[must_use]
    pub fn of(incident: &Incident) -> Self {
        let after = |holder: &Holder| {
            let released = holder.released.as_ref()?;
            Some(released.after_ns.max(0).unsigned_abs())
        };
        let all: Option<Vec<u64>> = incident.holders.iter().map(after).collect();
        match all.map(|waits| waits.into_iter().max()) {
            None => Self::Endless,
            Some(None) => Self::Unknown,
            Some(Some(longest)) => Self::Over(longest),
        }
    }
}
