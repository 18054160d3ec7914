//! A write fd that went along into a process that has no use for it.

use super::{Rule, inherited};
use crate::analysis::verdict::{
    inherited::Inherited,
    words::{ancestor, is_victim, name, release},
};
use crate::event::{Holder, Incident, State, VerdictKind};

/// A process lives on with a write fd that it inherited: an exec left it open, or it is one that an
/// exec would leave open.
///
/// > sleep[99] inherited fd 5 from sh[98] and has run another program since: the fd is not
/// > close-on-exec; it holds the file without need, and still had it when this was written
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
            if is_victim(incident, culprit) { ", the very process whose exec failed," } else { "" };
        let fd = culprit.fds.first();
        let from = match &culprit.forked {
            Some(forked) => format!("from {}", ancestor(culprit, forked.pid)),
            None => "from a process before it".to_owned(),
        };
        let number = fd.map_or_else(|| "an fd".to_owned(), |fd| format!("fd {}", fd.fd));
        let state = match culprit.state {
            State::Running => " and has run another program since",
            State::InFork => " and was still being made",
            State::Exiting => " and was ending",
            _ => " and has not exec'd",
        };
        let why = match fd.and_then(|fd| fd.cloexec) {
            Some(false) => ": the fd is not close-on-exec",
            _ => "",
        };
        format!(
            "{process}{same} inherited {number} {from}{state}{why}; it holds the file for writing \
             without need, {}",
            release(culprit)
        )
    }
}
