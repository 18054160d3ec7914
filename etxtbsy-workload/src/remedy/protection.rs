//! What the remedies do between the write of a script and its spawn.

use super::super::child;
use super::super::race::Counts;
use super::super::stage::{self, SCRIPT};
use super::pipe::Place;
use super::spawn::Spawn;
use anyhow::{Context, Result};
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// For how long a busy exec is tried again.
const PATIENCE: Duration = Duration::from_secs(1);
/// The first wait before another try; each is twice as long as the one before.
const FIRST_WAIT: Duration = Duration::from_micros(100);

/// What is done against the race.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, clap::ValueEnum)]
#[strum(serialize_all = "kebab-case")]
pub(super) enum Protection {
    /// Nothing.
    #[value(skip)]
    #[strum(serialize = "unprotected")]
    None,
    /// A mutex is held round the call that spawns.
    MutexSpawn,
    /// A mutex is held from the write until the child's exit.
    MutexChildExit,
    /// flock(2): the script is locked by its writer, and a reader waits for that lock.
    Flock,
    /// The end of a pipe is waited for; the script's fd is above the pipe's.
    PipeAbove,
    /// The end of a pipe is waited for; the pipe's fd is above the script's.
    PipeBelow,
    /// Spawn again as long as it fails with ETXTBSY, for a second at most.
    Retry,
    /// A child process writes the script.
    WriteInChild,
}

/// What came of writing a script and running it.
pub(super) struct Run {
    /// Whether a call of exec passed in the end.
    pub(super) ran: bool,
    /// From the first call to the last.
    pub(super) tried: Duration,
}

/// What the threads share.
pub(super) struct Kit {
    protection: Protection,
    spawn: Spawn,
    mutex: Mutex<()>,
    /// One for each thread, reserved before the first of them opens anything.
    places: Mutex<Vec<Place>>,
}

impl Kit {
    pub(super) fn new(protection: Protection, spawn: Spawn, threads: u32) -> Result<Self> {
        let places = match protection {
            Protection::PipeAbove | Protection::PipeBelow => threads,
            _ => 0,
        };
        let reserve = |_| Place::reserve(protection == Protection::PipeAbove);
        let places = (0..places).map(reserve).collect::<Result<_>>()?;
        Ok(Self { protection, spawn, mutex: Mutex::default(), places: Mutex::new(places) })
    }

    /// What a thread does again and again, with the script at `path`.
    pub(super) fn racer(
        &self,
        path: PathBuf,
        counts: &Counts,
    ) -> Result<impl FnMut() -> Result<Run>> {
        let c_path = CString::new(path.as_os_str().as_bytes())?;
        let mut place = lock(&self.places).pop();
        Ok(move || {
            let _guard = (self.protection == Protection::MutexChildExit).then(|| lock(&self.mutex));
            match (self.protection, &mut place) {
                (Protection::Flock, _) => write_locked(&path)?,
                (Protection::WriteInChild, _) => write_in_child(&c_path)?,
                (_, Some(place)) => {
                    let reader = place.open()?;
                    drop(stage::rewrite_script(&path)?);
                    place.wait(reader)?;
                }
                (_, None) => drop(stage::rewrite_script(&path)?),
            }
            self.run(&path, counts)
        })
    }

    /// Runs the script, once or until it is not busy.
    fn run(&self, path: &Path, counts: &Counts) -> Result<Run> {
        let start = Instant::now();
        let mut wait = FIRST_WAIT;
        loop {
            let spawned = {
                let _guard = (self.protection == Protection::MutexSpawn).then(|| lock(&self.mutex));
                self.spawn.spawn(path)?
            };
            let tried = start.elapsed();
            let busy = counts.attempt(spawned.errno()?)?;
            if !busy || self.protection != Protection::Retry || tried > PATIENCE {
                return Ok(Run { ran: !busy, tried });
            }
            thread::sleep(wait);
            wait *= 2;
        }
    }
}

/// Locks, also after a thread has panicked: its own end is told when it is joined.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes the script and locks it by the fd of its writer. The lock is that of the open file
/// description, which copies of the fd share: another description gets one when all are closed.
fn write_locked(path: &Path) -> Result<()> {
    let file = stage::rewrite_script(path)?;
    file.lock().context("flock")?;
    drop(file);
    File::open(path)?.lock_shared().context("flock")
}

/// Writes the script in a forked child, and waits for its end.
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
