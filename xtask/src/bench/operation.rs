//! The operations that are measured: repeated system calls.

use std::{
    ffi::{CStr, CString},
    fmt,
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd as _,
        unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process, ptr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use nix::{
    errno::Errno,
    sys::{
        prctl::set_pdeathsig,
        resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit},
        signal::{Signal, kill},
        time::TimeValLike as _,
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, pause},
};

/// Repetitions between two readings of the clock, which counts microseconds.
const BATCH: u32 = 2000;
/// The number of failing execs, which is small because each is an incident.
const FAILING: u32 = 200;
/// The number of idle processes.
const IDLE: usize = 2000;

/// An operation that is repeated.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Operation {
    NullCall,
    OpenForReading,
    OpenForWriting,
    SpawnFromSmall,
    SpawnFromWriter,
    SpawnFromServer,
    FailingExec,
    FailingExecAmongMany,
}

/// The measurement of an operation.
pub(super) struct Measured {
    /// The CPU time of a call, including its child's; three quarters of the batches took longer.
    pub(super) nanoseconds: f64,
    pub(super) calls: u64,
}

impl Operation {
    /// The operations that are measured without and with tracing.
    pub(super) const PAIRED: [Self; 6] = [
        Self::NullCall,
        Self::OpenForReading,
        Self::OpenForWriting,
        Self::SpawnFromSmall,
        Self::SpawnFromWriter,
        Self::SpawnFromServer,
    ];

    /// Its name on the command line.
    pub(super) fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |it| it.get_name().to_owned())
    }

    /// The number of open fds of the calling process, and how many of them are for writing.
    fn fds(self) -> (i32, usize) {
        match self {
            Self::SpawnFromSmall => (10, 0),
            Self::SpawnFromWriter => (10, 2),
            Self::SpawnFromServer => (1000, 0),
            _ => (0, 0),
        }
    }

    /// Repeats the operation for that long in this process, with a new file in `dir`.
    pub(super) fn measure(self, slice: Duration, dir: &Path) -> Result<Measured> {
        let file = Scratch::new(dir)?;
        let (fds, writers) = self.fds();
        let open = open_fds(fds, writers, &file)?;
        let idle = if let Self::FailingExecAmongMany = self { IDLE } else { 0 };
        let _idle = (0..idle).map(|_| Idle::start()).collect::<Result<Vec<_>>>()?;
        let (batch, slice) = match self {
            Self::NullCall | Self::OpenForReading | Self::OpenForWriting => (BATCH, slice),
            Self::FailingExec | Self::FailingExecAmongMany => (FAILING, Duration::ZERO),
            _ => (1, slice),
        };
        let mut calls = 0;
        let mut batches = Vec::new();
        let mut timed = || {
            let before = all_cpu_time()?;
            self.repeat(batch, &file)?;
            calls += u64::from(batch);
            anyhow::Ok((all_cpu_time()? - before) * 1e3 / f64::from(batch))
        };
        if slice > Duration::ZERO {
            // The first batch fills the caches, so it is not counted.
            timed()?;
        }
        let began = Instant::now();
        while batches.is_empty() || began.elapsed() < slice {
            batches.push(timed()?);
        }
        drop(open);
        // Other processes on the machine make some batches slower, never faster.
        let quarter = batches.len() / 4;
        let nanoseconds = *batches.select_nth_unstable_by(quarter, f64::total_cmp).1;
        Ok(Measured { nanoseconds, calls })
    }

    fn repeat(self, times: u32, file: &Scratch) -> Result<()> {
        let fails = matches!(self, Self::FailingExec | Self::FailingExecAmongMany);
        let busy = fails.then(|| file.open()).transpose()?;
        // Not a range, which is slow in a debug build.
        let mut left = times;
        while left > 0 {
            left -= 1;
            match self {
                Self::NullCall => {
                    // SAFETY: getppid(2) takes no arguments.
                    unsafe { libc::syscall(libc::SYS_getppid) };
                }
                Self::OpenForReading => open_and_close(&file.path, libc::O_RDONLY)?,
                Self::OpenForWriting => open_and_close(&file.path, libc::O_WRONLY)?,
                Self::SpawnFromSmall | Self::SpawnFromWriter | Self::SpawnFromServer => spawn()?,
                Self::FailingExec | Self::FailingExecAmongMany => {
                    let errno = exec(&file.path);
                    ensure!(
                        errno == Errno::ETXTBSY,
                        "the exec failed with {errno} instead of ETXTBSY"
                    );
                }
            }
        }
        drop(busy);
        Ok(())
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NullCall => "a call that is not traced (getppid)",
            Self::OpenForReading => "open and close, for reading",
            Self::OpenForWriting => "open and close, for writing",
            Self::SpawnFromSmall => "fork, exec, wait; 10 fds",
            Self::SpawnFromWriter => "fork, exec, wait; 10 fds, 2 for writing",
            Self::SpawnFromServer => "fork, exec, wait; 1000 fds",
            Self::FailingExec => "an exec that fails with ETXTBSY",
            Self::FailingExecAmongMany => "the same, beside 2000 idle processes",
        })
    }
}

/// An idle child, which is killed when this is dropped.
struct Idle(Pid);

impl Idle {
    fn start() -> Result<Self> {
        // SAFETY: the child only makes system calls.
        match unsafe { fork() }.context("cannot fork")? {
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

impl Measured {
    /// Parses the output of [`fmt::Display`].
    pub(super) fn of(text: &str) -> Option<Self> {
        let (nanoseconds, calls) = text.trim_end().split_once(' ')?;
        Some(Self { nanoseconds: nanoseconds.parse().ok()?, calls: calls.parse().ok()? })
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.nanoseconds, self.calls)
    }
}

/// The CPU time of this process and of its ended children, in microseconds. Unlike elapsed time, it does
/// not include waiting for a CPU.
fn all_cpu_time() -> Result<f64> {
    Ok(cpu_time(UsageWho::RUSAGE_SELF)? + cpu_time(UsageWho::RUSAGE_CHILDREN)?)
}

/// The CPU time of this process or of its children.
pub(super) fn cpu_time(who: UsageWho) -> Result<f64> {
    let usage = getrusage(who)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64)
}

/// A file that only this process uses, removed when dropped.
struct Scratch {
    path: CString,
}

impl Scratch {
    fn new(dir: &Path) -> Result<Self> {
        let path: PathBuf = dir.join(format!("etxtbsy-trace-bench-{}", process::id()));
        // An empty file: an exec that does not fail with ETXTBSY fails with ENOEXEC.
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o700)
            .open(&path)
            .with_context(|| format!("cannot create {}: choose another --dir", path.display()))?;
        Ok(Self { path: CString::new(path.into_os_string().into_encoded_bytes())? })
    }

    fn as_path(&self) -> &Path {
        Path::new(std::ffi::OsStr::from_bytes(self.path.to_bytes()))
    }

    /// Opens the file for writing.
    fn open(&self) -> Result<File> {
        Ok(OpenOptions::new().write(true).open(self.as_path())?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone: another process may clean the directory.
        let _ = fs::remove_file(self.as_path());
    }
}

/// Opens files until this process has `fds` open, `writers` of them for writing. Each open is its own
/// description.
fn open_fds(fds: i32, writers: usize, file: &Scratch) -> Result<Vec<File>> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Some shells set a lower limit.
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(2048).min(hard), hard)?;
    let mut open = (0..writers).map(|_| file.open()).collect::<Result<Vec<_>>>()?;
    loop {
        let next = File::open("/dev/null")?;
        if next.as_raw_fd() >= fds {
            return Ok(open);
        }
        open.push(next);
    }
}

fn open_and_close(path: &CStr, flags: i32) -> Result<()> {
    // SAFETY: the path is a C string, and no other code has the new fd.
    let closed = unsafe { libc::close(libc::open(path.as_ptr(), flags)) };
    Errno::result(closed).context("cannot open or close")?;
    Ok(())
}

/// Execs a file; returns only if that fails.
fn exec(path: &CStr) -> Errno {
    let words = [path.as_ptr(), ptr::null()];
    // SAFETY: C strings and null-terminated arrays of them, which outlive the call; the second is empty.
    unsafe { libc::execve(path.as_ptr(), words.as_ptr(), &raw const words[1]) };
    Errno::last()
}

/// Runs /bin/true in a child, and waits for it to end.
fn spawn() -> Result<()> {
    // SAFETY: the child only makes system calls.
    let child = Errno::result(unsafe { libc::fork() }).context("cannot fork")?;
    if child == 0 {
        exec(c"/bin/true");
        // SAFETY: _exit(2) has no preconditions.
        unsafe { libc::_exit(127) };
    }
    let mut status = 0;
    // SAFETY: the pointer refers to `status`, which outlives the call.
    Errno::result(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
    ensure!(status == 0, "/bin/true failed: wait status {status}");
    Ok(())
}
