//! What keeps a description without a process, and who may be opening one.

use etxtbsy_trace_common::{Candidate, Hold, PinnedBy, SWAP_FILE, Stage, Via};

use super::{
    hold_fact::HoldFact,
    outcome::{Suspect, Unheld},
};
use crate::{
    analysis::case::{Case, Pin},
    event::Reason,
};

/// What of the kernel has a description of the file that no process opened, or whose opener has closed it.
pub(super) fn kernel_pin(case: &Case) -> Option<Pin> {
    // swapon(2) opens the file for itself; the flag is set from then on to swapoff(2).
    let is_swap_file = case.failure.inode_flags & SWAP_FILE != 0;
    let is_loop = |pin: &&Pin| matches!(pin, Pin::LoopDevice(_));
    let swap_file = is_swap_file.then_some(Pin::SwapFile);
    swap_file.or_else(|| case.pins.iter().find(is_loop).cloned())
}

/// What keeps descriptions that are not accounted for: something of the kernel, or something unknown, as far
/// as their openers are known.
pub(super) fn pinned_elsewhere(
    case: &Case,
    facts: &[HoldFact],
    pin: Option<Pin>,
    writers: Option<u32>,
    explained: u32,
    queued: &[u64],
) -> Vec<Unheld> {
    let unknown = || orphans(case, facts).filter(|hold| !queued.contains(&hold.file));
    match pin {
        Some(Pin::SwapFile) => {
            vec![Unheld { hold: Hold::default(), pin: Pin::SwapFile }]
        }
        Some(pin) => vec![Unheld { hold: unknown().next().unwrap_or_default(), pin }],
        None => {
            let missing = writers.map_or(0, |writers| writers.saturating_sub(explained));
            let holds = unknown().take(missing as usize);
            holds.map(|hold| Unheld { hold, pin: Pin::Unknown }).collect()
        }
    }
}

/// The descriptions that lie in a socket's queue, and what is to be said of them.
pub(super) fn queued(case: &Case) -> (Vec<u64>, Vec<Unheld>) {
    let (mut files, mut unheld) = (Vec::new(), Vec::new());
    for candidate in &case.candidates {
        let hold = candidate.hold;
        if candidate.pinned_by() == Some(PinnedBy::Queue)
            && hold.opened.time_ns <= case.failure.exit_ns
            && !files.contains(&hold.file)
        {
            files.push(hold.file);
            // One that a process has as well is held.
            let is_held = case.candidates.iter().any(|other| {
                other.hold.file == hold.file
                    && (other.in_table != 0 || other.hold.via() == Some(Via::Mapping))
            });
            if is_held {
                files.pop();
            } else {
                unheld.push(Unheld { hold, pin: Pin::SocketQueue });
            }
        }
    }
    (files, unheld)
}

/// The descriptions that something refers to, though no table and no mapping shows them, as their
/// openers' holds were.
fn orphans<'a>(case: &'a Case, facts: &'a [HoldFact]) -> impl Iterator<Item = Hold> + 'a {
    let outlived = |candidate: &&Candidate| {
        candidate.open != 0
            && candidate.in_table == 0
            && candidate.pinned_by().is_none()
            && candidate.hold.via() != Some(Via::Mapping)
            && candidate.hold.stage() == Some(Stage::Released)
            && (1..=case.failure.exit_ns).contains(&candidate.hold.opened.time_ns)
    };
    let holds = case.candidates.iter().filter(outlived).map(|candidate| candidate.hold);
    holds.filter(|hold| !facts.iter().any(|fact| fact.is_open() && fact.hold.file == hold.file))
}

/// Threads that were in a call that may have been opening the file.
pub(super) fn opening_suspects(case: &Case) -> Vec<Suspect> {
    let may_open = |candidate: &&Candidate| {
        candidate.pinned_by() == Some(PinnedBy::Opening)
            && case.may_open.contains(&candidate.tid)
            && !case.opening.contains(&candidate.tid)
    };
    case.candidates
        .iter()
        .filter(may_open)
        .map(|candidate| Suspect {
            tgid: candidate.hold.tgid,
            seen: (candidate.holder.ns_pid != 0).then_some(candidate.holder),
            reason: Reason::OpenUnderWay,
        })
        .collect()
}

/// How many references to what was open were not found, less those of children that were being made.
pub(super) fn missing_references(case: &Case, facts: &[HoldFact]) -> u32 {
    let children = case.acquired.iter().filter(|change| {
        change.hold.via() == Some(Via::Fork)
            && facts.iter().any(|fact| fact.is_open() && fact.hold.file == change.hold.file)
    });
    case.references.saturating_sub(children.count() as u32)
}
