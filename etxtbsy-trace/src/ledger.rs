//! The ledger: failures whose story is not over.
//!
//! Records go in as they come; a failure comes out when all that held its file are known to have
//! let go, or when the grace period is over. Nothing here looks at the machine.

use std::collections::{BTreeMap, HashMap, HashSet};

use etxtbsy_trace_common::{Candidate, Change, Failure, TextOf};

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
        if text.of == TextOf::ReleaseExec {
            // The records before it say that this process has let go of the file of these.
            let released = |case: &&mut Case| {
                case.released.iter().any(|change| change.hold.tgid == text.tgid)
            };
            for case in self.cases.values_mut().filter(released) {
                case.execs.insert(text.tgid, text.bytes.clone());
            }
            return;
        }
        let Some(case) = self.cases.get_mut(&text.seq) else { return };
        match text.of {
            TextOf::HolderExe => case.exes.insert(text.tgid, text.bytes),
            TextOf::HolderFile => case.files.insert(text.tgid, text.bytes),
            of => case.texts.insert(of as u32, text.bytes),
        };
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

    /// The inodes whose changes still matter.
    #[must_use]
    pub fn inodes(&self) -> HashSet<u64> {
        self.cases.values().map(|case| case.failure.inode).collect()
    }
}
