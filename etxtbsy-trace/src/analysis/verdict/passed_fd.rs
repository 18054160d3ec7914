//! One process passed the fd to another.

use super::{Rule, is_opener};
use crate::analysis::verdict::words::{name, opener, release};
use crate::event::{Holder, Incident, VerdictKind, Via};

/// A process that did not open the file and did not inherit the fd: another sent it over a unix
/// socket (SCM_RIGHTS), or it fetched it with `pidfd_getfd`.
///
/// > worker[99] got fd 7 from another process (over a unix socket, or by pidfd_getfd); server[98]
/// > had opened the file for writing; worker[99] closed the file 3.00 ms after the failure
pub(super) struct PassedFd;

impl Rule for PassedFd {
    const KIND: VerdictKind = VerdictKind::PassedFd;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        incident.holders.iter().find(|holder| holder.via == Via::Passed && !is_opener(holder))
    }

    fn summary(&self, _incident: &Incident, culprit: &Holder) -> String {
        let number = culprit.fds.first().map_or_else(String::new, |fd| format!(" {}", fd.fd));
        let opened = match &culprit.opened {
            Some(opened) => {
                format!("; {} had opened the file for writing", opener(culprit, opened))
            }
            None => String::new(),
        };
        let process = name(culprit);
        format!(
            "{process} got fd{number} from another process (over a unix socket, or by \
             pidfd_getfd){opened}; {}",
            release(&process, culprit)
        )
    }
}
