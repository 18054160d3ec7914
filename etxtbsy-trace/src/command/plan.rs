//! What the child does between fork and exec, where it must not allocate.

use super::{signals::reset_signal_handlers, strings::CStrings};
use crate::{host::user::Invoker, provoke::Installation};
use anyhow::Result;
use libc::{c_char, c_int, gid_t, uid_t};
use nix::{errno::Errno, sys::signal::SigSet};
use std::{os::fd::RawFd, ptr};

unsafe extern "C" {
    /// environ(7).
    static mut environ: *const *const c_char;
}

/// What the child does after the fork, with all data that it needs.
pub(super) struct ChildPlan {
    pub(super) argv: CStrings,
    pub(super) environment: CStrings,
    pub(super) identity: Option<Identity>,
    pub(super) provocation: Option<Installation>,
    /// The command's signal mask.
    pub(super) signal_mask: SigSet,
    /// Pairs of an fd of this process and the fd that it becomes in the command.
    pub(super) streams: Vec<(RawFd, RawFd)>,
    pub(super) start_fd: RawFd,
    pub(super) failure_fd: RawFd,
    /// The parent's ends of the pipes.
    pub(super) parent_fds: [RawFd; 2],
}

impl ChildPlan {
    /// Waits for the start, then execs the command. Exits if the exec fails or the parent has ended.
    ///
    /// # Safety
    ///
    /// Call this only in a process just forked, in which the plan's fds are open. It calls only
    /// async-signal-safe functions, and execvp(3), which in glibc (since 2.24) and musl uses no heap
    /// memory and no locks.
    pub(super) unsafe fn run(&self) -> ! {
        // SAFETY: the C library gets numbers, and pointers to data that `self` and this frame keep alive;
        // the argument lists end with null.
        unsafe {
            for fd in self.parent_fds {
                libc::close(fd);
            }
            // A stopped process (Ctrl-Z) does not notice the end of the pipe.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            reset_signal_handlers();
            libc::pthread_sigmask(libc::SIG_SETMASK, self.signal_mask.as_ref(), ptr::null_mut());

            let mut byte = 0_u8;
            let got = loop {
                let got = libc::read(self.start_fd, (&raw mut byte).cast(), 1);
                if got >= 0 || Errno::last() != Errno::EINTR {
                    break got;
                }
            };
            if got != 1 {
                libc::_exit(1);
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);

            let mut step = Step::Exec;
            let dup_fails = |(ours, theirs): &(RawFd, RawFd)| libc::dup2(*ours, *theirs) < 0;
            if self.streams.iter().any(dup_fails) {
                step = Step::Dup2;
            // While it still has the privileges to do so without no_new_privs.
            } else if self.provocation.as_ref().is_some_and(|provocation| !provocation.install()) {
                step = Step::Filter;
            } else if let Some(identity) = &self.identity
                && let Err(failed) = identity.assume()
            {
                step = failed;
            } else {
                let argv = &self.argv.pointers;
                // Not execvpe(3): it would look up the command in this process's PATH.
                environ = self.environment.pointers.as_ptr();
                libc::execvp(argv[0], argv.as_ptr());
            }
            let failure = ChildFailure { step, errno: Errno::last_raw() }.to_bytes();
            libc::write(self.failure_fd, failure.as_ptr().cast(), failure.len());
            libc::_exit(126);
        }
    }
}

/// The ids that the child changes to.
pub(super) struct Identity {
    pub(super) uid: uid_t,
    pub(super) gid: gid_t,
    pub(super) groups: Vec<gid_t>,
}

impl From<&Invoker> for Identity {
    fn from(user: &Invoker) -> Self {
        Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: user.groups.iter().map(|group| group.as_raw()).collect(),
        }
    }
}

impl Identity {
    /// Changes to the ids, the user last because the others need root; sets errno on failure.
    ///
    /// # Safety
    ///
    /// Call this only in a process just forked.
    unsafe fn assume(&self) -> Result<(), Step> {
        // SAFETY: the calls get numbers, and the pointer and length of a vector in `self`.
        unsafe {
            if libc::setgroups(self.groups.len(), self.groups.as_ptr()) != 0 {
                return Err(Step::SetGroups);
            }
            if libc::setgid(self.gid) != 0 {
                return Err(Step::SetGid);
            }
            if libc::setuid(self.uid) != 0 {
                return Err(Step::SetUid);
            }
            // It must not be possible to become root again.
            if self.uid != 0 && libc::setuid(0) == 0 {
                Errno::EPERM.set();
                return Err(Step::StayUser);
            }
        }
        Ok(())
    }
}

/// The step at which the child failed.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Exec,
    SetGroups,
    SetGid,
    SetUid,
    StayUser,
    Dup2,
    Filter,
}

impl Step {
    const ALL: [Self; 7] = [
        Self::Exec,
        Self::SetGroups,
        Self::SetGid,
        Self::SetUid,
        Self::StayUser,
        Self::Dup2,
        Self::Filter,
    ];

    /// The call that failed, if the step changes the identity.
    pub(super) fn call(self) -> Option<&'static str> {
        match self {
            Self::Exec | Self::Dup2 | Self::Filter => None,
            Self::SetGroups => Some("setgroups"),
            Self::SetGid => Some("setgid"),
            Self::SetUid => Some("setuid"),
            Self::StayUser => Some("setuid can be undone"),
        }
    }
}

/// The failure that the child writes to its pipe.
pub(super) struct ChildFailure {
    pub(super) step: Step,
    pub(super) errno: c_int,
}

impl ChildFailure {
    fn to_bytes(&self) -> [u8; 5] {
        let [a, b, c, d] = self.errno.to_ne_bytes();
        [self.step as u8, a, b, c, d]
    }

    /// `None` if the child wrote nothing.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&step, errno) = bytes.split_first()?;
        Some(Self {
            step: *Step::ALL.get(usize::from(step))?,
            errno: c_int::from_ne_bytes(errno.try_into().ok()?),
        })
    }
}
