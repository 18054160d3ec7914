//! A call in progress has write access to the file, which no fd table shows.

use super::{Busy, Named, Supported, until};
use crate::child::{Actor, Program, close, wait_success};
use crate::report::{Holder, Scene};
use anyhow::{Context, Result};
use etxtbsy_trace_event::{Evidence, VerdictKind, Via};
use nix::NixPath as _;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;
use std::ffi::c_int;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;

pub(super) const SCENES: &[Named] =
    &[("open-under-way", open_under_way), ("truncate-under-way", truncate_under_way)];

/// open(2) for writing waits until a lease is released.
fn open_under_way() -> Result<Scene> {
    behind_lease("openat", |path| {
        let fd = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?.into_raw_fd();
        close(fd);
        Ok(())
    })
}

/// The same for truncate(2).
fn truncate_under_way() -> Result<Scene> {
    behind_lease("truncate", |path| {
        let call = |path: &std::ffi::CStr| unsafe {
            // SAFETY: the path is a C string that outlives the call.
            libc::truncate(path.as_ptr(), 1)
        };
        Errno::result(path.with_nix_path(call)?).map(drop)
    })
}

/// A process waits in `call` for a lease. Another had the file open for writing and exec'd before the
/// lease, so it does not hold the file.
fn behind_lease(syscall: &str, call: impl FnOnce(&Path) -> nix::Result<()>) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let program = Program::new(Path::new("/bin/cat"))?;
    let (stdin, life) = std::io::pipe()?;
    // The exec closes the write end of this pipe.
    let (mut execed, writer) = std::io::pipe()?;
    let innocent = Actor::start(|_| {
        // The exec closes it.
        let _file = open(&busy.path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        nix::unistd::dup2_stdin(&stdin)?;
        Err(program.exec())
    })?;
    drop(writer);
    execed.read_to_end(&mut Vec::new())?;

    let real = Actor::start(|control| {
        // Otherwise `innocent` would not end.
        close(life.as_raw_fd());
        control.wait()?;
        call(&busy.path)
    })?;
    let lease = Lease::new(&busy.path)?;
    real.resume(0)?;
    until("a call waits for the lease", || lease.is_broken())?;
    victim.exec()?;
    drop(lease);
    wait_success(real.pid())?;
    drop(life);
    wait_success(innocent.pid())?;

    let holder = Holder {
        opened: None,
        evidence: Some(Evidence::KernelObject),
        call: Some(syscall.into()),
        ..Holder::other(real.task(), Via::Open, real.task(), [])
    };
    Ok(victim.scene(VerdictKind::StillOpen, vec![holder]))
}

/// A read lease on a file, released when dropped.
struct Lease(File);

impl Lease {
    fn new(path: &Path) -> Result<Self> {
        // SAFETY: the signal, which asks to release the lease, is ignored, so no handler runs.
        unsafe { signal(Signal::SIGIO, SigHandler::SigIgn) }.context("cannot ignore SIGIO")?;
        let file = File::open(path)?;
        until("a lease can be taken", || match fcntl(&file, libc::F_SETLEASE, libc::F_RDLCK) {
            Err(Errno::EAGAIN) => Ok(false),
            outcome => outcome.map(|_| true).supported("F_SETLEASE"),
        })?;
        Ok(Self(file))
    }

    /// Whether a call waits for the end of the lease.
    fn is_broken(&self) -> Result<bool> {
        Ok(fcntl(&self.0, libc::F_GETLEASE, 0)? == libc::F_UNLCK)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // If this fails, closing the file releases the lease.
        let _ = fcntl(&self.0, libc::F_SETLEASE, libc::F_UNLCK);
    }
}

fn fcntl(file: &File, command: c_int, argument: c_int) -> nix::Result<c_int> {
    // SAFETY: the commands take a number.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), command, argument) })
}
