//! The ledger: failures whose story is not over.
//!
//! Records go in as they come; a failure comes out when all that held its file are known to have
//! let go, or when the grace period is over. Nothing here looks at the machine.

use std::collections::{BTreeMap, HashMap};

use etxtbsy_trace_common::{
    self as common, Candidate, Change, Failure, Hold, How, KeptBy, Stage, TextOf, Via,
};

use crate::{
    attribution::{self, Attribution},
    kernel::records::{Record, Text},
    process,
};

/// How long a failure waits for its holders to let go, in nanoseconds.
pub const GRACE_NS: u64 = 1_000_000_000;

/// The end of a description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// When its write access went.
    pub time_ns: u64,
    /// Whether that was done by a process that was ending.
    pub exiting: bool,
}

/// What keeps a description that no fd table shows and no mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// A system call under way in a thread of this process, whose fd was closed meanwhile.
    Call {
        /// The process.
        tgid: u32,
    },
    /// An io_uring of this process, with which it is registered.
    Ring {
        /// The process.
        tgid: u32,
    },
    /// The queue of a socket.
    SocketQueue,
    /// A loop device, such as `/dev/loop0`.
    LoopDevice(String),
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
    /// Its `i_writecount` at the failure: below zero, by how many it is being run.
    pub count: i32,
    /// The processes that run it.
    pub runners: Vec<Runner>,
}

/// A process that runs a file.
#[derive(Clone, Copy, Debug)]
pub struct Runner {
    /// The process.
    pub tgid: u32,
    /// What the kernel told of it at the failure, if it did.
    pub told: Option<common::Runner>,
    /// When it ran it no more, and how.
    pub left: Option<(How, u64)>,
}

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
    /// When processes let go of descriptions that no table showed at the failure, by `struct file`
    /// and process.
    pub dropped: HashMap<(u64, u32), Drop>,
    /// What keeps descriptions that no table and no mapping showed, by `struct file`.
    pub keepers: HashMap<u64, Keeper>,
    /// Direction `write`: the processes that ran a file of the name in question.
    pub named: Vec<common::Runner>,
    /// Direction `write`: the file that was being run, and by whom.
    pub running: Option<Running>,
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

    /// The descriptions that no table shows and whose end is waited for: one that an exec has
    /// taken out of its table, and that waits in the task's work; one that is mapped; one that a
    /// system call or an io_uring keeps.
    fn lingering(&self) -> Vec<&Candidate> {
        let lingers = |candidate: &&Candidate| {
            let hold = &candidate.hold;
            let waits = candidate.in_works != 0 && hold.stage == Stage::Released as u32;
            let mapped = candidate.open != 0 && hold.via == Via::Mapping as u32;
            let kept = matches!(
                self.keepers.get(&hold.file),
                Some(Keeper::Call { .. } | Keeper::Ring { .. })
            );
            (waits || mapped || kept) && !self.dropped.contains_key(&(hold.file, hold.tgid))
        };
        self.candidates.iter().filter(lingers).collect()
    }

    /// Whether the call was one that writes, and the file was being run.
    #[must_use]
    pub fn is_write(&self) -> bool {
        let call = i64::from(self.failure.syscall);
        ![libc::SYS_execve, libc::SYS_execveat].contains(&call)
    }

    /// Whether nothing more will come to be known of it.
    fn is_settled(&self) -> bool {
        match &self.running {
            Some(running) => running.runners.iter().all(|runner| runner.left.is_some()),
            None => !self.is_write() && self.attribution().is_settled(),
        }
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
    /// A 32-bit program runs.
    Compat,
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
            Record::Compat(_) => return Sign::Compat,
            Record::Keeper(told) => {
                let common::Keeper { seq, file, tgid, .. } = told;
                let keeper = match told.by {
                    by if by == KeptBy::Call as u32 && process::takes_fd(told.syscall) => {
                        Keeper::Call { tgid }
                    }
                    by if by == KeptBy::Ring as u32 => Keeper::Ring { tgid },
                    by if by == KeptBy::Queue as u32 => Keeper::SocketQueue,
                    _ => return Sign::None,
                };
                self.kept(seq, file, keeper);
            }
            Record::Runner(runner) => {
                if let Some(case) = self.cases.get_mut(&runner.seq) {
                    case.named.push(*runner);
                }
            }
            Record::Left(left) => {
                let how = if left.ended == 0 { How::Unmap } else { How::Exit };
                self.left(left.tgid, how, left.time_ns);
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
        self.cases.values_mut().filter(move |case| {
            case.failure.inode == inode
                || case.candidates.iter().any(|candidate| candidate.inode == inode)
        })
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
                now_ns >= case.failure.exit_ns + GRACE_NS || (case.told && case.is_settled())
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

    /// The descriptions that no table shows and whose end is waited for, by `struct file *` and process.
    #[must_use]
    pub fn lingering(&self) -> HashMap<(u64, u32), Hold> {
        let lingering = self.cases.values().flat_map(Case::lingering);
        lingering
            .map(|candidate| ((candidate.hold.file, candidate.hold.tgid), candidate.hold))
            .collect()
    }

    /// Whether it is known what keeps a description.
    #[must_use]
    pub fn is_kept(&self, file: u64) -> bool {
        self.cases.values().any(|case| case.keepers.contains_key(&file))
    }

    /// Notes that a process has let go of a description.
    pub fn dropped(&mut self, file: u64, tgid: u32, drop: Drop) {
        for case in self.cases.values_mut() {
            case.dropped.entry((file, tgid)).or_insert(drop);
        }
    }

    /// Notes what file refused to be written.
    pub fn running(&mut self, seq: u64, running: Running) {
        if let Some(case) = self.cases.get_mut(&seq) {
            case.running = Some(running);
        }
    }

    /// Notes that a process runs its program no more.
    pub fn left(&mut self, tgid: u32, how: How, time_ns: u64) {
        let running = self.cases.values_mut().filter_map(|case| case.running.as_mut());
        for runner in running.flat_map(|running| &mut running.runners) {
            if runner.tgid == tgid {
                runner.left.get_or_insert((how, time_ns));
            }
        }
    }

    /// Notes what keeps a description.
    pub fn kept(&mut self, seq: u64, file: u64, keeper: Keeper) {
        if let Some(case) = self.cases.get_mut(&seq) {
            case.keepers.entry(file).or_insert(keeper);
        }
    }
}
