//! The pipe remedy: a child that copies the script's write fd also copies the write end of a
//! close-on-exec pipe. The pipe's end of file should mean that all copies of the fd are closed.

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::dup3;
use std::fs::File;
use std::io::{PipeReader, Read};
use std::os::fd::{FromRawFd, OwnedFd};

/// An fd number above all others of the workload.
const HIGH: i32 = 256;

/// An fd number reserved for the write end of one thread's pipes. The number matters because an exec
/// closes fds in the order of their numbers.
pub(super) struct ReservedFd {
    fd: OwnedFd,
    dev_null: File,
}

impl ReservedFd {
    /// Reserves a number below all fds that are opened later, or above them.
    ///
    /// `below` requires that no fd that is open now is closed later.
    pub(super) fn reserve(below: bool) -> Result<Self> {
        let min = if below { 0 } else { HIGH };
        let (fd, dev_null) = (File::open("/dev/null")?, File::open("/dev/null")?);
        let number = fcntl(&fd, FcntlArg::F_DUPFD_CLOEXEC(min)).context("F_DUPFD_CLOEXEC")?;
        // SAFETY: the kernel has just created this fd, so nothing else owns it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(number) }, dev_null })
    }

    /// Opens a pipe whose write end has only this number.
    pub(super) fn open(&mut self) -> Result<PipeReader> {
        let (reader, writer) = std::io::pipe()?;
        dup3(&writer, &mut self.fd, OFlag::O_CLOEXEC).context("dup3")?;
        Ok(reader)
    }

    /// Closes the write end, and waits until all copies of it are closed.
    pub(super) fn wait(&mut self, mut reader: PipeReader) -> Result<()> {
        dup3(&self.dev_null, &mut self.fd, OFlag::O_CLOEXEC).context("dup3")?;
        reader.read_to_end(&mut Vec::new()).context("cannot read a pipe")?;
        Ok(())
    }
}
