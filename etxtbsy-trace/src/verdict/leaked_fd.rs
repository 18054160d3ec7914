//! A write fd that went along into a process that has no use for it.

use super::{Rule, ancestor, is_opener, release, who};
use crate::lines::{Holder, Incident, VerdictKind, Via};
use crate::output::other_pids;

/// A process that exec'd or lives on holds the file, because the fd was not close-on-exec or
/// because it never exec'd.
///
/// > sleep[99] inherited fd 5 from sh[98] when it was forked and kept it through its exec: the fd
/// > is not close-on-exec; and holds it still
pub(super) struct LeakedFd;

impl Rule for LeakedFd {
    const KIND: VerdictKind = VerdictKind::LeakedFd;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        incident.holders.iter().find(|holder| {
            matches!(holder.via, Via::Fork | Via::Dup | Via::Open) && !is_opener(holder)
        })
    }

    fn summary(&self, _incident: &Incident, culprit: &Holder) -> String {
        let process = who(culprit.comm.as_deref(), culprit.pid);
        let fd = culprit.fds.first();
        let from = match &culprit.forked {
            Some(forked) => format!("from {} when it was forked", ancestor(culprit, forked.pid)),
            None => "from a process before it".to_owned(),
        };
        let number = fd.map_or_else(|| "an fd".to_owned(), |fd| format!("fd {}", fd.fd));
        let why = match fd.and_then(|fd| fd.cloexec) {
            Some(false) => "the fd is not close-on-exec",
            Some(true) => "the fd is close-on-exec, but it has not exec'd",
            None => "and kept it",
        };
        format!(
            "{process} inherited {number} {from}: {why}; it holds the file for writing without need, {}",
            release(culprit)
        )
    }

    fn advice(&self, _incident: &Incident, culprit: &Holder) -> Vec<String> {
        let opener = match &culprit.opened {
            Some(opened) => format!("thread {} of {}", opened.tid, ancestor(culprit, opened.pid)),
            None => "the process that opens the file".to_owned(),
        };
        let cloexec = culprit.fds.first().and_then(|fd| fd.cloexec);
        let first = match (culprit.via, cloexec) {
            (Via::Dup, Some(false)) => "make the copy close-on-exec: dup3 with O_CLOEXEC or fcntl(F_DUPFD_CLOEXEC); dup, dup2 and F_DUPFD drop it".to_owned(),
            (_, Some(true)) => format!(
                "close the fd in {} (close_range) as soon as it is forked: close-on-exec does nothing for a process that does not exec",
                who(culprit.comm.as_deref(), culprit.pid)
            ),
            _ => format!(
                "the open in {opener} lacked O_CLOEXEC (or the fd was duplicated without): add it there"
            ),
        };
        let process = who(culprit.comm.as_deref(), culprit.pid);
        let here = other_pids(culprit.pid, culprit.local_pid, None);
        vec![
            first,
            format!(
                "to free the file now: end {}",
                [process].into_iter().chain(here).collect::<Vec<_>>().join(", ")
            ),
            "no help: retrying, fsync, rename after writing: it holds the file as long as it lives"
                .to_owned(),
        ]
    }
}
