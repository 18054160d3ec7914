//! Whether tracing changes the speed of the race or the number of its failures.

use std::{fmt, path::Path, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::command::{self, output};

/// The counts of `etxtbsy-trace workload go22315`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Race {
    attempts: u64,
    failures: u64,
    seconds: f64,
}

impl Race {
    /// Runs the race by `race`, which starts etxtbsy-trace; `None` if `seconds` is 0.
    pub(super) fn run(mut race: Command, seconds: u64, dir: &Path) -> Result<Option<Self>> {
        if seconds == 0 {
            return Ok(None);
        }
        race.args(["workload", "go22315", "--seconds", &seconds.to_string(), "--dir"]).arg(dir);
        let shown = format!("`{}`", command::shown(&race));
        let line =
            output(&mut race).with_context(|| format!("{shown} failed: run it to see why"))?;
        let report: Value = serde_json::from_str(&line)?;
        let parse = || {
            Some(Self {
                attempts: report.get("attempts")?.as_u64()?,
                failures: report.get("failures")?.as_u64()?,
                seconds: report.get("seconds")?.as_f64()?,
            })
        };
        parse().map(Some).with_context(|| format!("{shown} reported {line}"))
    }

    pub(super) fn sum(races: &[Self]) -> Self {
        races.iter().fold(Self::default(), |sum, it| Self {
            attempts: sum.attempts + it.attempts,
            failures: sum.failures + it.failures,
            seconds: sum.seconds + it.seconds,
        })
    }

    pub(super) fn per_second(&self) -> f64 {
        self.attempts as f64 / self.seconds
    }

    fn risk(self) -> f64 {
        self.failures as f64 / self.attempts as f64
    }
}

/// The ratio of the failure rates of `after` and `before`, with its 95% confidence interval.
pub(super) fn risk_ratio(before: &[Race], after: &[Race]) -> String {
    let (a, b) = (Race::sum(before), Race::sum(after));
    if a.failures == 0 || b.failures == 0 {
        return "too few".into();
    }
    let ratio = b.risk() / a.risk();
    let variance = dispersion(before) / a.failures as f64 + dispersion(after) / b.failures as f64;
    let factor = (1.96 * variance.sqrt()).exp();
    format!("{ratio:.2} (95%: {:.2}–{:.2})", ratio / factor, ratio * factor)
}

/// How much more the failures vary between runs than independent events, at least 1: they come in
/// bursts. (The dispersion of a quasi-Poisson model.)
fn dispersion(races: &[Race]) -> f64 {
    let risk = Race::sum(races).risk();
    let deviations = races.iter().map(|race| {
        let expected = risk * race.attempts as f64;
        (race.failures as f64 - expected).powi(2) / expected
    });
    (deviations.sum::<f64>() / (races.len() as f64 - 1.0)).max(1.0)
}

impl fmt::Display for Race {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({:.2}%)", self.failures, self.attempts, self.risk() * 100.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn races(failures: [u64; 2]) -> [Race; 2] {
        failures.map(|failures| Race { attempts: 1000, failures, seconds: 1.0 })
    }

    #[test]
    fn steady_failures_have_the_interval_of_independent_counts() {
        assert_eq!(risk_ratio(&races([50, 50]), &races([100, 100])), "2.00 (95%: 1.57–2.54)");
    }

    #[test]
    fn bursts_widen_the_interval() {
        assert_eq!(risk_ratio(&races([0, 100]), &races([100, 100])), "2.00 (95%: 0.28–14.27)");
    }

    #[test]
    fn no_failures_have_no_ratio() {
        assert_eq!(risk_ratio(&races([0, 0]), &races([1, 0])), "too few");
    }
}
