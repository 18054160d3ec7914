//! A hunt compared with an earlier one, and how sure that is.

use std::{fmt::Write as _, path::Path};

use anyhow::bail;

use crate::{
    analysis::rate::Rate,
    event::{Hunt, Line, Runs},
    output::{near_miss::percent, recording::Recording},
    text::shown,
};

/// Up to here, it is unlikely that nothing happens by chance.
const CHANCE: f64 = 0.05;

/// What became of the race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is gone: nothing failed or could have, and by chance that is unlikely.
    Fixed,
    /// It happens less often.
    Better,
    /// It happens more often.
    Worse,
    /// Nothing can be said: the difference may be chance.
    Same,
    /// Neither hunt had it.
    Absent,
}

impl Outcome {
    /// In a word.
    fn word(self) -> &'static str {
        match self {
            Self::Fixed => "fixed",
            Self::Better => "better",
            Self::Worse => "worse",
            Self::Same => "same",
            Self::Absent => "none in both",
        }
    }

    /// From how often it happened.
    fn of(before: Rate, now: Rate) -> Self {
        if before.happened == 0 && now.happened == 0 {
            return Self::Absent;
        }
        // Of few runs, the interval of the difference alone is too narrow.
        let is_chance =
            now.happened == 0 && before.chance_of_none(now.of).is_none_or(|chance| chance > CHANCE);
        match now.difference(before) {
            _ if is_chance => Self::Same,
            Some((_, high)) if high < 0.0 && now.happened == 0 => Self::Fixed,
            Some((_, high)) if high < 0.0 => Self::Better,
            Some((low, _)) if low > 0.0 => Self::Worse,
            _ => Self::Same,
        }
    }
}

/// Something that is compared of the runs of a kind: its name, and how often it happened.
type Measure = (&'static str, fn(&Runs) -> Rate);

const MEASURES: [Measure; 3] = [
    ("runs with a failure", |runs| Rate { happened: runs.with_incidents, of: runs.runs }),
    ("execs that failed", |runs| Rate {
        happened: runs.execs.failed,
        of: runs.execs.of_written_files,
    }),
    ("execs that failed or could have", |runs| Rate {
        happened: runs.execs.failed + runs.near_misses,
        of: runs.execs.of_written_files,
    }),
];

/// What became of the runs of a kind, from each measure's rate now and its outcome: fixed if one measure is, and
/// nothing is left by the others; worse if one measure is.
fn overall(measured: &[(Rate, Outcome)]) -> Outcome {
    let has = |wanted| measured.iter().any(|(_, outcome)| *outcome == wanted);
    let is_left = measured.iter().any(|(now, _)| now.happened > 0);
    if has(Outcome::Worse) {
        Outcome::Worse
    } else if has(Outcome::Fixed) && !is_left {
        Outcome::Fixed
    } else if has(Outcome::Fixed) || has(Outcome::Better) {
        Outcome::Better
    } else if has(Outcome::Same) {
        Outcome::Same
    } else {
        Outcome::Absent
    }
}

/// The comparison, as lines of text.
#[must_use]
pub fn compare(before: &Hunt, now: &Hunt) -> String {
    let kinds = [("plain", before.plain, now.plain), ("provoked", before.provoked, now.provoked)];
    let mut out = String::new();
    for (name, before, now) in kinds {
        if before == Runs::default() && now == Runs::default() {
            continue;
        }
        if before == Runs::default() || now == Runs::default() {
            let which = if now == Runs::default() { "this hunt" } else { "the baseline" };
            let _ = writeln!(out, "{name} runs: {which} has none, nothing to compare");
            continue;
        }
        let measured = MEASURES.map(|(what, rate)| (what, rate(&before), rate(&now)));
        let outcomes = measured.map(|(_, before, now)| (now, Outcome::of(before, now)));
        let _ = writeln!(out, "{name} runs: {}", overall(&outcomes).word());
        for ((what, before, now), (_, outcome)) in measured.into_iter().zip(outcomes) {
            let _ = writeln!(out, "  {what}: {}", sentence(before, now, outcome));
        }
    }
    out
}

/// What became of one measure.
fn sentence(before: Rate, now: Rate, outcome: Outcome) -> String {
    let of = |rate: Rate| format!("{} of {}{}", rate.happened, rate.of, percent(rate));
    let chance = match outcome {
        Outcome::Fixed => before
            .chance_of_none(now.of)
            .map(|chance| format!("; without a change, none is seen {}", odds(chance))),
        Outcome::Better | Outcome::Worse => now.difference(before).map(|(low, high)| {
            let points = |share: f64| format!("{:+.2}", 100.0 * share);
            format!("; the difference is {} to {} points (95%)", points(low), points(high))
        }),
        Outcome::Same => Some("; the difference may be chance: more runs would show it".to_owned()),
        Outcome::Absent => None,
    };
    format!(
        "{}, before {}, now {}{}",
        outcome.word(),
        of(before),
        of(now),
        chance.unwrap_or_default()
    )
}

/// A small chance, in words.
fn odds(chance: f64) -> String {
    if chance < 1e-6 {
        return "less than once in a million hunts".to_owned();
    }
    format!("about once in {:.0} hunts", (1.0 / chance).max(1.0))
}

/// What the recorded hunt in that file came to.
pub fn baseline(path: &Path, output: Option<&Path>) -> anyhow::Result<Hunt> {
    let mut recording = Recording::open(path, output)?;
    let (mut hunt, mut ended) = (None, false);
    recording.feed(u64::MAX, |line| {
        if let Line::Summary(summary) = line {
            (hunt, ended) = (summary.hunt, true);
        }
        Ok(true)
    })?;
    let path = shown(path.as_os_str());
    match hunt {
        Some(hunt) => Ok(hunt),
        None if !ended => bail!(
            "cannot compare with {path}: it has no summary, because its trace was cut off; record one with `hunt -o FILE -- CMD`"
        ),
        None => bail!(
            "cannot compare with {path}: it is not a hunt; record one with `hunt -o FILE -- CMD`"
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use crate::event::Execs;

    fn runs(
        runs: u64,
        with_incidents: u64,
        of_written_files: u64,
        failed: u64,
        near_misses: u64,
    ) -> Runs {
        let execs = Execs { total: of_written_files, of_written_files, failed };
        Runs { runs, with_incidents, near_misses, execs, ..Runs::default() }
    }

    fn words(before: Runs, now: Runs) -> Vec<String> {
        let hunt = |plain| Hunt { plain, provoked: Runs::default() };
        let text = compare(&hunt(before), &hunt(now));
        let word = |line: &str| {
            let after = line.split_once(": ").unwrap().1;
            after.split(',').next().unwrap().to_owned()
        };
        text.lines().map(word).collect()
    }

    #[test]
    fn a_race_that_is_gone_is_fixed_if_chance_is_unlikely() {
        let before = runs(50, 2, 4800, 2, 143);
        // Two failures say little about none, but 143 near misses do.
        assert_eq!(words(before, runs(50, 0, 4800, 0, 0)), ["fixed", "same", "same", "fixed"]);
        assert_eq!(words(before, runs(1, 0, 20, 0, 0)), ["same", "same", "same", "same"]);
        assert_eq!(words(runs(2, 2, 2, 2, 0), runs(2, 0, 2, 0, 0)), ["same"; 4]);
        let often = runs(50, 40, 4800, 200, 300);
        assert_eq!(words(often, runs(50, 0, 4800, 0, 0)), ["fixed"; 4]);
    }

    #[test]
    fn better_worse_and_same() {
        let before = runs(50, 25, 4800, 100, 300);
        assert_eq!(words(before, runs(50, 5, 4800, 10, 30)), ["better"; 4]);
        assert_eq!(words(before, runs(50, 45, 4800, 300, 900)), ["worse"; 4]);
        assert_eq!(words(before, runs(50, 24, 4800, 97, 305)), ["same"; 4]);
        let none = runs(50, 0, 4800, 0, 0);
        assert_eq!(words(none, none), ["none in both"; 4]);
    }

    #[test]
    fn how_sure_it_is_is_said() {
        let hunt = |plain| Hunt { plain, provoked: Runs::default() };
        let text = compare(&hunt(runs(50, 40, 4800, 200, 300)), &hunt(runs(50, 0, 4800, 0, 0)));
        let expected = "  execs that failed: fixed, before 200 of 4800 (4.17%, 95%: 3.64 to 4.77%), now 0 of 4800 \
                        (95%: below 0.08%); without a change, none is seen less than once in a million hunts\n";
        assert!(text.contains(expected), "{text}");
        assert_eq!(odds(0.02), "about once in 50 hunts");
    }

    #[test]
    fn kinds_that_one_hunt_lacks_are_not_compared() {
        let (plain, none) = (runs(5, 0, 9, 0, 0), Runs::default());
        let text = compare(&Hunt { plain, provoked: plain }, &Hunt { plain, provoked: none });
        assert!(
            text.ends_with("provoked runs: this hunt has none, nothing to compare\n"),
            "{text}"
        );
    }
}
