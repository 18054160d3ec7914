//! What races with many threads share: arguments, counts, and when to stop.

use super::stage;
use anyhow::{Result, anyhow, bail};
use nix::errno::Errno;
use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

/// Arguments of a race with many threads.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub(super) struct RaceArgs {
    /// Number of threads.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub(super) threads: u32,
    #[command(flatten)]
    pub(super) limits: RaceLimits,
}

/// How long a race runs.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub(super) struct RaceLimits {
    /// Duration.
    #[arg(long, default_value_t = 10)]
    pub(super) seconds: u64,
    /// Stop when that many execs have failed.
    #[arg(long, value_name = "N")]
    pub(super) failures: Option<u64>,
    /// Time for which a file stays open for writing: the longer, the more execs fail.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    pub(super) writing_takes: u64,
}

impl RaceLimits {
    /// Sleeps for the time for which the file stays open.
    pub(super) fn pause_while_open(&self) {
        if self.writing_takes > 0 {
            thread::sleep(Duration::from_micros(self.writing_takes));
        }
    }
}

/// Counts of all threads.
pub(super) struct Counts {
    pub(super) attempts: AtomicU64,
    pub(super) failures: AtomicU64,
    limit: u64,
    /// When to stop; the threads wait until it is set.
    end: OnceLock<Instant>,
    /// Stop earlier: the limit of failures is reached, or another error occurred.
    stop: AtomicBool,
}

impl Counts {
    pub(super) fn should_continue(&self) -> bool {
        Instant::now() < *self.end.wait()
            && !self.stop.load(Ordering::Relaxed)
            && !stage::interrupted()
    }

    /// Counts an exec by its errno, which is 0 on success; returns whether it failed with ETXTBSY.
    pub(super) fn attempt(&self, errno: c_int) -> Result<bool> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        match errno {
            0 => Ok(false),
            libc::ETXTBSY => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                self.stop.fetch_or(failures >= self.limit, Ordering::Relaxed);
                Ok(true)
            }
            errno => bail!("an exec failed: {}", Errno::from_raw(errno)),
        }
    }
}

/// The result of a race.
pub(super) struct Outcome<T> {
    pub(super) attempts: u64,
    pub(super) failures: u64,
    pub(super) seconds: f64,
    /// The result of each thread.
    pub(super) threads: Vec<T>,
}

/// Runs `body(index, counts)` in threads named `fork-exec-<index>`. Calls `ready` when they have
/// started, before the time starts.
pub(super) fn run<T: Send>(
    threads: u32,
    limits: &RaceLimits,
    ready: impl FnOnce() -> Result<()>,
    body: impl Fn(u32, &Counts) -> Result<T> + Sync,
) -> Result<Outcome<T>> {
    stage::catch_interrupts()?;
    let counts = Counts {
        attempts: AtomicU64::new(0),
        failures: AtomicU64::new(0),
        limit: limits.failures.unwrap_or(u64::MAX),
        end: OnceLock::new(),
        stop: AtomicBool::new(false),
    };
    let (threads, elapsed) = thread::scope(|scope| {
        let start_thread = |index| {
            let (counts, body) = (&counts, &body);
            let body = move || {
                let outcome = body(index, counts);
                counts.stop.store(true, Ordering::Relaxed);
                outcome
            };
            thread::Builder::new().name(format!("fork-exec-{index}")).spawn_scoped(scope, body)
        };
        let started = (0..threads).map(start_thread).collect::<io::Result<Vec<_>>>();
        let ready = if started.is_ok() { ready() } else { Ok(()) };
        counts.stop.store(started.is_err() || ready.is_err(), Ordering::Relaxed);
        let start = Instant::now();
        counts.end.get_or_init(|| start + Duration::from_secs(limits.seconds));
        ready?;
        let threads = started?
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<Vec<T>>>()?;
        anyhow::Ok((threads, start.elapsed()))
    })?;
    Ok(Outcome {
        attempts: counts.attempts.into_inner(),
        failures: counts.failures.into_inner(),
        seconds: elapsed.as_secs_f64(),
        threads,
    })
}
