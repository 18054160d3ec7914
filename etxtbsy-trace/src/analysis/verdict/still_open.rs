//! The opener has not closed the file.

use super::{Rule, is_opener};
use crate::analysis::verdict::words::{is_victim, name, release};
use crate::event::{Holder, Incident, VerdictKind, Via};

/// The process that opened the file for writing still has it open; or a process that has had it
/// open since before tracing began, which may have opened it.
///
/// > install[77] opened the file for writing and still had it open (fd 5); it closed the file 2.10 ms
/// > after the failure
pub(super) struct StillOpen;

impl Rule for StillOpen {
    const KIND: VerdictKind = VerdictKind::StillOpen;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        let opens = |holder: &&Holder| is_opener(holder) && holder.via != Via::Mapping;
        // It shares the fd table of the opener.
        let has = |holder: &&Holder| opens(holder) || holder.via == Via::Open;
        // The tracer knows the opener of every file that was opened since it started.
        let had = |holder: &&Holder| holder.via == Via::Unknown && holder.opened.is_none();
        incident.holders.iter().find(|holder| has(holder) || had(holder))
    }

    fn summary(&self, incident: &Incident, culprit: &Holder) -> String {
        let same =
            if is_victim(incident, culprit) { ", the process whose exec failed," } else { "" };
        let (opened, origin) = if is_opener(culprit) {
            ("opened the file for writing and still had it open", "")
        } else if culprit.via == Via::Open {
            (
                "shares its fd table with the process that opened the file for writing, and still had it open",
                "",
            )
        } else {
            (
                "had the file open for writing",
                ", from before tracing began or in a way that was not seen",
            )
        };
        format!(
            "{}{same} {opened} ({}){origin}; {}",
            name(culprit),
            place(culprit),
            release("it", culprit)
        )
    }
}

/// What refers to the open file description.
pub(super) fn place(holder: &Holder) -> String {
    let fds = holder.fds.iter().map(|fd| fd.fd.to_string()).collect::<Vec<_>>().join(", ");
    match (&holder.call, fds.as_str()) {
        (Some(call), _) => format!("an unfinished {call} call keeps it"),
        (None, "") => "as a registered file of an io_uring".to_owned(),
        (None, fds) => format!("fd {fds}"),
    }
}
