//! The child process, by its pidfd.

use crate::host::pidfd;
use anyhow::{Context, Result};
use libc::c_int;
use nix::errno::Errno;
use std::{
    cell::Cell,
    io::{self},
    mem,
    os::fd::{AsRawFd, OwnedFd, RawFd},
};

/// The child process. It is not reaped before `reap`, so its pid is not reused.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: c_int,
    pub(super) pidfd: OwnedFd,
    /// Whether it still waits before its exec.
    pub(super) awaits_start: bool,
    /// The signal that killed it, once it is reaped.
    pub(super) killed_by: Cell<Option<c_int>>,
}

impl Child {
    pub(super) fn new(pid: c_int) -> Result<Self> {
        let pidfd = pidfd::open(pid).context("pidfd_open (needs Linux 5.3 or newer)")?;
        Ok(Self { pid, pidfd, awaits_start: true, killed_by: Cell::new(None) })
    }

    pub(super) fn send(&self, signal: c_int) -> nix::Result<()> {
        pidfd::send(&self.pidfd, signal)
    }

    /// Reaps it; returns `None` if `flags` has WNOHANG and it has not ended.
    ///
    /// Uses libc, because nix has no value for real-time signals.
    pub(super) fn reap(&self, flags: c_int) -> io::Result<Option<u8>> {
        // SAFETY: all zeroes is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let id = self.pidfd.as_raw_fd().cast_unsigned();
        loop {
            // SAFETY: the pointer refers to `info`, which outlives the call.
            let done =
                unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | flags) };
            match Errno::result(done) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        // SAFETY: waitid fills in the SIGCHLD fields or leaves them zero; both are valid.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        Ok(match info.si_code {
            _ if pid == 0 => None,
            libc::CLD_EXITED => Some(status as u8),
            _ => {
                self.killed_by.set(Some(status));
                Some((128 + status) as u8)
            }
        })
    }
}

impl AsRawFd for Child {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // End of file on the pipe is not enough: the process may be stopped.
        if self.awaits_start && self.send(libc::SIGKILL).is_ok() {
            let _ = self.reap(0);
        }
    }
}
