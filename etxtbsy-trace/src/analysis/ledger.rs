//! The ledger: failures that are pending.
//!
//! Records go in as they come. A failure comes out when all its holders are known to have dropped the
//! file, or when the grace period is over. Nothing here looks at the machine.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
};

use etxtbsy_trace_common::{Candidate, Change, Hold, HoldPlace, How, TextOf};

use super::{
    attribution::{Attribution, attribute},
    case::{Case, DescriptionClosed, GRACE_NS, Running, is_pinned},
};
use crate::tracer::records::{Record, Text};

/// How many failures are kept at once, and about how many bytes of records.
const MOST: usize = 1024;
const MOST_BYTES: usize = 64 << 20;
/// How many holds that began after it are kept for a failure, and how many ends of holds: those
/// that matter are among the first.
const MOST_CHANGES: usize = 256;

/// What a record means for the session, beyond the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerEvent {
    /// Nothing.
    None,
    /// The records of this failure are complete: now is the time to look at its processes.
    Reported(u64),
    /// The records of this near miss are complete.
    NearMiss(u64),
    /// The traced tree has ended.
    TreeEnded,
    /// A 32-bit program runs.
    Compat,
}

/// Failures whose story is not over, by the number the kernel side gave them.
#[derive(Debug, Default)]
pub struct Ledger {
    cases: BTreeMap<u64, Entry>,
    /// How many bytes of records they have.
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
    /// Near misses.
    pub near_misses: u64,
    /// Holds that began or ended after a failure, once for each failure.
    pub changes: u64,
}

/// A failure that is pending.
#[derive(Debug, Default)]
struct Entry {
    case: Case,
    /// How many bytes of records it has.
    bytes: usize,
    /// Whether anything has come to be known since it was last judged as settled or not.
    changed: bool,
    /// Who held the file, as far as is known now, if that was asked.
    attribution: OnceCell<Rc<Attribution>>,
}

impl Entry {
    /// The case, to be changed.
    fn change(&mut self) -> &mut Case {
        self.note_change();
        &mut self.case
    }

    fn note_change(&mut self) {
        self.changed = true;
        self.attribution.take();
    }

    /// Who held the file: judged once for each change.
    fn attribution(&self) -> Rc<Attribution> {
        Rc::clone(self.attribution.get_or_init(|| Rc::new(attribute(&self.case))))
    }

    /// Whether nothing more will come to be known of it.
    fn is_settled(&self) -> bool {
        let case = &self.case;
        match &case.running {
            _ if case.refused_by().is_some() => true,
            Some(running) => running.runners.iter().all(|runner| runner.left.is_some()),
            None => !case.is_write() && self.attribution().is_settled(),
        }
    }

    /// Takes the case out: no more records come.
    fn close(self) -> Case {
        let mut case = self.case;
        case.lost |= !case.reported;
        case
    }
}

impl Ledger {
    /// Adds a record.
    pub fn record(&mut self, record: Record) -> LedgerEvent {
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
                self.begin(Case { failure, ..Case::default() });
            }
            Record::NearMiss(_) if self.is_full() => self.unkept.near_misses += 1,
            Record::NearMiss(failure) => {
                self.begin(Case { failure, succeeded: true, ..Case::default() });
            }
            Record::Candidate(candidate) => {
                if let Some(case) = self.grow(candidate.seq, size_of::<Candidate>()) {
                    case.candidates.push(*candidate);
                }
            }
            Record::Text(text) => self.text(text),
            Record::FailureEnd(end) => {
                if let Some(case) = self.case_mut(end.seq) {
                    case.reported = true;
                    case.lost = end.lost != 0;
                    case.references = end.references;
                    case.unplaced = end.unplaced;
                    return if case.succeeded {
                        LedgerEvent::NearMiss(end.seq)
                    } else {
                        LedgerEvent::Reported(end.seq)
                    };
                }
            }
            Record::Acquired(change) => {
                // A copy of what was opened later is none of what was held.
                let matters = |case: &Case| change.hold.opened.time_ns <= case.failure.exit_ns;
                self.change(&change, matters, |case| &mut case.acquired);
            }
            Record::Released(change) => {
                // Its candidates may not all have been read yet.
                let matters = |case: &Case| !case.reported || case.knows(&change.hold);
                self.change(&change, matters, |case| &mut case.released);
            }
            Record::TreeEnded(_) => return LedgerEvent::TreeEnded,
            Record::Compat(_) => return LedgerEvent::Compat,
            Record::Runner(runner) => {
                if let Some(case) = self.case_mut(runner.seq) {
                    case.named.push(*runner);
                }
            }
            Record::WriteRefused(refused) => {
                if let Some(case) = self.case_mut(refused.seq) {
                    case.refused = Some(refused);
                }
            }
            Record::Repaired(repaired) => {
                if let Some(case) = self.case_mut(repaired.seq) {
                    case.repaired = Some(repaired);
                }
            }
            Record::ProgramExited(left) => {
                let how = if left.ended == 0 { How::Exec } else { How::Exit };
                self.left(left.tgid, left.inode, how, left.time_ns);
            }
            Record::Dropped(dropped) => {
                let exiting = dropped.exiting != 0;
                let closed = DescriptionClosed { time_ns: dropped.time_ns, exiting };
                self.dropped(dropped.file, dropped.tgid, closed);
            }
        }
        LedgerEvent::None
    }

    fn begin(&mut self, case: Case) {
        self.cases.insert(case.failure.seq, Entry { case, ..Entry::default() });
    }

    fn entries_of(&mut self, inode: u64) -> impl Iterator<Item = &mut Entry> {
        // A description of overlayfs has an inode of its own.
        self.cases.values_mut().filter(move |entry| entry.case.is_of(inode))
    }

    /// Notes a change in the cases that it matters to.
    fn change(
        &mut self,
        change: &Change,
        matters: impl Fn(&Case) -> bool,
        list: impl Fn(&mut Case) -> &mut Vec<Change>,
    ) {
        let (mut kept, mut unkept) = (0, 0);
        for entry in self.entries_of(change.inode).filter(|entry| matters(&entry.case)) {
            if list(&mut entry.case).len() < MOST_CHANGES {
                list(entry.change()).push(*change);
                entry.bytes += size_of::<Change>();
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

    /// The case of a failure, of which so many bytes more are kept.
    fn grow(&mut self, seq: u64, bytes: usize) -> Option<&mut Case> {
        let entry = self.cases.get_mut(&seq)?;
        entry.bytes += bytes;
        self.bytes += bytes;
        Some(entry.change())
    }

    fn text(&mut self, text: Text) {
        let Some(case) = self.grow(text.seq, text.bytes.len()) else { return };
        match text.of {
            TextOf::HolderExe => case.exes.insert(text.tgid, text.bytes),
            TextOf::HolderFile => case.files.insert(text.tgid, text.bytes),
            of => case.texts.insert(of, text.bytes),
        };
    }

    /// Whether a process may have held an inode at a failure, so that its exec is of interest.
    #[must_use]
    pub fn has_holder(&self, inode: u64, tgid: u32) -> bool {
        self.cases().any(|case| case.is_of(inode) && case.has_holder(tgid))
    }

    /// Notes what a holder of an inode exec'd.
    pub fn exec(&mut self, inode: u64, tgid: u32, name: &[u8]) {
        for entry in self.entries_of(inode).filter(|entry| entry.case.has_holder(tgid)) {
            entry.change().execs.insert(tgid, name.to_vec());
        }
    }

    /// The case of a failure.
    #[must_use]
    pub fn case(&self, seq: u64) -> Option<&Case> {
        self.cases.get(&seq).map(|entry| &entry.case)
    }

    fn cases(&self) -> impl Iterator<Item = &Case> {
        self.cases.values().map(|entry| &entry.case)
    }

    /// Who held the file of a failure, as far as is known now.
    #[must_use]
    pub fn attribution(&self, seq: u64) -> Option<Rc<Attribution>> {
        self.cases.get(&seq).map(Entry::attribution)
    }

    /// Takes out the cases that are settled at `now_ns`, up to which all records were read, in the order of
    /// their failures.
    pub fn settled(&mut self, now_ns: u64) -> Vec<Case> {
        let is_over = |entry: &mut Entry| {
            entry.case.is_due(now_ns)
                || (std::mem::take(&mut entry.changed) && entry.case.reported && entry.is_settled())
        };
        let over: Vec<u64> = self
            .cases
            .iter_mut()
            .filter_map(|(seq, entry)| is_over(entry).then_some(*seq))
            .collect();
        let over: Vec<Entry> = over.iter().filter_map(|seq| self.cases.remove(seq)).collect();
        self.bytes -= over.iter().map(|entry| entry.bytes).sum::<usize>();
        closed_failures(over)
    }

    /// How many failures since that moment are not settled.
    #[must_use]
    pub fn failures_since(&self, time_ns: u64) -> usize {
        let failures = self.cases.values().map(|entry| &entry.case).filter(|case| !case.succeeded);
        failures.filter(|case| case.failure.exit_ns >= time_ns).count()
    }

    /// Takes out a case.
    pub fn take(&mut self, seq: u64) -> Option<Case> {
        let entry = self.cases.remove(&seq)?;
        self.bytes -= entry.bytes;
        Some(entry.close())
    }

    /// Takes out all cases.
    pub fn drain(&mut self) -> Vec<Case> {
        self.bytes = 0;
        closed_failures(std::mem::take(&mut self.cases).into_values())
    }

    /// The holds in fd tables whose end no event showed in their grace period, by table, fd and
    /// `struct file`.
    #[must_use]
    pub fn unended(&self, now_ns: u64) -> HashMap<HoldPlace, Hold> {
        let over = self.cases().filter(|case| case.is_due(now_ns));
        over.flat_map(Case::unended).map(|hold| (hold.place(), hold)).collect()
    }

    /// Notes that the fd of a hold was found not to refer to its description any more.
    pub fn gone(&mut self, hold: &Hold, time_ns: u64) {
        for entry in self.cases.values_mut() {
            if entry.case.unended().any(|other| other.place() == hold.place()) {
                entry.change().gone.insert(hold.place(), time_ns);
            }
        }
    }

    /// When the next grace period is over.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.cases().map(|case| case.failure.exit_ns.saturating_add(GRACE_NS)).min()
    }

    /// The descriptions that no table shows and whose end is waited for, by `struct file *` and process.
    #[must_use]
    pub fn pending_releases(&self) -> HashMap<(u64, u32), Hold> {
        let lingering = self.cases().flat_map(Case::pending_releases);
        lingering
            .map(|candidate| ((candidate.hold.file, candidate.hold.tgid), candidate.hold))
            .collect()
    }

    /// Whether a process keeps a description without an fd.
    #[must_use]
    pub fn is_pinned(&self, file: u64) -> bool {
        let mut candidates = self.cases().flat_map(|case| &case.candidates);
        candidates.any(|candidate| candidate.hold.file == file && is_pinned(candidate))
    }

    /// Notes that a process has dropped a description.
    pub fn dropped(&mut self, file: u64, tgid: u32, closed: DescriptionClosed) {
        // One whose candidates are not all there yet may have that description.
        let matters = |case: &Case| !case.reported || case.refers_to(file);
        for entry in self.cases.values_mut().filter(|entry| matters(&entry.case)) {
            entry.change().dropped.entry((file, tgid)).or_insert(closed);
        }
    }

    /// Notes what file refused to be written.
    pub fn running(&mut self, seq: u64, running: Running) {
        if let Some(case) = self.case_mut(seq) {
            case.running = Some(running);
        }
    }

    /// Notes that a process runs a file, by its inode, no more.
    fn left(&mut self, tgid: u32, inode: u64, how: How, time_ns: u64) {
        // What was refused before the file was found knows no inode.
        let is_it = |case: &Case| case.refused.is_none_or(|refused| refused.inode == inode);
        for entry in self.cases.values_mut().filter(|entry| is_it(&entry.case)) {
            let runners = entry.case.running.iter_mut().flat_map(|running| &mut running.runners);
            let mut has_left = false;
            for runner in runners.filter(|runner| runner.tgid == tgid && runner.left.is_none()) {
                runner.left = Some((how, time_ns));
                has_left = true;
            }
            if has_left {
                entry.note_change();
            }
        }
    }

    /// A case, to add what was found out about it.
    pub fn case_mut(&mut self, seq: u64) -> Option<&mut Case> {
        self.cases.get_mut(&seq).map(Entry::change)
    }
}

/// The failures of these entries. A near miss that is still there has lost the end of its records, and says nothing.
fn closed_failures(entries: impl IntoIterator<Item = Entry>) -> Vec<Case> {
    entries.into_iter().filter(|entry| !entry.case.succeeded).map(Entry::close).collect()
}

#[cfg(test)]
mod tests {
    use etxtbsy_trace_common::{Failure, Via};

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
        assert_eq!(ledger.take_unkept(), Unkept { failures: 3, ..Unkept::default() });
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
