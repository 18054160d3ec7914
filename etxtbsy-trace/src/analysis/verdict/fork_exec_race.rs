//! golang/go#22315.

use super::{Rule, inherited};
use crate::analysis::verdict::{
    inherited::Inherited,
    words::{ancestor, is_victim, name, release, span, thread},
};
use crate::event::{Holder, Incident, State, VerdictKind};

/// How long after its fork it is worth saying that a child has not exec'd.
const LATE_NS: u64 = 1_000_000_000;

/// An inherited write fd in a child that had not got through its exec.
///
/// > true[812] inherited the write fd when thread 7 of build[800] forked it, while thread 3 had the
/// > file open; it held the copy and exec'd 180 µs after the failure
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
            if is_victim(incident, culprit) { ", the very process whose exec failed," } else { "" };
        let forked = match &culprit.forked {
            Some(forked) => {
                let by = thread(ancestor(culprit, forked.pid), forked.pid, forked.tid);
                format!("when {by} forked it")
            }
            None => "when it was forked".to_owned(),
        };
        let opened = match &culprit.opened {
            Some(opened) if Some(opened.pid) == culprit.forked.as_ref().map(|it| it.pid) => {
                format!(", while thread {} had the file open for writing", opened.tid)
            }
            Some(opened) => format!(
                ", while {} had the file open for writing",
                super::words::opener(culprit, opened)
            ),
            None => ", while the file was open for writing".to_owned(),
        };
        let age = culprit
            .forked
            .as_ref()
            .map(|forked| incident.time_ns.saturating_sub(forked.time_ns))
            .filter(|age| *age >= LATE_NS);
        let state = match (culprit.state, age) {
            (State::InFork, _) => "; the child was still being made".to_owned(),
            (State::ExecClosing, _) => {
                "; its exec had taken the fd away, but the kernel had not dropped the file yet"
                    .to_owned()
            }
            (State::Running, _) => {
                "; it is a helper that closes what it inherited before it runs the real program"
                    .to_owned()
            }
            (State::Forked, Some(age)) => format!("; it had not exec'd {} later", span(age)),
            _ => String::new(),
        };
        format!(
            "{child}{same} inherited the write fd {forked}{opened}{state}; it held the copy {}",
            release(culprit)
        )
    }
}
