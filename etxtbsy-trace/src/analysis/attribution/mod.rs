//! Who held the file when the exec failed.
//!
//! The exec was refused at some moment between its entry and its exit, because at least one open
//! file description had write access to the inode. Who held one is known by evidence that the kernel
//! side took at the exit: the fd in its table, a last reference that waits in a task's work, a mapping,
//! an object that refers to the description, an event on the other side of the failure. The kernel's
//! own count, `i_writecount`, says whether that is all.
//!
//! Where evidence is missing, a process is named by elimination only if the number of descriptions that
//! are not accounted for equals the number of those that can be it, and nothing was lost that could have
//! shown another. Anything else stays unexplained, with those that may have held the file as suspects.

mod descriptions;
mod hold_fact;
mod holders;
mod outcome;
mod unheld;

pub use self::outcome::{Attribution, Held, HeldFd, Suspect, Unheld};
use self::{
    descriptions::{Description, describe},
    hold_fact::{Standing, gather, span},
    holders::held,
    unheld::{kernel_pin, missing_references, opening_suspects, pinned_elsewhere, queued},
};
use crate::{
    analysis::case::Case,
    event::{Evidence, Reason},
};

/// Judges a case.
#[must_use]
pub fn attribute(case: &Case) -> Attribution {
    let (enter, _) = span(case);
    let facts = gather(case);
    // The kernel's count at the exit of the call; below zero is a count of those who run it.
    let count = u32::try_from(case.failure.writers).unwrap_or(0);
    let (queued, mut unheld) = queued(case);
    let mut there: Vec<Description> = Vec::new();
    let (mut came, mut after) = (Vec::new(), Vec::new());
    for description in describe(facts.iter().filter(|fact| fact.is_open())) {
        if queued.contains(&description.file) {
            continue;
        }
        match description.standing(enter) {
            Standing::There => there.push(description),
            Standing::Came => came.push(description),
            _ => after.push(description),
        }
    }
    let left = describe(facts.iter().filter(|fact| fact.standing == Standing::Left))
        .into_iter()
        .filter(|one| !facts.iter().any(|fact| fact.is_open() && fact.hold.file == one.file))
        .collect::<Vec<_>>();
    let mut unclear = describe(facts.iter().filter(|fact| fact.standing == Standing::Unclear));
    let over = (there.len() + queued.len()).saturating_sub(count as usize);
    if count > 0 && over > 0 {
        // `__fput` gives up the write access first, and frees the description at its end: some of these are
        // not in the count any more.
        let (mut dropping, open) =
            there.into_iter().partition::<Vec<_>, _>(Description::is_dropping);
        there = open;
        let still_over = over.saturating_sub(dropping.len());
        if dropping.len() > over {
            unclear.append(&mut dropping);
        }
        if still_over > 0 {
            // A thread that was on its processor when the call began may have opened it since.
            let (young, known) =
                there.into_iter().partition::<Vec<_>, _>(Description::is_of_no_age);
            there = known;
            after.extend(young);
        }
    }
    let recent = describe(facts.iter().filter(|fact| fact.standing == Standing::Recent));
    let shown = (there.len() + queued.len()) as u32;
    let pin = kernel_pin(case).filter(|_| count > shown);
    let kept = u32::from(pin.is_some());
    let open = count.saturating_sub(shown + kept);

    let mut holders = Vec::new();
    let mut suspects = Vec::new();
    let mut explained = shown + kept;
    let during = came.len() as u32;
    let seen_open = during + after.len() as u32;
    let may_be_open = seen_open + (unclear.len() + left.len()) as u32;
    let is_blind = case.lost || case.blind || !opening_suspects(case).is_empty();
    let eliminated = if explained > 0 && open == seen_open {
        // What was opened during the call is counted at its end; the cause is known.
        explained += open;
        there.append(&mut came);
        std::mem::take(&mut after)
    } else if is_blind {
        Vec::new()
    } else if open == may_be_open && (explained > 0 || during < may_be_open || during == 1) {
        // All that can be open is: what was closed during the call had not been dropped at its end.
        explained += open;
        let lists = [&mut after, &mut came].map(std::mem::take);
        lists.into_iter().flatten().chain(unclear.iter().chain(&left).cloned()).collect()
    } else if count == 0 && explained == 0 && may_be_open == 1 && left.len() == 1 {
        // At least one was open when the exec was refused.
        explained = 1;
        left.clone()
    } else if count <= 1 && explained == 0 && may_be_open == 0 && recent.len() == 1 {
        // Nothing else can have been the cause; it was dropped before it was looked at.
        explained = 1;
        recent.clone()
    } else {
        Vec::new()
    };
    if eliminated.is_empty() {
        suspects.extend(after.iter().map(|one| one.suspect(Reason::SeenAfter)));
        if explained == 0 {
            suspects.extend(came.iter().map(|one| one.suspect(Reason::CameDuring)));
            suspects.extend(left.iter().map(|one| one.suspect(Reason::LeftDuring)));
            suspects.extend(recent.iter().map(|one| one.suspect(Reason::LeftBefore)));
        }
        suspects.extend(unclear.iter().map(|one| one.suspect(Reason::LeftBefore)));
        suspects.extend(opening_suspects(case));
    }
    let references = missing_references(case, &facts);
    // A description of which others have references too is not accounted for.
    if references > 0 && explained >= count && !case.lost {
        explained = explained.saturating_sub(1);
    }
    for description in there {
        holders.extend(held(description.believed(), None, case));
    }
    for description in eliminated {
        holders.extend(held(description.facts, Some(Evidence::Elimination), case));
    }
    let writers = if case.failure.inode == 0 {
        None
    } else if count > 0 {
        Some(count)
    } else {
        // It was above zero when the exec was refused.
        (explained > 0).then_some(explained)
    };
    unheld.extend(pinned_elsewhere(case, &facts, pin, writers, explained, &queued));
    let contradicted = writers.is_some_and(|writers| explained > writers);
    explained = writers.map_or(explained, |writers| explained.min(writers));
    let lost = case.lost;
    Attribution { writers, explained, holders, unheld, suspects, references, lost, contradicted }
}

#[cfg(test)]
mod tests;
