//! golang/go#22315.

use super::{Rule, inherited};
use crate::analysis::verdict::{
    inherited::Inherited,
    words::{ancestor, is_victim, name, release, span, thread},
};
use crate::event::{Holder, Incident, State, VerdictKind};

/// From this age on, the summary says how long a child has not exec'd.
const LATE_NS: u64 = 1_000_000_000;

/// A child inherited a write fd and had not completed its exec.
///
/// > true[812] inherited the write fd: thread 807 of build[800] forked it while thread 803 had the
/// > file open for writing; true[812] released the file by its exec 180 µs after the failure
pub(super) struct ForkExecRace;

impl Rule for ForkExecRace {
    const KIND: VerdictKind = VerdictKind::ForkExecRace;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        let races = |holder: &&Holder| inherited::of(incident, holder) == Some(Inherited::Racing);
        incident.holders.iter().find(races)
    }

    fn summary(&self, incident: &Incident, culprit: &Holder) -> String {
        let child = name(culprit);
        let same =
            if is_victim(incident, culprit) { ", the process whose exec failed," } else { "" };
        let forked = match &culprit.forked {
            Some(forked) => {
                let by = thread(ancestor(culprit, forked.pid), forked.pid, forked.tid);
                format!("{by} forked it")
            }
            None => "it was forked".to_owned(),
        };
        let opened = match &culprit.opened {
            Some(opened) if Some(opened.pid) == culprit.forked.as_ref().map(|it| it.pid) => {
                format!("while thread {} had the file open for writing", opened.tid)
            }
            Some(opened) => format!(
                "while {} had the file open for writing",
                super::words::opener(culprit, opened)
            ),
            None => "while the file was open for writing".to_owned(),
        };
        let age = culprit
            .forked
            .as_ref()
            .map(|forked| incident.time_ns.saturating_sub(forked.time_ns))
            .filter(|age| *age >= LATE_NS);
        let state = match (culprit.state, age) {
            (State::InFork, _) => "; at the failure, the fork was not complete".to_owned(),
            (State::ExecClosing, _) => "; at the failure, its exec had closed the fd, but the \
                                        kernel had not released the file yet"
                .to_owned(),
            (State::Running, _) => {
                "; it runs a helper that closes inherited fds before it execs the real program"
                    .to_owned()
            }
            (State::Forked, Some(age)) => {
                format!("; it had not exec'd {} after its fork", span(age))
            }
            _ => String::new(),
        };
        format!(
            "{child}{same} inherited the write fd: {forked} {opened}{state}; {}",
            release(&child, culprit)
        )
    }
}
