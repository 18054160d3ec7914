//! The other direction: the file is being run.

use super::{Rule, release, who};
use crate::lines::{Direction, Holder, Incident, VerdictKind};

/// An open for writing or a truncate was refused, because processes run the file.
///
/// > server[77] runs the file, and 3 others do; server[77] ended 2.1 s after the failure
pub(super) struct RunningExecutable;

impl Rule for RunningExecutable {
    const KIND: VerdictKind = VerdictKind::RunningExecutable;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        (incident.direction == Direction::Write).then(|| incident.holders.first()).flatten()
    }

    fn summary(&self, incident: &Incident, culprit: &Holder) -> String {
        let process = who(culprit.comm.as_deref(), culprit.pid);
        let since = match culprit.exec_ns.and_then(|exec_ns| incident.time_ns.checked_sub(exec_ns))
        {
            Some(ago) => format!(", which exec'd it {} before the failure,", super::span(ago)),
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
        format!(
            "{process}{since} runs the file{by}{others}: what is being run cannot be written; {process} {}",
            release(culprit).trim_start_matches("and ")
        )
    }

    fn advice(&self, _incident: &Incident, _culprit: &Holder) -> Vec<String> {
        vec![
            "write the new file beside it and rename it into place: those that run the old one keep it".to_owned(),
            "or unlink the old file first and create it anew; a linker or installer that rewrites in place has an option for that, or does so when the output does not exist".to_owned(),
            "or end what runs it, and wait for that".to_owned(),
            "no help: chmod, truncating first (it is refused as well), fsync, retrying while the program goes on".to_owned(),
        ]
    }
}
