//! The ledger: failures whose story is not over.
//!
//! Records go in as they come; a failure comes out when all that held its file are known to have
//! let go, or when the grace period is over. Nothing here looks at the machine.

use std::collections::{BTreeMap, HashMap, HashSet};

use etxtbsy_trace_common::{Candidate, Change, Failure, Stage, TextOf};

use crate::{
    attribution::{self, Attribution},
    kernel::records::{Record, Text},
};

/// How long a failure waits for its holders to let go, in nanoseconds.
pub const GRACE_NS: u64 = 1_000_000_000;

/// Everything that was told of one failure.
#[derive(Clone, Debug, Default)]
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
    pub texts: HashMap<u32, Vec<u8>>,
    /// Executables of holders, by process; component names as the kernel side gives them.
    pub exes: HashMap<u32, Vec<u8>>,
    /// Paths of the descriptions that holders refer to, by process; component names.
    pub files: HashMap<u32, Vec<u8>>,
    /// When descriptions that waited in a task's work at the failure were found to wait no more,
    /// by task and `struct file`.
    pub drained: HashMap<(u64, u64), u64>,
    /// Whether its own records are complete.
    pub told: bool,
    /// Whether some of them found no room.
    pub lost: bool,
}

impl Case {
    /// A text about the victim or the file.
    #[must_use]
    pub fn text(&self, of: TextOf) -> Option<&[u8]> {
        self.texts.get(&(of as u32)).map(Vec::as_slice)
    }

    /// Who held the file.
    #[must_use]
    pub fn attribution(&self) -> Attribution {
        attribution::attribute(self)
    }
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
}

/// Failures whose story is not over, by the number the kernel side gave them.
#[derive(Debug, Default)]
pub struct Ledger {
    cases: BTreeMap<u64, Case>,
}

impl Ledger {
    /// Takes in a record.
    pub fn record(&mut self, record: Record) -> Sign {
        match record {
            Record::Failure(failure) => {
                self.cases.insert(failure.seq, Case { failure, ..Case::default() });
            }
            Record::Candidate(candidate) => {
                if let Some(case) = self.cases.get_mut(&candidate.seq) {
                    case.candidates.push(*candidate);
                }
            }
            Record::Text(text) => self.text(text),
            Record::FailureEnd(end) => {
                if let Some(case) = self.cases.get_mut(&end.seq) {
                    case.told = true;
                    case.lost = end.lost != 0;
                    return Sign::Told(end.seq);
                }
            }
            Record::Acquired(change) => {
                for case in self.cases_of(change.inode) {
                    case.acquired.push(*change);
                }
            }
            Record::Released(change) => {
                for case in self.cases_of(change.inode) {
                    case.released.push(*change);
                }
            }
            Record::TreeEnded(_) => return Sign::TreeEnded,
        }
        Sign::None
    }

    fn cases_of(&mut self, inode: u64) -> impl Iterator<Item = &mut Case> {
        self.cases.values_mut().filter(move |case| case.failure.inode == inode)
    }

    fn text(&mut self, text: Text) {
        let Some(case) = self.cases.get_mut(&text.seq) else { return };
        match text.of {
            TextOf::HolderExe => case.exes.insert(text.tgid, text.bytes),
            TextOf::HolderFile => case.files.insert(text.tgid, text.bytes),
            of => case.texts.insert(of as u32, text.bytes),
        };
    }

    /// Notes what a holder of an inode exec'd.
    pub fn exec(&mut self, inode: u64, tgid: u32, name: &[u8]) {
        for case in self.cases_of(inode) {
            case.execs.insert(tgid, name.to_vec());
        }
    }

    /// The case of a failure.
    #[must_use]
    pub fn case(&self, seq: u64) -> Option<&Case> {
        self.cases.get(&seq)
    }

    /// Takes out the cases whose story is over at `now_ns`, in the order of their failures.
    pub fn settled(&mut self, now_ns: u64) -> Vec<Case> {
        let over: Vec<u64> = self
            .cases
            .iter()
            .filter(|(_, case)| {
                now_ns >= case.failure.exit_ns + GRACE_NS
                    || (case.told && case.attribution().is_settled())
            })
            .map(|(seq, _)| *seq)
            .collect();
        over.iter().filter_map(|seq| self.cases.remove(seq)).collect()
    }

    /// Takes out all cases.
    pub fn drain(&mut self) -> Vec<Case> {
        std::mem::take(&mut self.cases).into_values().collect()
    }

    /// When the next grace period is over.
    #[must_use]
    pub fn deadline_ns(&self) -> Option<u64> {
        self.cases.values().map(|case| case.failure.exit_ns + GRACE_NS).min()
    }

    /// The descriptions that had left their table before a failure and still waited in a task's
    /// work then, and have not been found to be gone: task and `struct file`.
    #[must_use]
    pub fn draining(&self) -> HashSet<(u64, u64)> {
        let waiting = |case: &Case| {
            let waited = |candidate: &&Candidate| {
                candidate.in_works != 0 && candidate.hold.stage == Stage::Released as u32
            };
            let files = case.candidates.iter().filter(waited);
            files.map(|candidate| (candidate.hold.task, candidate.hold.file)).collect::<Vec<_>>()
        };
        self.cases
            .values()
            .flat_map(|case| {
                waiting(case).into_iter().filter(|file| !case.drained.contains_key(file))
            })
            .collect()
    }

    /// Notes that a description waits no more.
    pub fn drained(&mut self, file: (u64, u64), now_ns: u64) {
        for case in self.cases.values_mut() {
            case.drained.entry(file).or_insert(now_ns);
        }
    }
}
