//! How long a call takes: repeats it between two readings of the clock.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike as _,
};

/// An operation whose files and processes exist; they are removed when this is dropped.
pub(super) struct Prepared {
    pub(super) once: Box<dyn FnMut() -> Result<()>>,
    pub(super) calls: Calls,
}

/// How many calls are made.
#[derive(Clone, Copy)]
pub(super) enum Calls {
    /// Until the time is over, that many between two readings of the clock.
    InBatches(u32),
    /// That many, however long they take.
    Exactly(u32),
}

/// The measurement of an operation.
pub(in crate::bench) struct Measured {
    /// The CPU time of a call, including its child's; three quarters of the batches took longer.
    pub(in crate::bench) nanoseconds: f64,
    pub(in crate::bench) calls: u64,
}

impl Prepared {
    /// Repeats the operation for that long.
    pub(super) fn measure(&mut self, slice: Duration) -> Result<Measured> {
        let (batch, slice) = match self.calls {
            Calls::InBatches(batch) => (batch, slice),
            Calls::Exactly(number) => (number, Duration::ZERO),
        };
        let mut calls = 0;
        let mut batches = Vec::new();
        let mut timed = || {
            let before = all_cpu_time()?;
            // Not a range, which is slow in a debug build.
            let mut left = batch;
            while left > 0 {
                left -= 1;
                (self.once)()?;
            }
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
        // Other processes on the machine make some batches slower, never faster.
        let quarter = batches.len() / 4;
        let nanoseconds = *batches.select_nth_unstable_by(quarter, f64::total_cmp).1;
        Ok(Measured { nanoseconds, calls })
    }
}

impl Measured {
    /// Parses the output of [`fmt::Display`].
    pub(in crate::bench) fn of(text: &str) -> Option<Self> {
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
pub(in crate::bench) fn cpu_time(who: UsageWho) -> Result<f64> {
    let usage = getrusage(who)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_is_parsed_from_its_text() {
        let measured = Measured { nanoseconds: 1234.5, calls: 200 };
        let parsed = Measured::of(&format!("{measured}\n")).unwrap();
        assert_eq!((parsed.nanoseconds, parsed.calls), (1234.5, 200));
        assert!(Measured::of("1234.5").is_none());
        assert!(Measured::of("few 200").is_none());
    }

    #[test]
    fn an_exact_number_of_calls_is_made_once() {
        let mut prepared = Prepared { once: Box::new(|| Ok(())), calls: Calls::Exactly(3) };
        assert_eq!(prepared.measure(Duration::from_secs(9)).unwrap().calls, 3);
    }
}
