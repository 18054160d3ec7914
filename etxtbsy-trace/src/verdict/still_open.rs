//! The opener has not closed the file.

use super::{Rule, is_opener, release, who};
use crate::lines::{Holder, Incident, VerdictKind, Via};

/// The process that opened the file for writing still has it open; or one that has had it open
/// since before tracing began, which may have opened it.
///
/// > install[77] itself still had the file open for writing (fd 5), and closed it 2.1 ms after
/// > the failure
pub(super) struct StillOpen;

impl Rule for StillOpen {
    const KIND: VerdictKind = VerdictKind::StillOpen;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        let has = |holder: &&Holder| is_opener(holder) && holder.via != Via::Mapping;
        // Of what was opened since, the opener is known.
        let had = |holder: &&Holder| holder.via == Via::Unknown && holder.opened.is_none();
        incident.holders.iter().find(|holder| has(holder) || had(holder))
    }

    fn summary(&self, incident: &Incident, culprit: &Holder) -> String {
        let process = who(culprit.comm.as_deref(), culprit.pid);
        let fds = culprit.fds.iter().map(|fd| fd.fd.to_string()).collect::<Vec<_>>().join(", ");
        let place = if fds.is_empty() {
            "as a registered file of an io_uring".to_owned()
        } else {
            format!("fd {fds}")
        };
        let same = if culprit.pid == incident.victim.pid {
            ", the very process that failed to exec it,"
        } else {
            ""
        };
        let opened = if is_opener(culprit) {
            "which opened the file for writing, still had it open"
        } else {
            "had the file open for writing from before tracing began, or on a way that was not seen"
        };
        let comma = if is_opener(culprit) && same.is_empty() { "," } else { "" };
        format!("{process}{same}{comma} {opened} ({place}), {}", release(culprit))
    }

    fn advice(&self, _incident: &Incident, culprit: &Holder) -> Vec<String> {
        let process = who(culprit.comm.as_deref(), culprit.pid);
        vec![
            format!("close the file in {process} before it is executed, and let the exec wait for that close"),
            "or write to another name and rename it into place after the close, so that nobody executes a file that is being written".to_owned(),
            "no help: fsync, chmod, a fixed sleep".to_owned(),
        ]
    }
}
