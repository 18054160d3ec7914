//! Direction `write`: the file is being run.

use super::Rule;
use crate::analysis::verdict::words::{name, release, span, who};
use crate::event::{Direction, Holder, Incident, Place, State, VerdictKind};

/// An open for writing or a truncate failed because processes run the file.
///
/// > server[77] runs the file, and so do 3 other processes; a running program cannot be written;
/// > server[77] exited 2.10 s after the failure
pub(super) struct RunningExecutable;

impl Rule for RunningExecutable {
    const KIND: VerdictKind = VerdictKind::RunningExecutable;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        (incident.direction == Direction::Write).then(|| incident.holders.first()).flatten()
    }

    fn summary(&self, incident: &Incident, culprit: &Holder) -> String {
        let process = name(culprit);
        let same = if super::words::is_victim(incident, culprit) {
            ", the process that wants to write it,"
        } else {
            ""
        };
        let state = match (culprit.state, &culprit.script) {
            (State::InExec, _) => " is in an exec of the file",
            (State::Exiting, _) => " runs the file and is exiting",
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
            1 => ", and so does one other process".to_owned(),
            others => format!(", and so do {others} other processes"),
        };
        let entry = incident.unheld.iter().find(|unheld| unheld.place == Place::BinfmtMisc);
        let entry = entry.and_then(|entry| entry.device.as_deref());
        let entry =
            entry.map(|entry| format!(" (and the binfmt_misc entry {entry} keeps it open)"));
        let others = others + &entry.unwrap_or_default();
        let repaired = match &incident.repaired {
            Some(_) => {
                "; the process whose call failed then created the file again, so there is nothing to fix"
            }
            None => "",
        };
        format!(
            "{process}{same}{state}{since}{by}{others}; a running program cannot be written; \
             {}{repaired}",
            release(&process, culprit)
        )
    }
}
