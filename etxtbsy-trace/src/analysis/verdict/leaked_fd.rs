//! A process keeps a write fd that it inherited.

use super::{Rule, inherited};
use crate::analysis::verdict::{
    inherited::Inherited,
    words::{ancestor, is_victim, name, release},
};
use crate::event::{Holder, Incident, State, VerdictKind};

/// A process keeps an inherited write fd that an exec left open, or would leave open.
///
/// > sleep[99] inherited fd 5 from sh[98] and kept it through an exec: the fd is not close-on-exec;
/// > sleep[99] still held the file when this was written
pub(super) struct LeakedFd;

impl Rule for LeakedFd {
    const KIND: VerdictKind = VerdictKind::LeakedFd;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        let leaks = |holder: &&Holder| inherited::of(incident, holder) == Some(Inherited::Leaked);
        incident.holders.iter().find(leaks)
    }

    fn summary(&self, incident: &Incident, culprit: &Holder) -> String {
        let process = name(culprit);
        let same =
            if is_victim(incident, culprit) { ", the process whose exec failed," } else { "" };
        let fd = culprit.fds.first();
        let from = match &culprit.forked {
            Some(forked) => format!("from {}", ancestor(culprit, forked.pid)),
            None => "from another process".to_owned(),
        };
        let number = fd.map_or_else(|| "an fd".to_owned(), |fd| format!("fd {}", fd.fd));
        let state = match culprit.state {
            State::Running => " and kept it through an exec",
            State::InFork => " and its fork was not complete",
            State::Exiting => " and was exiting",
            _ => " and has not exec'd",
        };
        let why = match fd.and_then(|fd| fd.cloexec) {
            Some(false) => ": the fd is not close-on-exec",
            _ => "",
        };
        format!(
            "{process}{same} inherited {number} {from}{state}{why}; {}",
            release(&process, culprit)
        )
    }
}
