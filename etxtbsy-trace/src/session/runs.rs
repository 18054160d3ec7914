//! The runs of a hunt: which of them a line is from, and what they came to.

use nix::time::ClockId;

use super::Session;
use crate::{
    event::{Execs, Hunt, Run, Runs},
    host::clock::now_ns,
    tracer::Backend,
};

/// All runs so far, the earliest first.
#[derive(Debug, Default)]
pub(super) struct HuntRuns {
    known: Vec<Known>,
}

/// What is known of a run.
#[derive(Debug)]
struct Known {
    run: Run,
    began_ns: u64,
    /// Of the tracer, when it began; once it is over, those of the run.
    execs: Execs,
    incidents: u64,
    near_misses: u64,
    end: End,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It has not, or was cut short.
    None,
    Succeeded,
    Failed,
}

/// What a run came to, as far as it is known when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunFound {
    /// How many calls failed with ETXTBSY. Some may turn out to have been repaired by their process.
    pub failures: u64,
    /// How many near misses there were.
    pub near_misses: u64,
}

impl HuntRuns {
    fn begin(&mut self, run: Run, began_ns: u64, execs: Execs) {
        let (incidents, near_misses, end) = (0, 0, End::None);
        self.known.push(Known { run, began_ns, execs, incidents, near_misses, end });
    }

    /// The run that was going on at that moment.
    fn at(&mut self, time_ns: u64) -> Option<&mut Known> {
        let after = self.known.partition_point(|known| known.began_ns <= time_ns);
        self.known.get_mut(after.checked_sub(1)?)
    }

    /// Counts an incident that failed then, and was repaired or not; returns its run.
    pub(super) fn incident(&mut self, time_ns: u64, repaired: bool) -> Option<Run> {
        let known = self.at(time_ns)?;
        known.incidents += u64::from(!repaired);
        Some(known.run)
    }

    /// Counts a near miss at that moment; returns its run.
    pub(super) fn near_miss(&mut self, time_ns: u64) -> Option<Run> {
        let known = self.at(time_ns)?;
        known.near_misses += 1;
        Some(known.run)
    }

    /// The last run is over, when the tracer has counted so many execs.
    fn end(&mut self, end: End, execs: Execs) -> Option<&Known> {
        let known = self.known.last_mut()?;
        known.execs = Execs {
            total: execs.total - known.execs.total,
            of_written_files: execs.of_written_files - known.execs.of_written_files,
            failed: execs.failed - known.execs.failed,
        };
        known.end = end;
        Some(known)
    }

    /// The sums; `None` if there was no run.
    pub(super) fn sums(&self) -> Option<Hunt> {
        let mut hunt = Hunt::default();
        for known in &self.known {
            let sums = if known.run.provoked { &mut hunt.provoked } else { &mut hunt.plain };
            known.add_to(sums);
        }
        (!self.known.is_empty()).then_some(hunt)
    }
}

impl Known {
    fn add_to(&self, sums: &mut Runs) {
        if self.end != End::None {
            sums.runs += 1;
            sums.failed += u64::from(self.end == End::Failed);
            sums.with_incidents += u64::from(self.incidents > 0);
            sums.with_near_misses += u64::from(self.near_misses > 0);
        }
        sums.incidents += self.incidents;
        sums.near_misses += self.near_misses;
        sums.execs.total += self.execs.total;
        sums.execs.of_written_files += self.execs.of_written_files;
        sums.execs.failed += self.execs.failed;
    }
}

impl<B: Backend> Session<B> {
    /// A run of a hunt is about to begin.
    pub fn begin_run(&mut self, run: Run) {
        let execs = self.execs();
        self.runs.begin(run, now_ns(ClockId::CLOCK_MONOTONIC), execs);
    }

    /// The last run is over; `succeeded` says whether its command did, `None` that it was cut short.
    pub fn end_run(&mut self, succeeded: Option<bool>) -> RunFound {
        loop {
            self.read();
            if !self.more {
                break;
            }
        }
        self.poll();
        self.settle(None);
        let end = match succeeded {
            None => End::None,
            Some(true) => End::Succeeded,
            Some(false) => End::Failed,
        };
        let execs = self.execs();
        let Some(known) = self.runs.end(end, execs) else {
            return RunFound { failures: 0, near_misses: 0 };
        };
        let pending = self.ledger.failures_since(known.began_ns) as u64;
        RunFound { failures: known.incidents + pending, near_misses: known.near_misses }
    }

    /// What the runs came to so far.
    #[must_use]
    pub fn hunted(&self) -> Hunt {
        self.runs.sums().unwrap_or_default()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    fn execs(total: u64, of_written_files: u64, failed: u64) -> Execs {
        Execs { total, of_written_files, failed }
    }

    fn run(number: u64) -> Run {
        Run { number, provoked: number % 2 == 1 }
    }

    #[test]
    fn lines_are_from_the_run_that_was_going_on() {
        let mut runs = HuntRuns::default();
        assert_eq!((runs.incident(5, false), runs.sums()), (None, None));
        runs.begin(run(1), 10, execs(0, 0, 0));
        runs.end(End::Failed, execs(7, 5, 1));
        runs.begin(run(2), 20, execs(7, 5, 1));
        assert_eq!(runs.incident(9, false), None);
        assert_eq!(runs.incident(19, false), Some(run(1)), "also one that is settled later");
        assert_eq!(runs.incident(20, true), Some(run(2)));
        assert_eq!(runs.near_miss(21), Some(run(2)));
        runs.end(End::Succeeded, execs(10, 7, 2));
        // Cut short.
        runs.begin(run(3), 30, execs(10, 7, 2));
        assert_eq!(runs.near_miss(31), Some(run(3)));
        runs.end(End::None, execs(11, 8, 2));
        let sums = runs.sums().unwrap();
        let plain = Runs {
            runs: 1,
            failed: 0,
            with_incidents: 0,
            with_near_misses: 1,
            incidents: 0,
            near_misses: 1,
            execs: execs(3, 2, 1),
        };
        let provoked = Runs {
            runs: 1,
            failed: 1,
            with_incidents: 1,
            with_near_misses: 0,
            incidents: 1,
            near_misses: 1,
            execs: execs(8, 6, 1),
        };
        assert_eq!(sums, Hunt { plain, provoked });
    }
}
