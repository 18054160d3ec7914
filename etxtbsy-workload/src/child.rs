//! Forked children that do one thing each and report with their exit status.

use super::report::Task;
use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::{ForkResult, Pid};
use std::ffi::{CString, c_char, c_int};
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{iter, ptr};

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

    /// Replaces this process, with the path as the first argument and no environment; returns
    /// the errno if that fails.
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

/// Closes an fd that is nobody's value: one that was inherited, or that another thread uses.
pub(super) fn close(fd: RawFd) {
    // SAFETY: see above; what the fd refers to is not used again.
    unsafe { libc::close(fd) };
}

/// Tells whoever reads the pipe some numbers, at once.
pub(super) fn tell<const N: usize>(writer: &PipeWriter, numbers: [i64; N]) {
    // SAFETY: a pipe takes up to PIPE_BUF bytes at once; the buffer is as long as it says.
    unsafe {
        libc::write(writer.as_raw_fd(), numbers.as_ptr().cast(), size_of_val(&numbers));
    }
}

/// Reads what a child tells.
pub(super) fn hear<const N: usize>(mut reader: &PipeReader) -> Result<[i64; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        let mut bytes = [0; 8];
        reader.read_exact(&mut bytes).context("a child of the workload ended too early")?;
        *number = i64::from_ne_bytes(bytes);
    }
    Ok(numbers)
}

/// Just before and just after a call, in nanoseconds of CLOCK_MONOTONIC.
pub(super) type Span = (u64, u64);

/// Makes a call and notes when.
pub(super) fn timed<T>(call: impl FnOnce() -> T) -> (T, Span) {
    let now = || {
        // Cannot fail: the clock exists on every Linux.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap_or(TimeSpec::new(0, 0));
        now.num_nanoseconds().cast_unsigned()
    };
    let before = now();
    let value = call();
    (value, (before, now()))
}

/// A forked child that plays a part in a scene: it tells numbers, and waits to be told to go on.
pub(super) struct Actor {
    pid: Pid,
    go: PipeWriter,
    told: PipeReader,
}

/// An actor's own end of it.
pub(super) struct Cue {
    gate: PipeReader,
    tell: PipeWriter,
}

impl Actor {
    /// As [`fork`]; what `part` returns is the child's exit status.
    pub(super) fn start(part: impl FnOnce(&Cue) -> nix::Result<()>) -> Result<Self> {
        let (gate, go) = std::io::pipe()?;
        let (told, tell) = std::io::pipe()?;
        let cue = Cue { gate, tell };
        let pid = fork(|| {
            // Or the end of the parent would not end the pipe.
            close(go.as_raw_fd());
            part(&cue).map_or_else(|errno| errno as c_int, |()| 0)
        })?;
        Ok(Self { pid, go, told })
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// Its first thread.
    pub(super) fn task(&self) -> Task {
        Task::main_of(self.pid.as_raw())
    }

    /// What it tells next.
    pub(super) fn hear<const N: usize>(&self) -> Result<[i64; N]> {
        hear(&self.told)
    }

    /// Lets it go on, with a number.
    pub(super) fn go(&self, number: i64) -> Result<()> {
        Ok((&self.go).write_all(&number.to_ne_bytes())?)
    }

    /// Lets it go on to its end, and gives when that was.
    pub(super) fn end(self) -> Result<Span> {
        let (outcome, span) = timed(|| {
            self.go(0)?;
            wait_success(self.pid)
        });
        outcome.map(|()| span)
    }

    /// Lets it go on to its end, by [`Cue::let_go`], and gives when it made that call.
    pub(super) fn let_go(self) -> Result<Span> {
        self.go(0)?;
        let [before, after] = self.hear()?;
        wait_success(self.pid)?;
        Ok((before.cast_unsigned(), after.cast_unsigned()))
    }
}

impl Cue {
    /// Tells the parent some numbers.
    pub(super) fn tell<const N: usize>(&self, numbers: [i64; N]) {
        tell(&self.tell, numbers);
    }

    /// Waits until the parent says go, and gives its number; EPIPE if the parent has ended.
    pub(super) fn wait(&self) -> nix::Result<i64> {
        let mut bytes = [0; 8];
        match nix::unistd::read(&self.gate, &mut bytes)? {
            8 => Ok(i64::from_ne_bytes(bytes)),
            _ => Err(Errno::EPIPE),
        }
    }

    /// Once the parent says go, makes the call that lets go of the file, and tells when.
    pub(super) fn let_go(&self, call: impl FnOnce()) -> nix::Result<()> {
        self.wait()?;
        let ((), (before, after)) = timed(call);
        self.tell([before.cast_signed(), after.cast_signed()]);
        Ok(())
    }
}
