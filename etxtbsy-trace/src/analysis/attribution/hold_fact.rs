//! One fact a hold: what the records show of it at the failure, and how it stands to the call.

use etxtbsy_trace_common::{
    Actor, CLOEXEC_UNKNOWN, Candidate, Change, DRAIN_NS, Drain, Hold, Holder, How, PinnedBy, Quiet,
    Stage, Via,
};

use crate::{
    analysis::case::Case,
    event::{Evidence, State},
    host::process,
};

/// [`DRAIN_NS`] for close_range, dup2 and the like of a process that lives on.
pub(super) const CLOSE_NS: u64 = 50_000;

/// What is known of a hold at the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Nothing: it was over, or came later.
    Out,
    /// It ended before the call, in a way after which the kernel drops the file a moment later.
    Recent,
    /// It was there at the beginning of the call, and gone at its end.
    Left,
    /// It may have been there: this kernel does not show it.
    Unclear,
    /// It was there a moment after the call; that it was before is not shown.
    After,
    /// It was there at the end of the call, and came during it.
    Came,
    /// It was there from the beginning to the end.
    There,
}

/// A hold, with everything known about it.
#[derive(Clone, Debug)]
pub(super) struct HoldFact {
    pub(super) hold: Hold,
    /// What showed it at the end of the call.
    pub(super) evidence: Option<Evidence>,
    pub(super) standing: Standing,
    pub(super) pinned_by: Option<PinnedBy>,
    pub(super) call: Option<i32>,
    pub(super) fput_pending: bool,
    /// The kernel is about to free its description, and may have given up the write access by then.
    pub(super) is_dropping: bool,
    pub(super) cloexec: Option<bool>,
    pub(super) ending: bool,
    pub(super) closed_ns: u64,
    pub(super) seen: Option<Holder>,
    /// How and when it ended, if it did while the holds were being reported.
    pub(super) end: Option<(How, u64)>,
}

impl HoldFact {
    fn of_candidate(candidate: &Candidate, case: &Case) -> Self {
        let hold = ended_unshown(candidate, case).unwrap_or(candidate.hold);
        let pinned_by = candidate
            .pinned_by()
            .or(case.registered.contains(&hold.file).then_some(PinnedBy::IoUring));
        // A close(2) that has taken the fd, and drops the file.
        let is_closing = candidate.drain() == Some(Drain::UnderWay)
            && candidate.pinned_by().is_none()
            && how(&hold) == Some(How::Close);
        let pinned_by = if is_closing { Some(PinnedBy::Call) } else { pinned_by };
        let mut fact = Self {
            hold,
            evidence: None,
            standing: Standing::Out,
            pinned_by,
            call: matches!(pinned_by, Some(PinnedBy::Call | PinnedBy::Opening))
                .then_some(candidate.syscall),
            fput_pending: candidate.fput_pending != 0,
            is_dropping: candidate.drain() == Some(Drain::UnderWay)
                && candidate.fput_pending == 0
                && candidate.in_table == 0,
            cloexec: (candidate.in_table != 0 && candidate.cloexec != CLOEXEC_UNKNOWN)
                .then_some(candidate.cloexec != 0),
            ending: candidate.ending != 0,
            closed_ns: candidate.closed_ns,
            seen: (candidate.holder.ns_pid != 0).then_some(candidate.holder),
            end: None,
        };
        fact.evidence = fact.shown(candidate, case);
        fact.standing = fact.stands(candidate, case);
        fact
    }

    /// What showed it at the end of the call, or after.
    fn shown(&self, candidate: &Candidate, case: &Case) -> Option<Evidence> {
        let exit = case.failure.exit_ns;
        let is_call = |call: i32| i64::from(call) == libc::SYS_close || process::takes_fd(call);
        match self.pinned_by {
            Some(PinnedBy::Call) => {
                return self.call.filter(|call| is_call(*call)).map(|_| Evidence::KernelObject);
            }
            Some(PinnedBy::IoUring) => return Some(Evidence::KernelObject),
            Some(PinnedBy::Opening) => {
                return case.opening.contains(&candidate.tid).then_some(Evidence::KernelObject);
            }
            Some(PinnedBy::Queue) => return None,
            None => {}
        }
        if candidate.in_table != 0 {
            return Some(Evidence::FdTable);
        }
        if candidate.open != 0 && self.hold.via() == Some(Via::Mapping) {
            return Some(Evidence::Mapping);
        }
        if candidate.fput_pending != 0 {
            return Some(Evidence::TaskWork);
        }
        if candidate.drain() == Some(Drain::UnderWay) {
            return Some(Evidence::TaskWork);
        }
        outlasted(&self.hold, exit).then_some(Evidence::Event)
    }

    fn stands(&self, candidate: &Candidate, case: &Case) -> Standing {
        let (enter, exit) = span(case);
        let hold = &self.hold;
        if hold.opened.time_ns >= exit {
            return Standing::Out;
        }
        let is_found = hold.found != 0 && hold.acquired_ns > enter;
        if self.evidence.is_none() {
            return self.stood(candidate, enter);
        }
        if self.pinned_by.is_some() || hold.via() == Some(Via::Mapping) {
            // Of a description that was opened before, it takes a call to come by one of these: a moment
            // ago, there was an fd in its place.
            let is_known = hold.opened.time_ns != 0 || self.pinned_by == Some(PinnedBy::Opening);
            let is_old = is_known || candidate.quiet() == Some(Quiet::Idle) || !is_found;
            return if is_old { Standing::There } else { Standing::After };
        }
        if is_found {
            let followed = (1..enter).contains(&case.passed_since_ns);
            let proven = candidate.quiet() == Some(Quiet::Idle)
                || candidate.quiet() == Some(Quiet::NotReceiving)
                    && followed
                    && candidate.received_ns < enter;
            return if proven { Standing::There } else { Standing::After };
        }
        since(hold, enter, exit)
    }

    /// Where it stands if nothing shows it at the end of the call.
    fn stood(&self, candidate: &Candidate, enter: u64) -> Standing {
        let hold = &self.hold;
        if self.pinned_by.is_some() || hold.acquired_ns > enter {
            return Standing::Out;
        }
        if hold.stage() == Some(Stage::Released) && hold.released_ns >= enter {
            // Whose process is gone already has ended long before it, unless it held the file to its end:
            // what was seen late is the end of the process.
            let may_be = self.seen.is_some() || how(hold) == Some(How::Exit);
            return if may_be { Standing::Left } else { Standing::Out };
        }
        if candidate.drain() == Some(Drain::Unclear) {
            let drain = match how(hold) {
                Some(How::CloseOnExec | How::Exit) | None => DRAIN_NS,
                _ => CLOSE_NS,
            };
            if enter.saturating_sub(hold.released_ns) <= drain && self.seen.is_some() {
                return Standing::Unclear;
            }
        }
        // Of a process that is gone already, it was over long before.
        let by_exec = how(hold) == Some(How::CloseOnExec) && self.seen.is_some();
        let over = hold.stage() == Some(Stage::Released) && candidate.open == 0;
        if over
            && by_exec
            && hold.was_last_reference != 0
            && hold.released_ns.saturating_add(DRAIN_NS) > enter
        {
            return Standing::Recent;
        }
        Standing::Out
    }

    fn of_change(change: &Change, case: &Case) -> Self {
        let (enter, exit) = span(case);
        let hold = change.hold;
        // One from before the failure was being noted just then, and has been there since.
        let standing =
            if hold.opened.time_ns >= exit { Standing::Out } else { since(&hold, enter, exit) };
        Self {
            hold,
            evidence: (standing > Standing::Out).then_some(Evidence::Event),
            standing,
            pinned_by: None,
            call: None,
            fput_pending: false,
            is_dropping: false,
            cloexec: Some(change.cloexec != 0),
            ending: false,
            closed_ns: if hold.forked.tgid == hold.opened.tgid { hold.left_ns } else { 0 },
            seen: (change.holder.ns_pid != 0).then_some(change.holder),
            end: None,
        }
    }

    /// Whether something refers to its description at the end of the call, or just after.
    pub(super) fn is_open(&self) -> bool {
        self.standing >= Standing::After
    }

    pub(super) fn state(&self, exit: u64) -> State {
        let hold = &self.hold;
        let in_table = self.evidence == Some(Evidence::FdTable);
        let gone = !in_table && self.evidence != Some(Evidence::Mapping);
        if hold.acquired_ns > exit && hold.found == 0 {
            State::InFork
        } else if self.ending
            || hold.stage() == Some(Stage::Exiting)
            || how(hold) == Some(How::Exit) && gone
        {
            State::Exiting
        } else if hold.stage() == Some(Stage::ExecClosing)
            || how(hold) == Some(How::CloseOnExec) && gone
        {
            State::ExecClosing
        } else if hold.forked.time_ns != 0 && hold.execed == 0 {
            State::Forked
        } else {
            State::Running
        }
    }
}

/// Whether the end of a hold shows that it was there until after the exit of the call.
fn outlasted(hold: &Hold, exit: u64) -> bool {
    let after = hold.stage() == Some(Stage::Released) && hold.released_ns > exit;
    let seen_end = match how(hold) {
        // Reported before the fd goes.
        Some(How::Close) => true,
        // The last reference is dropped after that.
        Some(How::CloseOnExec | How::Dup | How::CloseRange) => hold.was_last_reference != 0,
        _ => false,
    };
    after && seen_end
}

/// The hold of a candidate as it ended, if neither a table nor a list of work had it when it was looked at: a call had taken
/// the fd, and had not dropped the reference yet. It was the last one, and waited in the task's work at the end.
fn ended_unshown(candidate: &Candidate, case: &Case) -> Option<Hold> {
    let is_shown = candidate.in_table != 0
        || candidate.fput_pending != 0
        || candidate.pinned_by().is_some()
        || candidate.hold.stage() == Some(Stage::Released);
    if is_shown || candidate.open == 0 {
        return None;
    }
    let is_its_end = |end: &Hold| {
        end.is(&candidate.hold)
            && end.tgid == candidate.hold.tgid
            // A close is reported before the fd goes, and here it had gone.
            && how(end) != Some(How::Close)
            && outlasted(end, case.failure.exit_ns)
    };
    case.released.iter().map(|change| change.hold).find(is_its_end)
}

/// The beginning and the end of the failing call; the entry of a 32-bit call is not seen, and was a
/// moment before.
pub(super) fn span(case: &Case) -> (u64, u64) {
    let exit = case.failure.exit_ns;
    (if case.failure.enter_ns == 0 { exit } else { case.failure.enter_ns }, exit)
}

/// Where a hold stands that is there at the end of the call, or after, by when it began.
fn since(hold: &Hold, enter: u64, exit: u64) -> Standing {
    if hold.acquired_ns <= enter {
        Standing::There
    } else if hold.acquired_ns <= exit {
        Standing::Came
    } else {
        late(hold, enter, exit)
    }
}

/// Where the copy in a child stands that was complete after the failure only. The fork copied the fd
/// while its parent had it; the parent's fd was gone when the child was complete, and had not come back.
fn late(hold: &Hold, enter: u64, exit: u64) -> Standing {
    if hold.via() != Some(Via::Fork) || hold.left_ns == 0 {
        Standing::Out
    } else if hold.left_ns < enter {
        Standing::There
    } else if hold.left_ns <= exit {
        Standing::Came
    } else {
        Standing::Out
    }
}

pub(super) fn how(hold: &Hold) -> Option<How> {
    hold.how().filter(|how| {
        matches!(how, How::Close | How::CloseRange | How::CloseOnExec | How::Dup | How::Exit)
    })
}

/// One fact a hold, from the several records that speak of it.
pub(super) fn gather(case: &Case) -> Vec<HoldFact> {
    let mut facts: Vec<HoldFact> = Vec::new();
    // An inode that is freed and used again is another file's.
    let same_file = |hold: &Hold| {
        let failure = &case.failure;
        hold.inode != failure.inode
            || hold.file == 0
            || (hold.ino, hold.generation) == (failure.ino, failure.generation)
    };
    for candidate in case.candidates.iter().filter(|candidate| same_file(&candidate.hold)) {
        let new = HoldFact::of_candidate(candidate, case);
        let same = |fact: &&mut HoldFact| {
            fact.hold.is(&new.hold)
                && fact.hold.tgid == new.hold.tgid
                && fact.pinned_by.is_some() == new.pinned_by.is_some()
        };
        match facts.iter_mut().find(same) {
            // It ended while the holds were being reported.
            Some(fact) => {
                let end = [&fact.hold, &new.hold].into_iter().map(|hold| hold.released_ns).max();
                let how = fact.end.map_or(how(&new.hold), |(how, _)| Some(how));
                if new.standing > fact.standing {
                    *fact = new;
                }
                fact.end = how.zip(end.filter(|end| *end != 0));
            }
            None => facts.push(new),
        }
    }
    bury_under_address(&mut facts, case.failure.exit_ns);
    for change in case.acquired.iter().filter(|change| same_file(&change.hold)) {
        if !facts.iter().any(|fact| fact.hold.is(&change.hold)) {
            facts.push(HoldFact::of_change(change, case));
        }
    }
    facts
}

/// An address that was opened anew before the failure is that of the younger description alone: what
/// shows a reference is of that one, whoever was noted as its opener; the rest is over.
fn bury_under_address(facts: &mut [HoldFact], exit: u64) {
    let opened: Vec<(u64, Actor)> = facts
        .iter()
        .map(|fact| (fact.hold.file, fact.hold.opened))
        .filter(|(file, opened)| *file != 0 && opened.time_ns < exit)
        .collect();
    for fact in facts {
        let Hold { file, opened: own, .. } = fact.hold;
        let youngest = opened
            .iter()
            .filter(|(other, opened)| *other == file && opened.time_ns > own.time_ns)
            .max_by_key(|(_, opened)| opened.time_ns);
        let Some((_, youngest)) = youngest.filter(|_| own.time_ns != 0) else { continue };
        let is_shown = matches!(fact.evidence, Some(Evidence::FdTable | Evidence::Mapping));
        if is_shown || fact.pinned_by == Some(PinnedBy::IoUring) {
            fact.hold.opened = *youngest;
        } else {
            fact.standing = Standing::Out;
        }
    }
}
