//! Forked children, whose exit status is an errno or 0.

use super::clock::now_ns;
use super::report::Task;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid};
use std::ffi::{CString, c_char, c_int};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{iter, ptr};

/// Forks a child that runs `body` and exits with the status that it returns.
///
/// If this process has several threads, `body` may only make system calls.
pub(super) fn fork(body: impl FnOnce() -> c_int) -> Result<Pid> {
    // SAFETY: as required above, the child uses no lock that a missing thread may hold.
    match unsafe { nix::unistd::fork() }.context("fork")? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let status = body();
            // SAFETY: _exit(2) has no preconditions. (exit(3) would flush the parent's buffers.)
            unsafe { libc::_exit(status) }
        }
    }
}

/// Waits for a child to end, and returns its exit status.
pub(super) fn wait(pid: Pid) -> Result<c_int> {
    match waitpid(pid, None).context("waitpid")? {
        WaitStatus::Exited(_, status) => Ok(status),
        other => bail!("a child of the workload ended unexpectedly: {other:?}"),
    }
}

/// Waits for a child to end; its exit status must be 0.
pub(super) fn wait_success(pid: Pid) -> Result<()> {
    let status = wait(pid)?;
    ensure!(status == 0, "a child of the workload failed: {}", Errno::from_raw(status));
    Ok(())
}

/// Waits for a child to end; its exit status, the errno of its exec, must be ETXTBSY.
pub(super) fn wait_busy(pid: Pid) -> Result<()> {
    match wait(pid)? {
        libc::ETXTBSY => Ok(()),
        0 => bail!(
            "the exec of a file that is open for writing succeeded: \
             this kernel does not refuse it (see: etxtbsy-trace check)"
        ),
        errno => bail!("the exec failed with {} instead of ETXTBSY", Errno::from_raw(errno)),
    }
}

/// A program with its arguments, allocated before the fork so that the exec is one system call.
pub(super) struct Program {
    path: CString,
    arguments: Vec<CString>,
}

impl Program {
    pub(super) fn new(path: &Path) -> Result<Self> {
        Self::with_arguments(path, &[])
    }

    pub(super) fn with_arguments(path: &Path, arguments: &[&str]) -> Result<Self> {
        Ok(Self {
            path: CString::new(path.as_os_str().as_bytes())?,
            arguments: arguments
                .iter()
                .map(|argument| CString::new(*argument))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Execs the program, with the path as the first argument and an empty environment; returns the
    /// errno if that fails.
    pub(super) fn exec(&self) -> Errno {
        let mut argv = [ptr::null(); 4];
        let words = iter::once(&self.path).chain(&self.arguments);
        for (slot, word) in argv.iter_mut().take(3).zip(words) {
            *slot = word.as_ptr();
        }
        let envp: [*const c_char; 1] = [ptr::null()];
        // SAFETY: a C string and two lists of them that end with a null pointer.
        unsafe { libc::execve(self.path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
        Errno::last()
    }
}

/// Closes an fd that no Rust value owns: an inherited one, or one that another thread uses.
pub(super) fn close(fd: RawFd) {
    // SAFETY: no value owns the fd, so nothing uses it after this.
    unsafe { libc::close(fd) };
}

/// Writes numbers to the pipe in one call.
pub(super) fn send_numbers<const N: usize>(writer: &PipeWriter, numbers: [i64; N]) {
    // SAFETY: the pointer and the length are those of `numbers`.
    unsafe {
        libc::write(writer.as_raw_fd(), numbers.as_ptr().cast(), size_of_val(&numbers));
    }
}

/// Reads the numbers that a child sent.
pub(super) fn receive_numbers<const N: usize>(mut reader: &PipeReader) -> Result<[i64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        reader.read_exact(&mut bytes).context("a child of the workload ended too early")?;
        *number = i64::from_ne_bytes(bytes);
    }
    Ok(numbers)
}

/// The times just before and just after a call, in nanoseconds of CLOCK_MONOTONIC.
pub(super) type Span = (u64, u64);

/// Makes a call and records its times.
pub(super) fn timed<T>(call: impl FnOnce() -> T) -> (T, Span) {
    let before = now_ns();
    let value = call();
    (value, (before, now_ns()))
}

/// A forked child of a scene. It sends numbers to its parent, and waits until the parent resumes it.
pub(super) struct Actor {
    pid: Pid,
    resume_writer: PipeWriter,
    report_reader: PipeReader,
}

/// The child's connection to its parent.
pub(super) struct Control {
    resume_reader: PipeReader,
    report_writer: PipeWriter,
}

impl Actor {
    /// Forks the child, which runs `part` and exits with the errno that it returns, or 0.
    pub(super) fn start(part: impl FnOnce(&Control) -> nix::Result<()>) -> Result<Self> {
        let (resume_reader, resume_writer) = std::io::pipe()?;
        let (report_reader, report_writer) = std::io::pipe()?;
        let control = Control { resume_reader, report_writer };
        let pid = fork(|| {
            // Otherwise the pipe would not end with the parent.
            close(resume_writer.as_raw_fd());
            part(&control).map_or_else(|errno| errno as c_int, |()| 0)
        })?;
        Ok(Self { pid, resume_writer, report_reader })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// The child's first thread.
    pub(super) fn task(&self) -> Task {
        Task::main_of(self.pid.as_raw())
    }

    /// The next numbers that the child sends.
    pub(super) fn receive<const N: usize>(&self) -> Result<[i64; N]> {
        receive_numbers(&self.report_reader)
    }

    /// Resumes the child, and sends it a number.
    pub(super) fn resume(&self, number: i64) -> Result<()> {
        Ok((&self.resume_writer).write_all(&number.to_ne_bytes())?)
    }

    /// Resumes the child, waits for it to end, and returns the times around that.
    pub(super) fn end(self) -> Result<Span> {
        let (outcome, span) = timed(|| {
            self.resume(0)?;
            wait_success(self.pid)
        });
        outcome.map(|()| span)
    }

    /// Resumes the child for [`Control::release`], waits for it to end, and returns the times of the call.
    pub(super) fn release(self) -> Result<Span> {
        self.resume(0)?;
        let [before, after] = self.receive()?;
        wait_success(self.pid)?;
        Ok((before.cast_unsigned(), after.cast_unsigned()))
    }
}

impl Control {
    /// Sends numbers to the parent.
    pub(super) fn send<const N: usize>(&self, numbers: [i64; N]) {
        send_numbers(&self.report_writer, numbers);
    }

    /// Waits until the parent resumes this child, and returns its number; EPIPE if the parent has ended.
    pub(super) fn wait(&self) -> nix::Result<i64> {
        let mut bytes = [0; 8];
        match nix::unistd::read(&self.resume_reader, &mut bytes)? {
            8 => Ok(i64::from_ne_bytes(bytes)),
            _ => Err(Errno::EPIPE),
        }
    }

    /// Waits until the parent resumes this child, makes the call that drops the file, and sends its times.
    pub(super) fn release(&self, call: impl FnOnce()) -> nix::Result<()> {
        self.wait()?;
        let ((), (before, after)) = timed(call);
        self.send([before.cast_signed(), after.cast_signed()]);
        Ok(())
    }
}
