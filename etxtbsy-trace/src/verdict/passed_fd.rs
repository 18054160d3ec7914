//! The fd was handed from one process to another.

use super::{Rule, ancestor, is_opener, release, who};
use crate::lines::{Holder, Incident, VerdictKind, Via};

/// A process that did not open the file and did not inherit the fd: it was sent over a unix
/// socket (SCM_RIGHTS), or fetched with `pidfd_getfd`.
///
/// > worker[99] had got fd 7 from another process; it was opened by thread 98 of server[98]
pub(super) struct PassedFd;

impl Rule for PassedFd {
    const KIND: VerdictKind = VerdictKind::PassedFd;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        incident.holders.iter().find(|holder| holder.via == Via::Passed && !is_opener(holder))
    }

    fn summary(&self, _incident: &Incident, culprit: &Holder) -> String {
        let process = who(culprit.comm.as_deref(), culprit.pid);
        let number = culprit.fds.first().map_or_else(String::new, |fd| format!(" {}", fd.fd));
        let opened = match &culprit.opened {
            Some(opened) => format!(
                "; thread {} of {} had opened it for writing",
                opened.tid,
                ancestor(culprit, opened.pid)
            ),
            None => String::new(),
        };
        format!(
            "{process} had got fd{number} from another process (over a unix socket, or by pidfd_getfd){opened}; it held the file {}",
            release(culprit)
        )
    }

    fn advice(&self, _incident: &Incident, culprit: &Holder) -> Vec<String> {
        let process = who(culprit.comm.as_deref(), culprit.pid);
        vec![
            format!("have {process} close the fd, and say so, before the file is executed"),
            "or pass an fd that was opened read-only: once the file is written, reopen it, and send that".to_owned(),
            "no help: closing the fd in the process that opened it, O_CLOEXEC, a lock round fork and exec: the fd did not come by a fork".to_owned(),
        ]
    }
}
