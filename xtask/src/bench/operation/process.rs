//! Children of this process.

use std::{ffi::CStr, ptr};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::{
        prctl::set_pdeathsig,
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork as fork_here, pause},
};

/// Runs `child` in a new process, which ends with status 127 if that returns.
///
/// # Safety
///
/// `child` only makes system calls, because this process may have other threads.
pub(super) unsafe fn fork(child: impl FnOnce()) -> Result<i32> {
    // SAFETY: the caller's.
    let pid = Errno::result(unsafe { libc::fork() }).context("cannot fork")?;
    if pid == 0 {
        child();
        exit(127);
    }
    Ok(pid)
}

/// Ends this process at once.
pub(super) fn exit(status: i32) -> ! {
    // SAFETY: _exit(2) has no preconditions.
    unsafe { libc::_exit(status) }
}

/// Execs a file; returns only if that fails.
pub(super) fn exec(path: &CStr) -> Errno {
    let words = [path.as_ptr(), ptr::null()];
    // SAFETY: C strings and null-terminated arrays of them, which outlive the call; the second is empty.
    unsafe { libc::execve(path.as_ptr(), words.as_ptr(), &raw const words[1]) };
    Errno::last()
}

/// Waits for a child to end, which must succeed.
pub(super) fn wait(child: i32) -> Result<()> {
    let mut status = 0;
    // SAFETY: the pointer refers to `status`, which outlives the call.
    Errno::result(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    ensure!(status == 0, "a child failed: wait status {status}");
    Ok(())
}

/// An idle child, which is killed when this is dropped.
pub(super) struct Idle(Pid);

impl Idle {
    pub(super) fn start(number: usize) -> Result<Vec<Self>> {
        (0..number).map(|_| Self::start_one()).collect()
    }

    fn start_one() -> Result<Self> {
        // SAFETY: the child only makes system calls.
        match unsafe { fork_here() }.context("cannot fork")? {
            ForkResult::Parent { child } => Ok(Self(child)),
            ForkResult::Child => {
                // It must not outlive this process, even if that is killed.
                let _ = set_pdeathsig(Signal::SIGKILL);
                loop {
                    pause();
                }
            }
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // The child has not been waited for, so its pid is not reused.
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}
