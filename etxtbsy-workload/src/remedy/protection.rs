//! The remedies: what each does between writing a script and spawning it.

use super::super::child;
use super::super::race::Counts;
use super::super::stage::{self, SCRIPT};
use super::pipe::ReservedFd;
use super::spawn::Spawn;
use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// For how long a busy exec is retried.
const RETRY_FOR: Duration = Duration::from_secs(1);
/// The first wait before a retry; each later one is twice as long.
const FIRST_WAIT: Duration = Duration::from_micros(100);

/// A remedy against the race.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, clap::ValueEnum)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Protection {
    /// No remedy.
    #[value(skip)]
    #[strum(serialize = "unprotected")]
    None,
    /// Holds a mutex during the call that spawns.
    MutexSpawn,
    /// Holds a mutex from the write until the child's exit.
    MutexChildExit,
    /// flock(2): the writer locks the script, and a reader waits for the lock.
    Flock,
    /// fsync(2) before the close.
    Fsync,
    /// Writes another name, and renames it.
    Rename,
    /// Waits for the end of a pipe; the script's fd is above the pipe's.
    PipeAbove,
    /// Waits for the end of a pipe; the pipe's fd is above the script's.
    PipeBelow,
    /// Repeats the spawn while it fails with ETXTBSY, for at most a second.
    Retry,
    /// A child process writes the script.
    WriteInChild,
}

/// The result of writing a script and running it.
pub(super) struct Run {
    /// Whether an exec succeeded in the end.
    pub(super) ran: bool,
    /// The time from the first exec to the last.
    pub(super) tried_for: Duration,
}

/// What the threads share.
pub(super) struct Kit {
    protection: Protection,
    spawn: Spawn,
    /// How long a thread waits between the close of its script and the spawn.
    pause: Duration,
    mutex: Mutex<()>,
    /// One for each thread, reserved before any thread opens a file.
    reserved: Mutex<Vec<ReservedFd>>,
}

impl Kit {
    pub(super) fn new(
        protection: Protection,
        spawn: Spawn,
        threads: u32,
        pause: Duration,
    ) -> Result<Self> {
        let reserved = match protection {
            Protection::PipeAbove | Protection::PipeBelow => threads,
            _ => 0,
        };
        let reserve = |_| ReservedFd::reserve(protection == Protection::PipeAbove);
        let reserved = (0..reserved).map(reserve).collect::<Result<_>>()?;
        let (mutex, reserved) = (Mutex::default(), Mutex::new(reserved));
        Ok(Self { protection, spawn, pause, mutex, reserved })
    }

    /// Returns what a thread does repeatedly with the script at `path`.
    pub(super) fn racer(
        &self,
        path: PathBuf,
        counts: &Counts,
    ) -> Result<impl FnMut() -> Result<Run>> {
        let c_path = CString::new(path.as_os_str().as_bytes())?;
        let mut reserved_fd = lock(&self.reserved).pop();
        Ok(move || {
            let _guard = (self.protection == Protection::MutexChildExit).then(|| lock(&self.mutex));
            match (self.protection, &mut reserved_fd) {
                (Protection::Flock, _) => write_locked(&path)?,
                (Protection::WriteInChild, _) => write_in_child(&c_path)?,
                (Protection::Fsync, _) => stage::rewrite_script(&path)?.sync_all()?,
                (Protection::Rename, _) => {
                    let new = path.with_extension("new");
                    drop(stage::rewrite_script(&new)?);
                    fs::rename(&new, &path)?;
                }
                (_, Some(reserved_fd)) => {
                    let reader = reserved_fd.open()?;
                    drop(stage::rewrite_script(&path)?);
                    reserved_fd.wait(reader)?;
                }
                (_, None) => drop(stage::rewrite_script(&path)?),
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
            self.run(&path, counts)
        })
    }

    /// Runs the script, once or until it is no longer busy.
    fn run(&self, path: &Path, counts: &Counts) -> Result<Run> {
        let start = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let spawned = {
                let _guard = (self.protection == Protection::MutexSpawn).then(|| lock(&self.mutex));
                self.spawn.spawn(path)?
            };
            let tried_for = start.elapsed();
            let busy = counts.attempt(spawned.errno()?)?;
            if !busy || self.protection != Protection::Retry || tried_for > RETRY_FOR {
                return Ok(Run { ran: !busy, tried_for });
            }
            thread::sleep(wait);
            wait *= 2;
        }
    }
}

/// Locks even if a thread has panicked: joining that thread reports the panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the script and locks it through the write fd. The lock belongs to the open file description,
/// so the kernel releases it only when all copies of the fd are closed.
fn write_locked(path: &Path) -> Result<()> {
    let file = stage::rewrite_script(path)?;
    file.lock().context("flock")?;
    drop(file);
    File::open(path)?.lock_shared().context("flock")
}

/// Writes the script in a forked child, and waits until the child has ended.
fn write_in_child(path: &CStr) -> Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
    let writer = child::fork(|| {
        let written = open(path, flags, Mode::from_bits_truncate(0o777))
            .and_then(|file| nix::unistd::write(file, SCRIPT));
        match written {
            Ok(_) => 0,
            Err(errno) => errno as i32,
        }
    })?;
    child::wait_success(writer).with_context(|| format!("cannot write {}", path.to_string_lossy()))
}
