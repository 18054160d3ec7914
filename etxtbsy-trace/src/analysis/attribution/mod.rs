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

use etxtbsy_trace_common::{
    Actor, CLOEXEC_UNKNOWN, Candidate, Change, Drain, Hold, Holder, How, NO_FD, PinnedBy, Quiet,
    SWAP_FILE, Stage, Via,
};

use crate::{
    analysis::ledger::Case,
    event::{Evidence, Reason, State},
    host::{fs_view::FileSystem, process},
};

/// How long a last reference may take to be dropped after an exec has taken its fd, where the kernel
/// shows nothing of it (6.7 to 6.11): it is done when the task returns to user mode, after microseconds
/// as a rule; under load, with the task preempted just then, 70 ms have been measured.
const DRAIN_NS: u64 = 200_000_000;
/// The same for close_range, dup2 and the like of a process that lives on.
const CLOSE_NS: u64 = 50_000;

/// What came of one failure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attribution {
    /// How many descriptions had write access; `None` if that cannot be told.
    pub writers: Option<u32>,
    /// How many of them are accounted for.
    pub explained: u32,
    /// The processes that held one.
    pub holders: Vec<Held>,
    /// Those that were open and that no process held.
    pub unheld: Vec<Unheld>,
    /// The processes that may have held one, where that is not known.
    pub suspects: Vec<Suspect>,
    /// How many references to the descriptions were not found: others hold them too.
    pub references: u32,
    /// Whether something of the failure was lost.
    pub lost: bool,
    /// Whether more were found than the kernel counted: a defect, or memory that changed while it was read.
    pub contradicted: bool,
}

impl Attribution {
    /// Whether all writers are accounted for, with everyone who holds one, and nothing of them was
    /// lost.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.writers == Some(self.explained)
            && self.explained > 0
            && self.references == 0
            && !self.lost
            && !self.contradicted
    }

    /// Whether it is complete, and all of it rests on evidence.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.is_complete() && self.holders.iter().all(|held| held.evidence != Evidence::Elimination)
    }

    /// Whether all writers are accounted for and all holders have let go.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.is_complete() && self.holders.iter().all(|held| held.released.is_some())
    }
}

/// A description that no process held.
#[derive(Clone, Debug, PartialEq)]
pub struct Unheld {
    /// As its opener's hold was, or with nothing but the description.
    pub hold: Hold,
    /// What keeps it.
    pub keeper: Keeper,
}

/// What keeps a description that no process holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The queue of a socket.
    SocketQueue,
    /// A loop device, such as `/dev/loop0`.
    LoopDevice(String),
    /// The kernel swaps to the file.
    SwapFile,
    /// An entry of binfmt_misc with flag `F`, by its name.
    BinfmtMisc(String),
    /// The file system itself answered.
    FileSystem(FileSystem),
    /// That is not known.
    Unknown,
}

/// A process that may have held the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// The process.
    pub tgid: u32,
    /// What was seen of its task.
    pub seen: Option<Holder>,
    /// Why it may.
    pub reason: Reason,
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
    /// How it is known.
    pub evidence: Evidence,
    /// The number of the system call that keeps the description without an fd.
    pub call: Option<i32>,
    /// What it was doing.
    pub state: State,
    /// Whether it has exec'd since it got the file.
    pub execed: bool,
    /// Who opened the description.
    pub opened: Option<Actor>,
    /// When the opener's own fd was closed, if that was seen.
    pub closed_ns: Option<u64>,
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

/// What is known of a hold at the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
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
struct Fact {
    hold: Hold,
    /// What showed it at the end of the call.
    evidence: Option<Evidence>,
    standing: Standing,
    pinned_by: Option<PinnedBy>,
    call: Option<i32>,
    fput_pending: bool,
    /// The kernel is about to free its description, and may have given up the write access by then.
    is_dropping: bool,
    cloexec: Option<bool>,
    ending: bool,
    closed_ns: u64,
    seen: Option<Holder>,
    /// How and when it ended, if it did while the holds were being reported.
    end: Option<(How, u64)>,
}

impl Fact {
    fn of_candidate(candidate: &Candidate, case: &Case) -> Self {
        let hold = candidate.hold;
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
        let after = self.hold.stage() == Some(Stage::Released) && self.hold.released_ns > exit;
        let seen_end = match how(&self.hold) {
            // Reported before the fd goes.
            Some(How::Close) => true,
            // The last reference is dropped after that.
            Some(How::CloseOnExec | How::Dup | How::CloseRange) => {
                self.hold.was_last_reference != 0
            }
            _ => false,
        };
        (after && seen_end).then_some(Evidence::Event)
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
    fn is_open(&self) -> bool {
        self.standing >= Standing::After
    }

    fn state(&self, exit: u64) -> State {
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

/// The beginning and the end of the failing call; the entry of a 32-bit call is not seen, and was a
/// moment before.
fn span(case: &Case) -> (u64, u64) {
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

fn how(hold: &Hold) -> Option<How> {
    hold.how().filter(|how| {
        matches!(how, How::Close | How::CloseRange | How::CloseOnExec | How::Dup | How::Exit)
    })
}

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
    let keeper = kernel_keeper(case).filter(|_| count > shown);
    let kept = u32::from(keeper.is_some());
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
        // All that can be open is: what let go during the call had not been dropped at its end.
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
    unheld.extend(kept_elsewhere(case, &facts, keeper, writers, explained, &queued));
    let contradicted = writers.is_some_and(|writers| explained > writers);
    explained = writers.map_or(explained, |writers| explained.min(writers));
    let lost = case.lost;
    Attribution { writers, explained, holders, unheld, suspects, references, lost, contradicted }
}

/// What of the kernel has a description of the file that no process opened, or whose opener has closed it.
fn kernel_keeper(case: &Case) -> Option<Keeper> {
    // swapon(2) opens the file for itself; the flag is set from then on to swapoff(2).
    let is_swap_file = case.failure.inode_flags & SWAP_FILE != 0;
    let is_loop = |keeper: &&Keeper| matches!(keeper, Keeper::LoopDevice(_));
    let swap_file = is_swap_file.then_some(Keeper::SwapFile);
    swap_file.or_else(|| case.kept.iter().find(is_loop).cloned())
}

/// What keeps descriptions that are not accounted for: something of the kernel, or something unknown, as far
/// as their openers are known.
fn kept_elsewhere(
    case: &Case,
    facts: &[Fact],
    keeper: Option<Keeper>,
    writers: Option<u32>,
    explained: u32,
    queued: &[u64],
) -> Vec<Unheld> {
    let unknown = || orphans(case, facts).filter(|hold| !queued.contains(&hold.file));
    match keeper {
        Some(Keeper::SwapFile) => {
            vec![Unheld { hold: Hold::default(), keeper: Keeper::SwapFile }]
        }
        Some(keeper) => vec![Unheld { hold: unknown().next().unwrap_or_default(), keeper }],
        None => {
            let missing = writers.map_or(0, |writers| writers.saturating_sub(explained));
            let holds = unknown().take(missing as usize);
            holds.map(|hold| Unheld { hold, keeper: Keeper::Unknown }).collect()
        }
    }
}

/// The descriptions that lie in a socket's queue, and what is to be said of them.
fn queued(case: &Case) -> (Vec<u64>, Vec<Unheld>) {
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
                unheld.push(Unheld { hold, keeper: Keeper::SocketQueue });
            }
        }
    }
    (files, unheld)
}

/// The descriptions that something refers to, though no table and no mapping shows them, as their
/// openers' holds were.
fn orphans<'a>(case: &'a Case, facts: &'a [Fact]) -> impl Iterator<Item = Hold> + 'a {
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
fn opening_suspects(case: &Case) -> Vec<Suspect> {
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
fn missing_references(case: &Case, facts: &[Fact]) -> u32 {
    let children = case.acquired.iter().filter(|change| {
        change.hold.via() == Some(Via::Fork)
            && facts.iter().any(|fact| fact.is_open() && fact.hold.file == change.hold.file)
    });
    case.references.saturating_sub(children.count() as u32)
}

/// A description, with the holds of it.
#[derive(Clone)]
struct Description {
    file: u64,
    facts: Vec<Fact>,
}

impl Description {
    fn standing(&self, enter: u64) -> Standing {
        let best = self.facts.iter().map(|fact| fact.standing).max().unwrap_or(Standing::Out);
        let opened_ns = self.facts.iter().map(|fact| fact.hold.opened.time_ns).max().unwrap_or(0);
        // A description that is open at both ends of the call was open throughout, whoever had it.
        if best >= Standing::After && (1..=enter).contains(&opened_ns) {
            return Standing::There;
        }
        best
    }

    /// Whether nobody saw when it was opened.
    fn is_of_no_age(&self) -> bool {
        self.facts.iter().all(|fact| fact.hold.found != 0 && fact.hold.opened.time_ns == 0)
    }

    fn is_dropping(&self) -> bool {
        self.facts.iter().all(|fact| fact.is_dropping)
    }

    /// Those who held it as surely as anybody.
    fn believed(self) -> Vec<Fact> {
        let best = self.facts.iter().map(|fact| fact.standing).max();
        let is_sure = |fact: &Fact| {
            Some(fact.standing) == best
                // Nothing shows that it came later, and the description was open.
                || fact.standing == Standing::After
        };
        self.facts.into_iter().filter(is_sure).collect()
    }

    fn suspect(&self, reason: Reason) -> Suspect {
        let fact = &self.facts[0];
        Suspect { tgid: fact.hold.tgid, seen: fact.seen, reason }
    }
}

/// The facts by description: an address is that of one description as long as it is open.
fn describe<'a>(facts: impl Iterator<Item = &'a Fact>) -> Vec<Description> {
    let mut descriptions: Vec<Description> = Vec::new();
    for fact in facts {
        // Of a call that is opening one, the description is not known.
        let same = |one: &&mut Description| {
            one.file == fact.hold.file
                && (fact.hold.file != 0 || one.facts[0].hold.tgid == fact.hold.tgid)
        };
        match descriptions.iter_mut().find(same) {
            Some(one) => one.facts.push(fact.clone()),
            None => {
                descriptions.push(Description { file: fact.hold.file, facts: vec![fact.clone()] });
            }
        }
    }
    descriptions
}

/// One fact a hold, from the several records that speak of it.
fn gather(case: &Case) -> Vec<Fact> {
    let mut facts: Vec<Fact> = Vec::new();
    // An inode that is freed and used again is another file's.
    let same_file = |hold: &Hold| {
        let failure = &case.failure;
        hold.inode != failure.inode
            || hold.file == 0
            || (hold.ino, hold.generation) == (failure.ino, failure.generation)
    };
    for candidate in case.candidates.iter().filter(|candidate| same_file(&candidate.hold)) {
        let new = Fact::of_candidate(candidate, case);
        let same = |fact: &&mut Fact| {
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
            facts.push(Fact::of_change(change, case));
        }
    }
    facts
}

/// An address that was opened anew before the failure is that of the younger description alone: what
/// shows a reference is of that one, whoever was noted as its opener; the rest is over.
fn bury_under_address(facts: &mut [Fact], exit: u64) {
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

/// The processes that held a description, by what is known of each; `evidence` is that of all, if they are
/// named by elimination.
fn held(facts: Vec<Fact>, evidence: Option<Evidence>, case: &Case) -> Vec<Held> {
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
fn released(fact: &Fact, case: &Case) -> Option<(How, u64)> {
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

#[cfg(test)]
mod tests;
