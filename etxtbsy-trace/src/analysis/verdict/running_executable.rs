//! The other direction: the file is being run.

use super::Rule;
use crate::analysis::verdict::words::{name, release, span, who};
use crate::event::{Direction, Holder, Incident, Place, State, VerdictKind};

/// An open for writing or a truncate was refused, because processes run the file.
///
/// > server[77] runs the file, and 3 other processes do; a running program cannot be written;
/// > server[77] ended 2.1 s after the failure
pub(super) struct RunningExecutable;

impl Rule for RunningExecutable {
    const KIND: VerdictKind = VerdictKind::RunningExecutable;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        (incident.direction == Direction::Write).then(|| incident.holders.first()).flatten()
    }

    fn summary(&self, incident: &Incident, culprit: &Holder) -> String {
        let process = name(culprit);
        let same = if super::words::is_victim(incident, culprit) {
            ", the very process that wants to write it,"
        } else {
            ""
        };
        let state = match (culprit.state, &culprit.script) {
            (State::InExec, _) => " is in its exec of the file",
            (State::Exiting, _) => " runs the file and is ending",
            (State::Forked, _) => " is a forked copy of a process that runs the file",
            (_, Some(_)) => " runs the file as the interpreter of a script",
            _ => " runs the file",
        };
        let exec_ns = culprit.exec_ns.filter(|_| culprit.state != State::InExec);
        let since = match exec_ns.and_then(|exec_ns| incident.time_ns.checked_sub(exec_ns)) {
            Some(ago) => format!(" (exec'd {} before the failure)", span(ago)),
            None => String::new(),
        };
        let by = match culprit.ancestors.first() {
            Some(parent) => format!(" (started by {})", who(parent.comm.as_deref(), parent.pid)),
            None => String::new(),
        };
        let others = match incident.holders.len() - 1 {
            0 => String::new(),
            1 => ", and one other process does".to_owned(),
            others => format!(", and {others} other processes do"),
        };
        let entry = incident.unheld.iter().find(|unheld| unheld.place == Place::BinfmtMisc);
        let entry = entry.and_then(|entry| entry.device.as_deref());
        let entry =
            entry.map(|entry| format!(" (and the binfmt_misc entry {entry} keeps it open)"));
        let others = others + &entry.unwrap_or_default();
        let repaired = match &incident.repaired {
            Some(_) => {
                "; the same process made the file anew at once, so nothing is left to repair"
            }
            None => "",
        };
        format!(
            "{process}{same}{state}{since}{by}{others}: a running program cannot be written; \
             {process} {}{repaired}",
            release(culprit).trim_start_matches("and ")
        )
    }
}
