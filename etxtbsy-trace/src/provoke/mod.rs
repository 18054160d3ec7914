//! Makes the race between a write, a fork and an exec likely, by holding up what races and nothing else: the first
//! write to a program, the fchmod that makes a file one, and every other exec by a child that has a write fd, or
//! close_range(2) that it calls before.
//!
//! Not held up: a chmod by path, which often comes after the close, where a delay makes failures less likely. Nor a
//! close. The kernel makes a call fail with EINTR if a signal handler without SA_RESTART interrupts
//! it before the supervisor has received it. Programs retry a write then, but not a close, and keep the fd.
//!
//! A seccomp filter of the command and its descendants asks a process of ours, the supervisor, about each of
//! these calls. The supervisor lets all of them continue, some after a random delay. No call ever gets another
//! result.
//!
//! Here: the filter, and the supervisor's two processes. Not here: the command (`command`).

mod delay;
mod filter;
mod handover;
mod listener;
mod process;
mod race;
mod supervisor;

pub use self::{
    delay::{LONGEST, random_seed},
    process::Installation,
};

use self::filter::{Filter, knows_flags};
use crate::event::Provoke;
use anyhow::{Context as _, ensure};
use rustix::thread::{CapabilitySet, capabilities};
use std::{
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    time::Duration,
};

/// What is provoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Provocation {
    /// The longest delay of a call.
    pub max: Duration,
    /// What the delays are derived from.
    pub seed: u64,
}

/// As it is recorded.
impl From<Provocation> for Provoke {
    fn from(Provocation { max, seed }: Provocation) -> Self {
        Self { max_ns: u64::try_from(max.as_nanos()).unwrap_or(u64::MAX), seed }
    }
}

impl From<Provoke> for Provocation {
    fn from(Provoke { max_ns, seed }: Provoke) -> Self {
        Self { max: Duration::from_nanos(max_ns), seed }
    }
}

/// A supervisor that waits for its command. When it is dropped, no call is delayed any more.
#[derive(Debug)]
pub struct Provoker {
    control: OwnedFd,
    filter: Filter,
}

impl Provoker {
    /// Forks the supervisor. To be called before this program has another thread, and before the command is forked.
    pub fn start(provocation: &Provocation) -> anyhow::Result<Self> {
        let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        ensure!(
            knows_flags(listener),
            "--provoke needs seccomp's user notification, which this kernel or this container does not \
             offer (CONFIG_SECCOMP_FILTER); run without --provoke"
        );
        // Before 5.19, a signal handler can interrupt a call during its whole delay. A child blocks signals or has no
        // handlers before its exec, but a process that writes may have some: only execs are delayed then.
        let waits_killable = knows_flags(listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
        let filter = Filter::new(waits_killable, Self::needs_no_new_privs()?);
        let (ours, theirs) = UnixStream::pair().context("cannot make a socket for --provoke")?;
        let control = process::start(provocation, ours.into(), &theirs.into())
            .context("cannot fork the supervisor of --provoke")?;
        Ok(Self { control, filter })
    }

    /// Whether the command gets no_new_privs: setuid programs then run without their privileges. The kernel lets a
    /// process without CAP_SYS_ADMIN install a filter only if an exec can give it no privileges.
    pub fn needs_no_new_privs() -> anyhow::Result<bool> {
        let own = capabilities(None).context("cannot read our capabilities")?;
        Ok(!own.effective.contains(CapabilitySet::SYS_ADMIN))
    }

    /// What the command's process has to do before its exec. Valid as long as `self`.
    #[must_use]
    pub fn installation(&self) -> Installation {
        Installation::new(self.filter.clone(), self.control.as_raw_fd())
    }
}
