//! What comes out: who held the file, what keeps it without a process, and who may have held it.

use etxtbsy_trace_common::{Actor, Hold, Holder, How, Via};

use crate::{
    analysis::case::Pin,
    event::{Evidence, Reason, State},
};

/// What came of one failure.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attribution {
    /// How many descriptions had write access; `None` if that is not known.
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

    /// Whether all writers are accounted for and all holders have dropped the file.
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
    pub pin: Pin,
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
    /// How and when it dropped the last of them; [`How::None`] if no event showed it: it had by then.
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
