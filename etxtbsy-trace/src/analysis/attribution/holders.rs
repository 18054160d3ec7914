//! The processes behind the facts.

use etxtbsy_trace_common::{Actor, Hold, How, NO_FD, Stage, Via};

use super::{
    hold_fact::{HoldFact, Standing, how},
    outcome::{Held, HeldFd},
};
use crate::{analysis::case::Case, event::Evidence};

/// The processes that held a description, by what is known of each; `evidence` is that of all, if they are
/// named by elimination.
pub(super) fn held(facts: Vec<HoldFact>, evidence: Option<Evidence>, case: &Case) -> Vec<Held> {
    let mut holders: Vec<Held> = Vec::new();
    for fact in facts {
        let fd = HeldFd { fd: fact.hold.fd, flags: fact.hold.flags, cloexec: fact.cloexec };
        // An fd that is gone is none; what keeps the description is said instead.
        let is_gone = fd.fd == NO_FD || fact.pinned_by.is_some();
        let fds = if is_gone { vec![] } else { vec![fd] };
        let released = released(&fact, case);
        let evidence = match evidence {
            Some(evidence) => evidence,
            None if fact.standing == Standing::After => Evidence::Elimination,
            None => fact.evidence.unwrap_or(Evidence::Elimination),
        };
        if let Some(held) = holders.iter_mut().find(|held| held.tgid == fact.hold.tgid) {
            held.fds.extend(fds);
            held.fds.sort_by_key(|fd| fd.fd);
            // The same fd of several tables.
            held.fds.dedup_by_key(|fd| fd.fd);
            held.released = match (held.released, released) {
                (Some(a), Some(b)) => Some(if a.1 >= b.1 { a } else { b }),
                _ => None,
            };
            if held.evidence == Evidence::Elimination {
                held.evidence = evidence;
            }
            if held.via == Via::Dup {
                held.via = via(&fact.hold, case);
            }
            continue;
        }
        let known = |actor: Actor| (actor.time_ns != 0).then_some(actor);
        let start_ns = fact.seen.map_or(0, |seen| seen.start_ns);
        holders.push(Held {
            tgid: fact.hold.tgid,
            ppid: fact.hold.ppid,
            start_ns: if start_ns == 0 { fact.hold.start_ns } else { start_ns },
            fds,
            via: via(&fact.hold, case),
            evidence,
            call: fact.call,
            state: fact.state(case.failure.exit_ns),
            execed: fact.hold.execed != 0,
            opened: known(fact.hold.opened),
            closed_ns: (fact.closed_ns != 0 && fact.hold.opened.time_ns != 0)
                .then_some(fact.closed_ns),
            forked: known(fact.hold.forked),
            released,
            seen: fact.seen,
        });
    }
    holders
}

/// How and when a hold ended. Where the fd had gone before the failure, that is when the kernel
/// was found to have dropped the file, or the failure itself if it did so about then.
fn released(fact: &HoldFact, case: &Case) -> Option<(How, u64)> {
    let exit = case.failure.exit_ns;
    let hold = &fact.hold;
    let dropped = case.dropped.get(&(hold.file, hold.tgid));
    let ended = case
        .released
        .iter()
        .find(|change| change.hold.is(hold))
        .map(|change| (how(&change.hold).unwrap_or(How::None), change.hold.released_ns))
        .or(fact.end);
    if hold.via() == Some(Via::Mapping) {
        return dropped
            .map(|drop| (if drop.exiting { How::Exit } else { How::Unmap }, drop.time_ns));
    }
    if fact.pinned_by.is_some() {
        let by = how(hold).unwrap_or(How::Close);
        return dropped.map(|drop| (if drop.exiting { How::Exit } else { by }, drop.time_ns));
    }
    let over = hold.stage() == Some(Stage::Released);
    if over && hold.released_ns <= exit {
        let by = how(hold).unwrap_or(How::None);
        if fact.fput_pending {
            return dropped.map(|drop| (by, drop.time_ns));
        }
        return Some((by, exit));
    }
    if over {
        return Some((how(hold).unwrap_or(How::None), hold.released_ns));
    }
    // A process that shares the table may end before the fd does.
    let end = dropped.map(|drop| (How::Exit, drop.time_ns)).filter(|_| ended.is_none());
    ended
        .filter(|(_, time_ns)| *time_ns > exit)
        .or(end)
        .or_else(|| case.gone.get(&hold.place()).map(|time_ns| (How::None, *time_ns)))
}

/// Whether a holder could have its fd by a fork.
fn is_later_child(hold: &Hold) -> bool {
    hold.ppid == hold.opened.tgid && hold.start_ns > hold.opened.time_ns
}

fn via(hold: &Hold, case: &Case) -> Via {
    match hold.via().filter(|via| *via != Via::Unknown) {
        Some(via) => via,
        None if hold.opened.time_ns == 0 => Via::Unknown,
        // It opened the file itself: straight into an io_uring, say.
        None if hold.opened.tgid == hold.tgid => Via::Open,
        // A child of the opener's, forked since: that may have been missed.
        None if case.passed_over && is_later_child(hold) => Via::Unknown,
        // Opens, forks and dups are seen: it came by a message, or was taken.
        None => Via::Passed,
    }
}
