//! Forked children that do one thing each and report with their exit status.

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use std::ffi::{CString, c_char, c_int};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Forks a child that runs `body` and exits with what it returns.
///
/// For processes of one thread, or for a `body` of system calls only.
pub(super) fn fork(body: impl FnOnce() -> c_int) -> Result<Pid> {
    // SAFETY: see above: no lock can be held by a thread that the child does not have.
    match unsafe { nix::unistd::fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = body();
            // SAFETY: always sound; exit(3) would flush and run what belongs to the parent.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Waits for the end of a child and gives its exit status.
pub(super) fn wait(pid: Pid) -> Result<c_int> {
    match waitpid(pid, None).context("waitpid")? {
        WaitStatus::Exited(_, status) => Ok(status),
        other => bail!("a child of the workload ended unexpectedly: {other:?}"),
    }
}

/// Waits for a child that should do its work.
pub(super) fn wait_success(pid: Pid) -> Result<()> {
    let status = wait(pid)?;
    ensure!(status == 0, "a child of the workload failed: {}", Errno::from_raw(status));
    Ok(())
}

/// Waits for a child whose exit status is the errno of its exec, which should be ETXTBSY.
pub(super) fn wait_busy(pid: Pid) -> Result<()> {
    match wait(pid)? {
        libc::ETXTBSY => Ok(()),
        0 => bail!(
            "the exec of a file open for writing passed: \
             this kernel does not deny it (see: etxtbsy-trace check)"
        ),
        errno => bail!("the exec failed with {} instead of ETXTBSY", Errno::from_raw(errno)),
    }
}

/// A program with its arguments, laid out before the fork so that the exec is one system call.
pub(super) struct Program {
    path: CString,
}

impl Program {
    pub(super) fn new(path: &Path) -> Result<Self> {
        Ok(Self { path: CString::new(path.as_os_str().as_bytes())? })
    }

    /// Replaces this process, with the path as its only argument and no environment; returns
    /// the errno if that fails.
    pub(super) fn exec(&self) -> c_int {
        let argv = [self.path.as_ptr(), ptr::null()];
        let envp: [*const c_char; 1] = [ptr::null()];
        // SAFETY: a C string and two lists of them that end with a null pointer.
        unsafe { libc::execve(self.path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        Errno::last_raw()
    }
}

/// Closes a copy of an fd that was inherited from the parent.
pub(super) fn close(fd: RawFd) {
    // SAFETY: called in forked children, whose parent's copy stays; they never use theirs again.
    unsafe { libc::close(fd) };
}

/// In a child: waits until the parent says go, or has ended.
pub(super) fn await_go(reader: &PipeReader, writer: &PipeWriter) {
    // Or the end of the parent would not end the pipe.
    close(writer.as_raw_fd());
    let mut byte = 0_u8;
    // SAFETY: the buffer is one byte long.
    unsafe { libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1) };
}

/// In a child: tells the parent some numbers, at once.
pub(super) fn tell<const N: usize>(writer: &PipeWriter, numbers: [i32; N]) {
    // SAFETY: a pipe takes up to PIPE_BUF bytes at once; the buffer is as long as it says.
    unsafe {
        libc::write(writer.as_raw_fd(), numbers.as_ptr().cast(), size_of_val(&numbers));
    }
}

/// Reads what a child tells.
pub(super) fn hear<const N: usize>(mut reader: &PipeReader) -> Result<[i32; N]> {
    use std::io::Read;
    let mut numbers = [0_i32; N];
    for number in &mut numbers {
        let mut bytes = [0; 4];
        reader.read_exact(&mut bytes).context("a child of the workload ended too early")?;
        *number = i32::from_ne_bytes(bytes);
    }
    Ok(numbers)
}
