//! Which run is next, and when there is none.

use std::time::Duration;

use crate::{event::Run, provoke::Provocation};

/// What a hunt looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Until {
    /// A call that failed with ETXTBSY
    Failure,
    /// A failure, or an exec that could have failed
    NearMiss,
}

/// When a hunt ends, and which of its runs are provoked.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// After so many runs.
    pub runs: Option<u64>,
    /// After this time.
    pub time: Option<Duration>,
    /// After the first run in which this was found.
    pub until: Option<Until>,
    /// Every other run is provoked, the first one included.
    pub provocation: Option<Provocation>,
}

/// A run that a plan has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Planned {
    /// Its number.
    pub run: Run,
    /// Its delays.
    pub provocation: Option<Provocation>,
}

impl Plan {
    /// The run after so many.
    #[must_use]
    pub fn next(&self, done: u64) -> Option<Planned> {
        if self.runs.is_some_and(|runs| done >= runs) {
            return None;
        }
        let provocation = self.provocation.filter(|_| done.is_multiple_of(2));
        // Each run has delays of its own; the first those of `run --provoke` with the same seed.
        let provocation =
            provocation.map(|it| Provocation { seed: it.seed.wrapping_add(done / 2), ..it });
        let run = Run { number: done + 1, provoked: provocation.is_some() };
        Some(Planned { run, provocation })
    }

    /// Whether a run with so many failures and near misses is the last one.
    #[must_use]
    pub fn is_met(&self, failures: u64, near_misses: u64) -> bool {
        match self.until {
            None => false,
            Some(Until::Failure) => failures > 0,
            Some(Until::NearMiss) => failures > 0 || near_misses > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(runs: Option<u64>, provoked: bool) -> Plan {
        let provocation = Provocation { max: Duration::from_millis(5), seed: u64::MAX };
        Plan { runs, time: None, until: None, provocation: provoked.then_some(provocation) }
    }

    fn runs(plan: Plan) -> Vec<(u64, bool, Option<u64>)> {
        let planned = (0..6).map_while(|done| plan.next(done));
        planned
            .map(|it| (it.run.number, it.run.provoked, it.provocation.map(|it| it.seed)))
            .collect()
    }

    #[test]
    fn every_other_run_is_provoked_with_a_seed_of_its_own() {
        assert_eq!(
            runs(plan(Some(4), true)),
            [(1, true, Some(u64::MAX)), (2, false, None), (3, true, Some(0)), (4, false, None)]
        );
        assert_eq!(runs(plan(Some(2), false)), [(1, false, None), (2, false, None)]);
        assert_eq!(runs(plan(None, false)).len(), 6);
    }

    #[test]
    fn a_hunt_ends_with_what_it_looks_for() {
        let met = |until| {
            let plan = Plan { until, ..plan(None, false) };
            [(0, 0), (0, 1), (1, 0)].map(|(failures, near)| plan.is_met(failures, near))
        };
        assert_eq!(met(None), [false; 3]);
        assert_eq!(met(Some(Until::Failure)), [false, false, true]);
        assert_eq!(met(Some(Until::NearMiss)), [false, true, true]);
    }
}
