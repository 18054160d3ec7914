//! The ledger: failures whose story is not over.
//!
//! Records go in as they come; a failure comes out when all that held its file are known to have
//! let go, or when the grace period is over. Nothing here looks at the machine.

use std::collections::{BTreeMap, HashMap, HashSet};

use etxtbsy_trace_common::{
    self as common, Candidate, Change, Failure, Hold, HoldPlace, How, PinnedBy, Stage, TextOf, Via,
};

use crate::{
    analysis::attribution::{self, Attribution, Keeper},
    event::Runtime,
    host::fs_view::FileSystem,
    tracer::records::{Record, Text},
};

/// How long a failure waits for its holders to let go, in nanoseconds.
pub const GRACE_NS: u64 = 1_000_000_000;
/// How many failures are kept at once, and how many bytes of what was told of them, about.
const MOST: usize = 1024;
const MOST_BYTES: usize = 64 << 20;
/// How many holds that began after it are kept for a failure, and how many ends of holds: those
/// that matter are among the first.
const MOST_CHANGES: usize = 256;

/// The end of a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// When its write access went.
    pub time_ns: u64,
    /// Whether that was done by a process that was ending.
    pub exiting: bool,
}

/// A file that refused to be written, because it is being run.
#[derive(Clone, Debug, Default)]
pub struct Running {
    /// Its path.
    pub path: Vec<u8>,
    /// Its device: major << 20 | minor.
    pub dev: u32,
    /// Its inode number.
    pub ino: u64,
    /// Its `i_writecount` at the failure: below zero, by how many it is being run; `None` if whoever
    /// ran it was gone before it was counted.
    pub count: Option<i32>,
    /// How many of them are accounted for.
    pub explained: u32,
    /// The processes that run it.
    pub runners: Vec<Runner>,
}

impl Running {
    /// How often it is denied by something that was not found.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.count.map_or(0, |count| count.unsigned_abs().saturating_sub(self.explained))
    }
}

/// A process that runs a file.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The process.
    pub tgid: u32,
    /// What the kernel told of it at the failure, if it did.
    pub told: Option<common::Runner>,
    /// When it ran it no more, and how.
    pub left: Option<(How, u64)>,
    /// Whether it is of the traced tree, if there is one.
    pub in_tree: bool,
    /// The script for which it is the interpreter, as it was asked to execute it.
    pub script: Option<Vec<u8>>,
}

/// Everything that was told of one failure.
#[derive(Clone, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct Case {
    /// The failure.
    pub failure: Failure,
    /// The holds on its inode, those that had just ended too.
    pub candidates: Vec<Candidate>,
    /// Holds that began after it.
    pub acquired: Vec<Change>,
    /// Holds that ended after it.
    pub released: Vec<Change>,
    /// What holders exec'd, by process, as they were asked to.
    pub execs: HashMap<u32, Vec<u8>>,
    /// Texts about the victim and the file.
    pub texts: HashMap<TextOf, Vec<u8>>,
    /// Executables of holders, by process; component names as the kernel side gives them.
    pub exes: HashMap<u32, Vec<u8>>,
    /// What the programs of openers were written in that had ended before they could be looked at, by process.
    pub runtimes: HashMap<u32, Runtime>,
    /// Paths of the descriptions that holders refer to, by process; component names.
    pub files: HashMap<u32, Vec<u8>>,
    /// When processes let go of descriptions that no table showed at the failure, by `struct file`
    /// and process.
    pub dropped: HashMap<(u64, u32), Drop>,
    /// Threads, by number, that were found to be opening the file for writing, or truncating it.
    pub opening: HashSet<u32>,
    /// Those that may have been.
    pub may_open: HashSet<u32>,
    /// What of the kernel, or which file system, user space found to keep the file, or to have refused
    /// the call.
    pub kept: Vec<Keeper>,
    /// How many references to the descriptions the kernel side did not find.
    pub references: u32,
    /// How many holders have no place of their own in the kernel side's maps.
    pub unplaced: u32,
    /// Since when fds from other processes are followed; 0 if they were not, then.
    pub passed_since_ns: u64,
    /// Descriptions that are registered with an io_uring of their opener, where the kernel side cannot
    /// see that (up to 5.14), by `struct file`.
    pub registered: HashSet<u64>,
    /// Whether something was lost by then that could have shown other holders.
    pub blind: bool,
    /// When fds were found to refer to another description, or none, whose end nothing has told; by
    /// table, fd and `struct file`.
    pub gone: HashMap<HoldPlace, u64>,
    /// Direction `write`: the processes that ran a file of the name in question.
    pub named: Vec<common::Runner>,
    /// Direction `write`: which file that was, if the failing call showed it.
    pub refused: Option<common::WriteRefused>,
    /// Direction `write`: the new file that the same process has made in its place.
    pub repaired: Option<common::Repaired>,
    /// Direction `write`: the file that was being run, and by whom.
    pub running: Option<Running>,
    /// Whether its own records are complete.
    pub told: bool,
    /// Whether some of them found no room.
    pub lost: bool,
    /// Whether the kernel has passed over some program by now: what was not seen may have been.
    pub passed_over: bool,
    /// How many bytes were told of it.
    pub(crate) bytes: usize,
    /// Whether anything has come to be known since it was last looked at.
    pub(crate) changed: bool,
}

impl Case {
    /// Whether a holder may have got its fd from another process, on a way that was not seen.
    #[must_use]
    pub fn has_passed(&self) -> bool {
        let enter_ns = self.failure.enter_ns;
        self.candidates.iter().any(|candidate| {
            let hold = &candidate.hold;
            let unseen = hold.found != 0
                && hold.acquired_ns > enter_ns
                && hold.via() == Some(Via::Unknown)
                && hold.opened.tgid != hold.tgid;
            unseen && candidate.pinned_by().is_none()
                || candidate.pinned_by() == Some(PinnedBy::Queue)
        })
    }

    /// The threads, with their processes, that sleep in a call which may be opening the file.
    #[must_use]
    pub fn openings(&self) -> Vec<(u32, u32)> {
        let opens = |candidate: &&Candidate| candidate.pinned_by() == Some(PinnedBy::Opening);
        let threads = self.candidates.iter().filter(opens);
        threads.map(|candidate| (candidate.hold.tgid, candidate.tid)).collect()
    }

    /// Whether a holder came to its fd on a way that was not seen.
    #[must_use]
    pub fn has_unseen(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.hold.via() == Some(Via::Unknown))
    }

    /// A text about the victim or the file.
    #[must_use]
    pub fn text(&self, of: TextOf) -> Option<&[u8]> {
        self.texts.get(&of).map(Vec::as_slice)
    }

    /// Whether it is about that inode, or that of a description of the file.
    fn is_of(&self, inode: u64) -> bool {
        self.failure.inode == inode
            || self.candidates.iter().any(|candidate| candidate.inode == inode)
    }

    /// Whether a process is among those that may have held the file.
    fn has_holder(&self, tgid: u32) -> bool {
        self.candidates.iter().any(|candidate| candidate.hold.tgid == tgid)
            || self.acquired.iter().any(|change| change.hold.tgid == tgid)
    }

    /// Whether it has a record of that hold.
    fn knows(&self, hold: &Hold) -> bool {
        self.candidates.iter().any(|candidate| candidate.hold.is(hold))
            || self.acquired.iter().any(|change| change.hold.is(hold))
    }

    /// The descriptions that no table shows and whose end is waited for: one that an exec has
    /// taken out of its table, and that waits in the task's work; one that is mapped; one that a
    /// system call or an io_uring keeps.
    fn lingering(&self) -> Vec<&Candidate> {
        let lingers = |candidate: &&Candidate| {
            let hold = &candidate.hold;
            let waits = candidate.fput_pending != 0 && hold.stage() == Some(Stage::Released);
            let mapped = candidate.open != 0 && hold.via() == Some(Via::Mapping);
            (waits || mapped || is_kept(candidate))
                && !self.dropped.contains_key(&(hold.file, hold.tgid))
        };
        self.candidates.iter().filter(lingers).collect()
    }

    /// Whether its grace period is over.
    fn is_due(&self, now_ns: u64) -> bool {
        now_ns >= self.failure.exit_ns.saturating_add(GRACE_NS)
    }

    /// The holds in fd tables whose end is waited for.
    fn unended(&self) -> impl Iterator<Item = Hold> {
        let told = self.candidates.iter().filter(|candidate| candidate.in_table != 0);
        let holds = told.map(|candidate| candidate.hold);
        let holds = holds.chain(self.acquired.iter().map(|change| change.hold));
        let ended = |hold: &Hold| {
            hold.stage() == Some(Stage::Released)
                || hold.via() == Some(Via::Mapping)
                || self.gone.contains_key(&hold.place())
                || self.released.iter().any(|change| change.hold.place() == hold.place())
        };
        holds.filter(move |hold| !ended(hold))
    }

    /// Whether the call was one that writes, and the file was being run.
    #[must_use]
    pub fn is_write(&self) -> bool {
        let call = i64::from(self.failure.syscall);
        ![libc::SYS_execve, libc::SYS_execveat].contains(&call)
    }

    /// The file system that refused the call, if it was one.
    #[must_use]
    pub fn refused_by(&self) -> Option<&FileSystem> {
        self.kept.iter().find_map(|keeper| match keeper {
            Keeper::FileSystem(found) => Some(found),
            _ => None,
        })
    }

    /// Whether nothing more will come to be known of it.
    fn is_settled(&self) -> bool {
        match &self.running {
            _ if self.refused_by().is_some() => true,
            Some(running) => running.runners.iter().all(|runner| runner.left.is_some()),
            None => !self.is_write() && self.attribution().is_settled(),
        }
    }

    /// Nothing more is taken in.
    fn close(mut self) -> Self {
        self.lost |= !self.told;
        self
    }

    /// Who held the file.
    #[must_use]
    pub fn attribution(&self) -> Attribution {
        attribution::attribute(self)
    }
}

/// Whether a process keeps the description of a candidate without an fd.
fn is_kept(candidate: &Candidate) -> bool {
    matches!(candidate.pinned_by(), Some(PinnedBy::Call | PinnedBy::IoUring))
}

/// What a record means for the session, beyond the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// Nothing.
    None,
    /// The records of this failure are complete: now is the time to look at its processes.
    Told(u64),
    /// The traced tree has ended.
    TreeEnded,
    /// A 32-bit program runs.
    Compat,
}

/// Failures whose story is not over, by the number the kernel side gave them.
#[derive(Debug, Default)]
pub struct Ledger {
    cases: BTreeMap<u64, Case>,
    /// How many bytes were told of them.
    bytes: usize,
    /// Until when it has heard what happened.
    heard_ns: u64,
    unkept: Unkept,
}

/// How much the ledger had no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unkept {
    /// Failures.
    pub failures: u64,
    /// Holds that began or ended after a failure, once for each failure.
    pub changes: u64,
}

impl Ledger {
    /// Takes in a record.
    pub fn record(&mut self, record: Record) -> Sign {
        let time_ns = match &record {
            Record::Failure(failure) => failure.exit_ns,
            Record::Acquired(change) => change.hold.acquired_ns,
            Record::Released(change) => change.hold.released_ns,
            _ => 0,
        };
        self.heard_ns = self.heard_ns.max(time_ns);
        match record {
            Record::Failure(_) if self.is_full() => self.unkept.failures += 1,
            Record::Failure(failure) => {
                self.cases.insert(failure.seq, Case { failure, ..Case::default() });
            }
            Record::Candidate(candidate) => {
                self.grow(candidate.seq, size_of::<Candidate>());
                if let Some(case) = self.cases.get_mut(&candidate.seq) {
                    case.candidates.push(*candidate);
                }
            }
            Record::Text(text) => self.text(text),
            Record::FailureEnd(end) => {
                if let Some(case) = self.cases.get_mut(&end.seq) {
                    case.told = true;
                    case.changed = true;
                    case.lost = end.lost != 0;
                    case.references = end.references;
                    case.unplaced = end.unplaced;
                    return Sign::Told(end.seq);
                }
            }
            Record::Acquired(change) => {
                // A copy of what was opened later is none of what was held.
                let matters = |case: &Case| change.hold.opened.time_ns <= case.failure.exit_ns;
                self.change(&change, matters, |case| &mut case.acquired);
            }
            Record::Released(change) => {
                // Its candidates may not all have been told yet.
                let matters = |case: &Case| !case.told || case.knows(&change.hold);
                self.change(&change, matters, |case| &mut case.released);
            }
            Record::TreeEnded(_) => return Sign::TreeEnded,
            Record::Compat(_) => return Sign::Compat,
            Record::Runner(runner) => {
                if let Some(case) = self.cases.get_mut(&runner.seq) {
                    case.named.push(*runner);
                }
            }
            Record::WriteRefused(refused) => {
                if let Some(case) = self.cases.get_mut(&refused.seq) {
                    case.refused = Some(refused);
                }
            }
            Record::Repaired(repaired) => {
                if let Some(case) = self.cases.get_mut(&repaired.seq) {
                    case.repaired = Some(repaired);
                    case.changed = true;
                }
            }
            Record::ProgramExited(left) => {
                let how = if left.ended == 0 { How::Exec } else { How::Exit };
                self.left(left.tgid, left.inode, how, left.time_ns);
            }
            Record::Dropped(dropped) => {
                let drop = Drop { time_ns: dropped.time_ns, exiting: dropped.exiting != 0 };
                self.dropped(dropped.file, dropped.tgid, drop);
            }
        }
        Sign::None
    }

    fn cases_of(&mut self, inode: u64) -> impl Iterator<Item = &mut Case> {
        // A description of overlayfs has an inode of its own.
        self.cases.values_mut().filter(move |case| case.is_of(inode))
    }

    /// Notes a change in the cases that it matters to.
    fn change(
        &mut self,
        change: &Change,
        matters: impl Fn(&Case) -> bool,
        list: impl Fn(&mut Case) -> &mut Vec<Change>,
    ) {
        let (mut kept, mut unkept) = (0, 0);
        for case in self.cases_of(change.inode).filter(|case| matters(case)) {
            let list = list(case);
            if list.len() < MOST_CHANGES {
                list.push(*change);
                case.bytes += size_of::<Change>();
                case.changed = true;
                kept += 1;
            } else {
                unkept += 1;
            }
        }
        self.bytes += kept * size_of::<Change>();
        self.unkept.changes += unkept;
    }

    /// The latest time that a record had.
    #[must_use]
    pub fn heard_ns(&self) -> u64 {
        self.heard_ns
    }

    /// Whether there is no room for another failure.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.cases.len() >= MOST || self.bytes >= MOST_BYTES
    }

    /// How much there was no room for, since this was last asked.
    pub fn take_unkept(&mut self) -> Unkept {
        std::mem::take(&mut self.unkept)
    }

    /// Notes that something has come to be known of a failure, in so many bytes.
    fn grow(&mut self, seq: u64, bytes: usize) {
        if let Some(case) = self.cases.get_mut(&seq) {
            case.bytes += bytes;
            case.changed = true;
            self.bytes += bytes;
        }
    }

    fn text(&mut self, text: Text) {
        self.grow(text.seq, text.bytes.len());
        let Some(case) = self.cases.get_mut(&text.seq) else { return };
        match text.of {
            TextOf::HolderExe => case.exes.insert(text.tgid, text.bytes),
            TextOf::HolderFile => case.files.insert(text.tgid, text.bytes),
            of => case.texts.insert(of, text.bytes),
        };
    }

    /// Whether a process may have held an inode at a failure, so that its exec is of interest.
    #[must_use]
    pub fn has_holder(&self, inode: u64, tgid: u32) -> bool {
        self.cases.values().any(|case| case.is_of(inode) && case.has_holder(tgid))
    }

    /// Notes what a holder of an inode exec'd.
    pub fn exec(&mut self, inode: u64, tgid: u32, name: &[u8]) {
        for case in self.cases_of(inode).filter(|case| case.has_holder(tgid)) {
            case.execs.insert(tgid, name.to_vec());
        }
    }

    /// The case of a failure.
    #[must_use]
    pub fn case(&self, seq: u64) -> Option<&Case> {
        self.cases.get(&seq)
    }

    /// Takes out the cases whose story is over at `now_ns`, until when all has been heard, in the order of their failures.
    pub fn settled(&mut self, now_ns: u64) -> Vec<Case> {
        let is_over = |case: &mut Case| {
            case.is_due(now_ns)
                || (std::mem::take(&mut case.changed) && case.told && case.is_settled())
        };
        let over: Vec<u64> =
            self.cases.iter_mut().filter_map(|(seq, case)| is_over(case).then_some(*seq)).collect();
        let over: Vec<Case> =
            over.iter().filter_map(|seq| self.cases.remove(seq)).map(Case::close).collect();
        self.bytes -= over.iter().map(|case| case.bytes).sum::<usize>();
        over
    }

    /// Takes out all cases.
    pub fn drain(&mut self) -> Vec<Case> {
        self.bytes = 0;
        std::mem::take(&mut self.cases).into_values().map(Case::close).collect()
    }

    /// The holds in fd tables whose end has not been told in their grace period, by table, fd and
    /// `struct file`.
    #[must_use]
    pub fn unended(&self, now_ns: u64) -> HashMap<HoldPlace, Hold> {
        let over = self.cases.values().filter(|case| case.is_due(now_ns));
        over.flat_map(Case::unended).map(|hold| (hold.place(), hold)).collect()
    }

    /// Notes that the fd of a hold was found not to refer to its description any more.
    pub fn gone(&mut self, hold: &Hold, time_ns: u64) {
        for case in self.cases.values_mut() {
            if case.unended().any(|other| other.place() == hold.place()) {
                case.gone.insert(hold.place(), time_ns);
            }
        }
    }

    /// When the next grace period is over.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.cases.values().map(|case| case.failure.exit_ns.saturating_add(GRACE_NS)).min()
    }

    /// The descriptions that no table shows and whose end is waited for, by `struct file *` and process.
    #[must_use]
    pub fn lingering(&self) -> HashMap<(u64, u32), Hold> {
        let lingering = self.cases.values().flat_map(Case::lingering);
        lingering
            .map(|candidate| ((candidate.hold.file, candidate.hold.tgid), candidate.hold))
            .collect()
    }

    /// Whether a process keeps a description without an fd.
    #[must_use]
    pub fn is_kept(&self, file: u64) -> bool {
        let mut candidates = self.cases.values().flat_map(|case| &case.candidates);
        candidates.any(|candidate| candidate.hold.file == file && is_kept(candidate))
    }

    /// Notes that a process has let go of a description.
    pub fn dropped(&mut self, file: u64, tgid: u32, drop: Drop) {
        for case in self.cases.values_mut() {
            case.dropped.entry((file, tgid)).or_insert(drop);
            case.changed = true;
        }
    }

    /// Notes what file refused to be written.
    pub fn running(&mut self, seq: u64, running: Running) {
        if let Some(case) = self.cases.get_mut(&seq) {
            case.running = Some(running);
            case.changed = true;
        }
    }

    /// Notes that a process runs a file, by its inode, no more.
    fn left(&mut self, tgid: u32, inode: u64, how: How, time_ns: u64) {
        // What was refused before the file was found knows no inode.
        let is_it = |case: &Case| case.refused.is_none_or(|refused| refused.inode == inode);
        for case in self.cases.values_mut().filter(|case| is_it(case)) {
            let runners = case.running.iter_mut().flat_map(|running| &mut running.runners);
            for runner in runners.filter(|runner| runner.tgid == tgid && runner.left.is_none()) {
                runner.left = Some((how, time_ns));
                case.changed = true;
            }
        }
    }

    /// A case, to add what was found out about it.
    pub fn case_mut(&mut self, seq: u64) -> Option<&mut Case> {
        let case = self.cases.get_mut(&seq)?;
        case.changed = true;
        Some(case)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use etxtbsy_trace_common::{Actor, FailureEnd};

    /// The busy file's `struct inode *`.
    const INODE: u64 = 7;

    fn failure(seq: u64) -> Record {
        Record::Failure(Failure { seq, exit_ns: seq, inode: INODE, ..Failure::default() })
    }

    fn end(seq: u64) -> Record {
        Record::FailureEnd(FailureEnd { seq, ..FailureEnd::default() })
    }

    /// A hold that process `tgid` has since `acquired_ns`, by a fork of process 1 if that is not it.
    fn hold(tgid: u32, acquired_ns: u64) -> Hold {
        let forked = Actor { tgid: 1, ..Actor::default() };
        let via = if tgid == 1 { Via::Open } else { Via::Fork } as u32;
        Hold { inode: INODE, tgid, table: tgid.into(), acquired_ns, via, forked, ..Hold::default() }
    }

    fn change(hold: Hold) -> Box<Change> {
        Box::new(Change { inode: INODE, hold, ..Change::default() })
    }

    #[test]
    fn failures_beyond_the_room_there_is_are_counted() {
        let mut ledger = Ledger::default();
        for seq in 1..=MOST as u64 + 3 {
            ledger.record(failure(seq));
        }
        assert!(ledger.is_full());
        assert_eq!(ledger.take_unkept(), Unkept { failures: 3, changes: 0 });
        assert_eq!(ledger.take_unkept(), Unkept::default());
        assert_eq!(ledger.settled(2 * GRACE_NS).len(), MOST);
        assert!(!ledger.is_full());
    }

    #[test]
    fn what_is_told_of_failures_takes_room_until_they_are_over() {
        let mut ledger = Ledger::default();
        ledger.record(failure(1));
        let text = || Text { seq: 1, of: TextOf::Path, tgid: 0, bytes: vec![0; MOST_BYTES / 2] };
        ledger.record(Record::Text(text()));
        assert!(!ledger.is_full());
        ledger.record(Record::Text(text()));
        assert!(ledger.is_full());
        ledger.settled(2 * GRACE_NS);
        assert!(!ledger.is_full());
    }

    #[test]
    fn copies_of_what_was_opened_later_are_not_kept() {
        let mut ledger = Ledger::default();
        ledger.record(failure(10));
        ledger.record(end(10));
        for tgid in 2..1002 {
            let mut copy = hold(tgid, 20);
            copy.opened.time_ns = 15;
            ledger.record(Record::Acquired(change(copy)));
            ledger.record(Record::Released(change(copy)));
        }
        let case = ledger.case(10).unwrap();
        assert_eq!((case.acquired.len(), case.released.len()), (0, 0));
        assert_eq!(ledger.take_unkept().changes, 0);
    }

    #[test]
    fn changes_beyond_the_room_there_is_are_counted() {
        let mut ledger = Ledger::default();
        ledger.record(failure(10));
        ledger.record(end(10));
        for tgid in 2..1002 {
            ledger.record(Record::Acquired(change(hold(tgid, 20))));
        }
        assert_eq!(ledger.case(10).unwrap().acquired.len(), MOST_CHANGES);
        assert_eq!(ledger.take_unkept().changes, 1000 - MOST_CHANGES as u64);
    }

    #[test]
    fn a_failure_whose_end_is_not_told_is_not_whole() {
        let mut ledger = Ledger::default();
        ledger.record(failure(1));
        ledger.record(failure(2));
        ledger.record(end(2));
        let lost: Vec<bool> = ledger.drain().iter().map(|case| case.lost).collect();
        assert_eq!(lost, [true, false]);
    }
}
