//! A mapping of the file.

use super::Rule;
use crate::analysis::verdict::words::{name, release};
use crate::event::{Holder, Incident, VerdictKind, Via};

/// A memory mapping refers to the open file description, and keeps it after its last fd was
/// closed. Private and read-only mappings do so too, if the file was opened for writing.
///
/// > indexer[77] maps the file through an fd that was open for writing and is closed since
pub(super) struct SharedMapping;

impl Rule for SharedMapping {
    const KIND: VerdictKind = VerdictKind::SharedMapping;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        incident.holders.iter().find(|holder| holder.via == Via::Mapping)
    }

    fn summary(&self, _incident: &Incident, culprit: &Holder) -> String {
        format!(
            "{} maps the file through an fd that was open for writing and is closed since, \
             which keeps the file open; it {}",
            name(culprit),
            release(culprit).trim_start_matches("and ")
        )
    }
}
