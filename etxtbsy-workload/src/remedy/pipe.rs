//! The pipe trick: a close-on-exec pipe that whoever copies the script's write fd copies too. Once
//! all its write ends are closed, so should be the script.

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::dup3;
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::{FromRawFd, OwnedFd};

/// Where fds are above all others of the workload.
const HIGH: i32 = 256;

/// An fd number, kept for the write end of one thread's pipes: an exec closes fds in the order of
/// their numbers, so that it matters.
pub(super) struct Place {
    fd: OwnedFd,
    nothing: File,
}

impl Place {
    /// One below all fds that are opened later, or one above.
    ///
    /// For below: as long as no fd that is open now is closed.
    pub(super) fn reserve(below: bool) -> Result<Self> {
        let min = if below { 0 } else { HIGH };
        let (fd, nothing) = (File::open("/dev/null")?, File::open("/dev/null")?);
        let number = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(min)).context("F_DUPFD_CLOEXEC")?;
        // SAFETY: the kernel has just given us this fd.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(number) }, nothing })
    }

    /// Opens a pipe, whose write end gets this place, and no other.
    pub(super) fn open(&mut self) -> Result<PipeReader> {
        let (reader, writer) = std::io::pipe()?;
        dup3(&writer, &mut self.fd, OFlag::O_CLOEXEC).context("dup3")?;
        Ok(reader)
    }

    /// Closes the write end, and waits until all copies of it are closed.
    pub(super) fn wait(&mut self, mut reader: PipeReader) -> Result<()> {
        dup3(&self.nothing, &mut self.fd, OFlag::O_CLOEXEC).context("dup3")?;
        reader.read_to_end(&mut Vec::new()).context("cannot read a pipe")?;
        Ok(())
    }
}
