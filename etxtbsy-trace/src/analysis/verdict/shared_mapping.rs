//! A mapping of the file.

use super::Rule;
use crate::analysis::verdict::words::{name, release};
use crate::event::{Holder, Incident, VerdictKind, Via};

/// A memory mapping refers to the open file description, and keeps it after its last fd was
/// closed. Private and read-only mappings do so too, if the file was opened for writing.
///
/// > indexer[77] maps the file through an fd that was open for writing; the mapping keeps the file
/// > open although the fd is closed; indexer[77] unmapped the file 800 µs after the failure
pub(super) struct SharedMapping;

impl Rule for SharedMapping {
    const KIND: VerdictKind = VerdictKind::SharedMapping;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        incident.holders.iter().find(|holder| holder.via == Via::Mapping)
    }

    fn summary(&self, _incident: &Incident, culprit: &Holder) -> String {
        let process = name(culprit);
        format!(
            "{process} maps the file through an fd that was open for writing; the mapping keeps \
             the file open although the fd is closed; {}",
            release(&process, culprit)
        )
    }
}
