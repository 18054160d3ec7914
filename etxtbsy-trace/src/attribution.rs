//! Who held the file when the exec failed.
//!
//! The exec was refused at some moment between its entry and its exit, because at least one open
//! file description had write access to the inode. A hold is *certain* if it began before the
//! call did and was still there at its exit: in the fd table, or waiting as the last reference in
//! the task's work. It is *possible* if it ended during the call, or had left the table a moment
//! before while nobody can see whether the kernel was through with it. The kernel's own count,
//! `i_writecount`, decides: possible holds are believed only where the certain ones leave part
//! of it open and there is no choice between them. Anything else stays unexplained.

use std::collections::HashMap;

use etxtbsy_trace_common::{
    Actor, CLOEXEC_UNKNOWN, Candidate, Change, Hold, Holder, How, NO_FD, Stage, Via,
};

use crate::{
    ledger::{Case, Keeper},
    lines::State,
};

/// How long a last reference may take to be dropped after an exec has taken its fd: the kernel
/// does it when the task returns to user mode, after microseconds as a rule; under load, with the
/// task preempted just then, 70 ms have been measured.
const DRAIN_NS: u64 = 200_000_000;
/// The same for close(2), which drops it before it returns, a moment after its entry.
const CLOSE_NS: u64 = 50_000;
/// How long a process lives that ends right after its exec, from the return of that.
const SHORT_LIFE_NS: u64 = 100_000;
/// Where more descriptions could be open than the kernel counts, those that were let go of longer
/// before the call than this are left out.
const CLOSE_CALL_NS: u64 = 1_000_000;

/// What came of one failure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attribution {
    /// How many descriptions had write access; `None` if that cannot be told.
    pub writers: Option<u32>,
    /// How many of them the holders account for.
    pub explained: u32,
    /// The processes that held one.
    pub holders: Vec<Held>,
    /// Those that were open and that no process held, as their opener's hold was.
    pub unheld: Vec<Hold>,
    /// Whether some of the failure's records found no room.
    pub lost: bool,
}

impl Attribution {
    /// Whether all writers are accounted for, and no record of them was lost.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.writers == Some(self.explained) && self.explained > 0 && !self.lost
    }

    /// Whether all writers are accounted for and all holders have let go.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_complete() && self.holders.iter().all(|held| held.released.is_some())
    }
}

/// A process that held a description.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// The process.
    pub tgid: u32,
    /// Its parent when it got the fd.
    pub ppid: u32,
    /// Its start.
    pub start_ns: u64,
    /// Its fds.
    pub fds: Vec<HeldFd>,
    /// How it got the first of them.
    pub via: Via,
    /// What it was doing.
    pub state: State,
    /// Whether it has exec'd since it got the file.
    pub execed: bool,
    /// Who opened the description.
    pub opened: Option<Actor>,
    /// Who forked the holder.
    pub forked: Option<Actor>,
    /// How and when it let go of the last of them; [`How::None`] if that was not told: it had by then.
    pub released: Option<(How, u64)>,
    /// What was seen of its task.
    pub seen: Option<Holder>,
}

/// A holder's fd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldFd {
    /// The number.
    pub fd: u32,
    /// `f_flags`.
    pub flags: u32,
    /// Whether it is close-on-exec; `None` if it was gone when this was looked at.
    pub cloexec: Option<bool>,
}

/// How sure it is that a hold was there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sure {
    No,
    Possible,
    Certain,
}

/// A hold, with everything known about it.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is an answer to a question of its own")]
struct Fact {
    hold: Hold,
    in_table: bool,
    in_works: bool,
    /// Something referred to the description, whatever it was.
    open: bool,
    /// Its fd was gone when it was looked at, and its end had not been told by then.
    vacant: bool,
    cloexec: Option<bool>,
    seen: Option<Holder>,
    /// It was told of after the failure only.
    late: bool,
    sure: Sure,
}

impl Fact {
    fn of_candidate(candidate: &Candidate) -> Self {
        let held = candidate.hold.stage != Stage::Released as u32;
        let mut fact = Self {
            hold: candidate.hold,
            // An ended hold has left the table, whatever stands at its fd by now.
            in_table: held && candidate.in_table != 0,
            in_works: candidate.in_works != 0,
            open: candidate.open != 0,
            vacant: false,
            cloexec: (held && candidate.in_table != 0 && candidate.cloexec != CLOEXEC_UNKNOWN)
                .then_some(candidate.cloexec != 0),
            seen: (candidate.holder.ns_pid != 0).then_some(candidate.holder),
            late: false,
            sure: Sure::No,
        };
        fact.vacant = held && !fact.is_there();
        fact
    }

    fn of_change(change: &Change) -> Self {
        Self {
            hold: change.hold,
            in_table: false,
            in_works: false,
            open: false,
            vacant: false,
            cloexec: Some(change.cloexec != 0),
            seen: (change.holder.ns_pid != 0).then_some(change.holder),
            late: true,
            sure: Sure::No,
        }
    }

    /// Whether the description was in the hands of the process.
    fn is_there(&self) -> bool {
        self.in_table || self.in_works || self.is_mapped()
    }

    fn is_mapped(&self) -> bool {
        self.open && self.hold.via == Via::Mapping as u32
    }

    fn how(&self) -> Option<How> {
        [How::Close, How::CloseRange, How::CloseOnExec, How::Dup, How::Exit]
            .into_iter()
            .find(|how| *how as u32 == self.hold.how)
    }

    fn state(&self, exit_ns: u64) -> State {
        let gone = !self.in_table && !self.is_mapped();
        if self.late && self.hold.acquired_ns > exit_ns {
            State::InFork
        } else if self.hold.stage == Stage::Exiting as u32 || self.how() == Some(How::Exit) && gone
        {
            State::Exiting
        } else if self.hold.stage == Stage::ExecClosing as u32
            || self.how() == Some(How::CloseOnExec) && gone
        {
            State::ExecClosing
        } else if self.hold.forked.time_ns != 0 && self.hold.execed == 0 {
            State::Forked
        } else {
            State::Running
        }
    }
}

/// Judges a case.
#[must_use]
pub fn attribute(case: &Case) -> Attribution {
    let exit = case.failure.exit_ns;
    // The entry of a 32-bit call is not seen; it was a moment before.
    let enter = if case.failure.enter_ns == 0 { exit } else { case.failure.enter_ns };
    let mut facts = gather(case);
    let missed = adopt_openers(&mut facts, exit);
    for fact in &mut facts {
        // It may have begun while the holds were being told.
        fact.late |= fact.hold.acquired_ns > exit;
        fact.sure = if fact.late { Sure::No } else { judge(fact, enter, exit) };
    }
    judge_late(&mut facts, enter, exit);

    let mut descriptions = group(facts);
    bury_under_address(&mut descriptions, enter);
    bury(&mut descriptions, enter);
    let (kept, unheld) = lingering(&descriptions, case);
    // The kernel's count at the exit of the call; below zero is a count of those who run it.
    let count = u32::try_from(case.failure.writers).unwrap_or(0);
    let held = number(&descriptions, Sure::Certain) + kept.len() as u32;
    let certain = held + unheld.len() as u32;
    // Where the count has gone to zero since the exec was refused, there was one at least.
    let open = if count == 0 { u32::from(certain == 0) } else { count.saturating_sub(certain) };
    if number(&descriptions, Sure::Possible) > open {
        forget_old(&mut descriptions, enter);
    }
    let possible = number(&descriptions, Sure::Possible);
    let believe_possible = possible > 0 && possible <= open && !case.lost;
    let writers = if case.failure.inode == 0 {
        None
    } else if count > 0 {
        Some(count.max(certain))
    } else if certain > 0 {
        Some(certain)
    } else if possible > 1 {
        // One of them, or several.
        None
    } else {
        Some(1)
    };
    descriptions.retain(|facts| match sure(facts) {
        Sure::Certain => true,
        Sure::Possible => believe_possible,
        Sure::No => false,
    });
    let explained = (descriptions.len() + kept.len()) as u32;
    let kept = kept.into_iter().map(|fact| vec![fact]);
    let holders =
        descriptions.into_iter().chain(kept).flat_map(|facts| holders(facts, case)).collect();
    Attribution { writers, explained, holders, unheld, lost: case.lost || missed }
}

/// The descriptions that something referred to while no table and no mapping showed them: those
/// of which user space found what process keeps them, and the others.
fn lingering(descriptions: &[Vec<Fact>], case: &Case) -> (Vec<Fact>, Vec<Hold>) {
    let (mut kept, mut unheld) = (Vec::new(), Vec::new());
    for facts in descriptions {
        let hold = &facts[0].hold;
        // An address that is in use again shows the younger description.
        let again = descriptions.iter().any(|other| {
            other[0].hold.file == hold.file
                && (other[0].hold.opened.time_ns > hold.opened.time_ns || sure(other) > Sure::No)
        });
        let open = facts.iter().any(|fact| fact.open);
        if !open || again || !(1..=case.failure.exit_ns).contains(&hold.opened.time_ns) {
            continue;
        }
        let keeper = match case.keepers.get(&hold.file) {
            Some(Keeper::Call { tgid }) => {
                facts.iter().find(|fact| fact.hold.tgid == *tgid).map(|fact| fact.hold)
            }
            Some(Keeper::Ring { tgid }) => facts
                .iter()
                .find(|fact| fact.hold.tgid == *tgid)
                .map(|fact| Hold { fd: NO_FD, ..fact.hold }),
            _ => None,
        };
        match keeper {
            Some(hold) => kept.push(Fact { hold, sure: Sure::Certain, ..facts[0].clone() }),
            None => unheld.push(*hold),
        }
    }
    (kept, unheld)
}

/// One fact a hold, from the several records that speak of it.
fn gather(case: &Case) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    // An inode that is freed and used again is another file's.
    let same_file = |hold: &Hold| {
        let failure = &case.failure;
        hold.inode != failure.inode
            || (hold.ino, hold.generation) == (failure.ino, failure.generation)
    };
    for candidate in case.candidates.iter().filter(|candidate| same_file(&candidate.hold)) {
        let new = Fact::of_candidate(candidate);
        let same = |fact: &&mut Fact| fact.hold.is(&new.hold) && fact.hold.tgid == new.hold.tgid;
        match facts.iter_mut().find(same) {
            // It ended while the holds were being told.
            Some(fact) => {
                fact.in_table |= new.in_table;
                fact.in_works |= new.in_works;
                fact.open |= new.open;
                fact.vacant &= new.vacant;
                fact.cloexec = fact.cloexec.or(new.cloexec);
                fact.seen = fact.seen.or(new.seen);
                if new.hold.released_ns != 0 {
                    fact.hold = new.hold;
                }
            }
            None => facts.push(new),
        }
    }
    // A table that outlives the process that opened the file in it belongs to those that share it.
    let shared: Vec<Hold> = facts
        .iter()
        .filter(|fact| fact.in_table && fact.seen.is_some())
        .map(|fact| fact.hold)
        .collect();
    facts.retain(|fact| {
        !fact.in_table || fact.seen.is_some() || !shared.iter().any(|hold| fact.hold.is(hold))
    });
    for change in case.acquired.iter().filter(|change| same_file(&change.hold)) {
        if !facts.iter().any(|fact| fact.hold.is(&change.hold)) {
            facts.push(Fact::of_change(change));
        }
    }
    for change in &case.released {
        for fact in facts.iter_mut().filter(|fact| fact.hold.is(&change.hold)) {
            let Hold { stage, how, last, released_ns, .. } = change.hold;
            fact.hold = Hold { stage, how, last, released_ns, ..fact.hold };
            if fact.hold.tgid == change.hold.tgid {
                let Hold { task, start_ns, opened, .. } = change.hold;
                fact.hold = Hold { task, start_ns, opened, ..fact.hold };
            }
        }
    }
    facts
}

/// When a hold ended.
fn end_ns(hold: &Hold) -> u64 {
    if hold.released_ns == 0 { u64::MAX } else { hold.released_ns }
}

/// Finds the opener of copies that were noted before it was: a fork may copy an fd before the
/// exit of its open is seen. Such a copy has no opener, or that of an earlier description at the
/// same address. Gives whether the end of one must have been missed.
fn adopt_openers(facts: &mut [Fact], exit: u64) -> bool {
    let openers: Vec<Hold> = facts
        .iter()
        .map(|fact| fact.hold)
        .filter(|hold| hold.opened.time_ns != 0 && hold.acquired_ns == hold.opened.time_ns)
        .collect();
    let mut missed = false;
    for fact in facts {
        let hold = &mut fact.hold;
        // One that came after the failure is its opener only if it was there until then.
        let ended = hold.released_ns != 0;
        let same = openers
            .iter()
            .filter(|opener| opener.file == hold.file)
            .filter(|opener| opener.opened.time_ns <= exit || ended);
        // What was opened at its address later is the same description, seen late, or another.
        let unsure = hold.by_address != 0
            && same.clone().any(|opener| opener.opened.time_ns > hold.opened.time_ns);
        let opened = if hold.opened.time_ns == 0 {
            // It was in some table at the same time as the opener's own.
            let mut together = same
                .filter(|opener| opener.acquired_ns <= end_ns(hold))
                .filter(|opener| hold.acquired_ns <= end_ns(opener));
            match (together.next(), together.next()) {
                (Some(opener), None) => Some(opener.opened),
                _ => None,
            }
        } else {
            // An address that is opened anew while it is held is held of the new description:
            // the old one is gone.
            same.map(|opener| opener.opened)
                .filter(|opened| (hold.opened.time_ns..=end_ns(hold)).contains(&opened.time_ns))
                .max_by_key(|opened| opened.time_ns)
        };
        match opened {
            // What it held at the failure was closed before that. If what was told as its end came
            // later, that is of something else at its place, and its own was missed.
            Some(opened) if (1..=exit).contains(&hold.opened.time_ns) && opened.time_ns > exit => {
                missed |= forget_close(hold);
            }
            Some(opened) => hold.opened = opened,
            None if unsure => hold.opened = Actor::default(),
            None => {}
        }
    }
    missed
}

/// Takes a close for that of something else, and gives whether it was one: a close is told before it
/// is done, the other ends after it.
fn forget_close(hold: &mut Hold) -> bool {
    let is_close = hold.how == How::Close as u32;
    if is_close {
        *hold = Hold { stage: Stage::Held as u32, how: 0, released_ns: 0, ..*hold };
    }
    is_close
}

fn judge(fact: &Fact, enter: u64, exit: u64) -> Sure {
    let hold = &fact.hold;
    if hold.acquired_ns > exit {
        return Sure::No;
    }
    if fact.is_there() {
        // One that began during the call may have begun after the exec was refused.
        return if hold.acquired_ns <= enter { Sure::Certain } else { Sure::Possible };
    }
    let after = |moment: u64| hold.released_ns != 0 && hold.released_ns >= moment;
    match fact.how() {
        // Told before the fd goes: it was there at the exit of the call. Of an fd that was gone
        // before that, its own close was missed, and another's was taken for it.
        Some(How::Close) if after(exit) && hold.acquired_ns <= enter && !fact.vacant => {
            return Sure::Certain;
        }
        Some(How::CloseOnExec | How::Dup)
            if hold.last != 0 && after(exit) && hold.acquired_ns <= enter =>
        {
            return Sure::Certain;
        }
        // Told when it is over; whether it was the last reference showed at its beginning only.
        Some(How::Exit) if after(enter) => return Sure::Possible,
        _ => {}
    }
    // What was not the last reference when it went did not keep the description open.
    if hold.last == 0 {
        return Sure::No;
    }
    // A task that has ended has done its work; unless it let go so shortly before the call that it
    // may have ended since.
    let done = fact.seen.is_none() && !fact.late && !after(enter.saturating_sub(SHORT_LIFE_NS));
    if fact.how() == Some(How::CloseOnExec) && done {
        return Sure::No;
    }
    let gone_for = match hold.released_ns {
        // On its way out: not in the table any more, its end told later, or not yet.
        0 => 0,
        released_ns => enter.saturating_sub(released_ns),
    };
    let drain = match fact.how() {
        // Noted when it is over.
        Some(How::Exit) => 0,
        Some(How::Close) => CLOSE_NS,
        _ => DRAIN_NS,
    };
    if gone_for <= drain { Sure::Possible } else { Sure::No }
}

/// A description that was alone when it was opened proves that all opened before it are closed.
fn bury(descriptions: &mut [Vec<Fact>], enter: u64) {
    let opened = |facts: &[Fact]| facts[0].hold.opened.time_ns;
    let alone = descriptions
        .iter()
        .filter(|facts| facts.iter().any(|fact| fact.hold.alone != 0))
        .map(|facts| opened(facts))
        .filter(|opened_ns| *opened_ns <= enter)
        .max()
        .unwrap_or(0);
    for facts in descriptions.iter_mut().filter(|facts| opened(facts) < alone) {
        facts
            .iter_mut()
            .filter(|fact| fact.sure == Sure::Possible)
            .for_each(|fact| fact.sure = Sure::No);
    }
}

/// An address that was opened anew before the call shows that what was there before is closed.
fn bury_under_address(descriptions: &mut [Vec<Fact>], enter: u64) {
    let youngest: HashMap<u64, u64> = descriptions
        .iter()
        .map(|facts| (facts[0].hold.file, facts[0].hold.opened.time_ns))
        .filter(|(_, opened_ns)| *opened_ns <= enter)
        .fold(HashMap::new(), |mut youngest, (file, opened_ns)| {
            let latest: &mut u64 = youngest.entry(file).or_default();
            *latest = opened_ns.max(*latest);
            youngest
        });
    for facts in descriptions {
        let Hold { file, opened, .. } = facts[0].hold;
        if opened.time_ns != 0 && youngest.get(&file).is_some_and(|latest| opened.time_ns < *latest)
        {
            for fact in facts {
                fact.sure = Sure::No;
            }
        }
    }
}

/// Leaves out descriptions that were let go of long before the call.
fn forget_old(descriptions: &mut [Vec<Fact>], enter: u64) {
    for fact in descriptions.iter_mut().flatten() {
        let released_ns = fact.hold.released_ns;
        if fact.sure == Sure::Possible && released_ns != 0 && released_ns + CLOSE_CALL_NS < enter {
            fact.sure = Sure::No;
        }
    }
}

/// How many descriptions are as sure as that.
fn number(descriptions: &[Vec<Fact>], how: Sure) -> u32 {
    descriptions.iter().filter(|facts| sure(facts) == how).count() as u32
}

/// A child that appears after the failure with the very same description was being made when the
/// exec failed, if its parent had closed the file by then: the copy came before that.
fn judge_late(facts: &mut [Fact], enter: u64, exit: u64) {
    for index in 0..facts.len() {
        if !facts[index].late || facts[index].hold.via != Via::Fork as u32 {
            continue;
        }
        let child = facts[index].hold;
        let parent = facts.iter().find(|fact| {
            fact.hold.tgid == child.forked.tgid
                && fact.hold.file == child.file
                && fact.hold.fd == child.fd
                && fact.hold.opened == child.opened
                && !fact.late
        });
        facts[index].sure = match parent {
            Some(parent) if parent.in_table || parent.hold.released_ns == 0 => Sure::No,
            Some(parent) if parent.hold.released_ns < enter => Sure::Certain,
            Some(parent) if parent.hold.released_ns <= exit => Sure::Possible,
            _ => Sure::No,
        };
    }
}

/// The facts by description: the same `struct file`, opened at the same time.
fn group(facts: Vec<Fact>) -> Vec<Vec<Fact>> {
    let mut descriptions: Vec<Vec<Fact>> = Vec::new();
    for fact in facts {
        let same = |facts: &&mut Vec<Fact>| {
            facts[0].hold.file == fact.hold.file
                && facts[0].hold.opened.time_ns == fact.hold.opened.time_ns
        };
        match descriptions.iter_mut().find(same) {
            Some(facts) => facts.push(fact),
            None => descriptions.push(vec![fact]),
        }
    }
    descriptions
}

fn sure(facts: &[Fact]) -> Sure {
    facts.iter().map(|fact| fact.sure).max().unwrap_or(Sure::No)
}

/// The holders of one description, as sure as it gets.
fn holders(facts: Vec<Fact>, case: &Case) -> Vec<Held> {
    let sure = sure(&facts);
    let mut believed: Vec<Fact> = facts.into_iter().filter(|fact| fact.sure == sure).collect();
    if sure == Sure::Possible {
        // The description was open and none of these was seen to refer to it: the last to let go
        // did, for it is the last reference that keeps it open.
        let in_fork = believed.iter().any(|fact| fact.late);
        let end =
            |fact: &Fact| if fact.hold.released_ns == 0 { u64::MAX } else { fact.hold.released_ns };
        let last = believed.iter().map(end).max();
        believed.retain(|fact| if in_fork { fact.late } else { Some(end(fact)) == last });
    }
    let mut holders: Vec<Held> = Vec::new();
    for fact in believed {
        let fd = HeldFd { fd: fact.hold.fd, flags: fact.hold.flags, cloexec: fact.cloexec };
        let fds = if fd.fd == NO_FD { vec![] } else { vec![fd] };
        let released = released(&fact, case);
        if let Some(held) = holders.iter_mut().find(|held| held.tgid == fact.hold.tgid) {
            held.fds.extend(fds);
            held.fds.sort_by_key(|fd| fd.fd);
            // The same fd of several tables.
            held.fds.dedup_by_key(|fd| fd.fd);
            held.released = match (held.released, released) {
                (Some(a), Some(b)) => Some(if a.1 >= b.1 { a } else { b }),
                _ => None,
            };
            if held.via == Via::Dup {
                held.via = via(&fact.hold, case);
            }
            continue;
        }
        let known = |actor: Actor| (actor.time_ns != 0).then_some(actor);
        holders.push(Held {
            tgid: fact.hold.tgid,
            ppid: fact.hold.ppid,
            start_ns: fact.hold.start_ns,
            fds,
            via: via(&fact.hold, case),
            state: fact.state(case.failure.exit_ns),
            execed: fact.hold.execed != 0,
            opened: known(fact.hold.opened),
            forked: known(fact.hold.forked),
            released,
            seen: fact.seen,
        });
    }
    holders
}

/// How and when a hold ended. Where the fd had gone before the failure, that is when the kernel
/// was found to have dropped the file, or the failure itself if it did so about then.
fn released(fact: &Fact, case: &Case) -> Option<(How, u64)> {
    let dropped = case.dropped.get(&(fact.hold.file, fact.hold.tgid));
    if fact.is_mapped() {
        return dropped
            .map(|drop| (if drop.exiting { How::Exit } else { How::Unmap }, drop.time_ns));
    }
    let gone_ns = fact.hold.released_ns;
    let Some(how) = fact.how() else {
        let noticed = (gone_ns > case.failure.exit_ns).then_some(gone_ns);
        let found = case.gone.get(&fact.hold.place()).copied();
        return noticed.or(found).map(|time_ns| (How::None, time_ns));
    };
    if case.keepers.contains_key(&fact.hold.file) {
        return dropped.map(|drop| (if drop.exiting { How::Exit } else { how }, drop.time_ns));
    }
    if gone_ns > case.failure.exit_ns {
        return Some((how, gone_ns));
    }
    if fact.in_works {
        return dropped.map(|drop| (how, drop.time_ns));
    }
    Some((how, case.failure.exit_ns))
}

/// Whether a holder could have its fd by a fork.
fn is_later_child(hold: &Hold) -> bool {
    hold.ppid == hold.opened.tgid && hold.start_ns > hold.opened.time_ns
}

fn via(hold: &Hold, case: &Case) -> Via {
    let told = [Via::Open, Via::Fork, Via::Dup, Via::Mapping]
        .into_iter()
        .find(|via| *via as u32 == hold.via);
    match told {
        Some(via) => via,
        // A child of the opener's, forked since: that may have been missed.
        None if case.passed_over && is_later_child(hold) => Via::Unknown,
        // Opens, forks and dups are seen: it came by a message, or was taken.
        None if hold.opened.time_ns != 0 && hold.opened.tgid != hold.tgid => Via::Passed,
        None => Via::Unknown,
    }
}

#[cfg(test)]
mod tests;
