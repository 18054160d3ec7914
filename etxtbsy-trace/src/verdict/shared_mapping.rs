//! A mapping of the file.

use super::{Rule, release, who};
use crate::lines::{Holder, Incident, VerdictKind, Via};

/// A memory mapping refers to the open file description, and keeps it after its last fd was
/// closed. Private and read-only mappings do so too, if the file was opened for writing.
///
/// > indexer[77] has the file mapped from an fd that was open for writing, and unmapped it 3 ms
/// > after the failure
pub(super) struct SharedMapping;

impl Rule for SharedMapping {
    const KIND: VerdictKind = VerdictKind::SharedMapping;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        incident.holders.iter().find(|holder| holder.via == Via::Mapping)
    }

    fn summary(&self, _incident: &Incident, culprit: &Holder) -> String {
        format!(
            "{} has the file mapped through an fd that was open for writing, and closed since; the mapping keeps it open, {}",
            who(culprit.comm.as_deref(), culprit.pid),
            release(culprit)
        )
    }

    fn advice(&self, _incident: &Incident, culprit: &Holder) -> Vec<String> {
        let process = who(culprit.comm.as_deref(), culprit.pid);
        vec![
            format!("munmap it in {process} before the file is executed: closing the fd is not enough"),
            "or, where the mapping is only read, open the file O_RDONLY for it: a private or read-only mapping of an O_RDWR fd keeps the file busy as well".to_owned(),
            "or write to another name, unmap, and rename it into place".to_owned(),
            "no help: msync, fsync, MAP_PRIVATE, mprotect, closing the fd earlier".to_owned(),
        ]
    }
}
