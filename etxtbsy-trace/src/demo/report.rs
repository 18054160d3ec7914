//! What a demo came to: what its workload counted beside what was traced, and one sentence on it.
//! All numbers come from the run.

use super::catalogue::{self, Work};
use super::tally::{Counts, Seen};
use crate::text::time::span;
use etxtbsy_workload::{Comparison, Race, Scene, Side};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// How many failures it takes to tell two rates apart: none where five are to be expected comes by
/// chance in less than one of a hundred cases.
const ENOUGH: f64 = 5.0;

/// What a workload prints.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Report {
    /// One thing in several ways.
    Comparison(Comparison),
    /// A race.
    Race(Race),
    /// One failure.
    Scene(Scene),
}

/// A side, and what was traced of it.
type Half<'a> = (&'a Side, Seen);

impl Report {
    /// The directories in which execs failed, and how many of them.
    fn failures(&self) -> Vec<(&Path, u64)> {
        match self {
            Self::Race(race) => vec![(&race.dir, race.failures)],
            Self::Scene(scene) => vec![(dir_of(scene), 1)],
            Self::Comparison(comparison) => comparison
                .sides
                .iter()
                .map(|Side { race, .. }| (&*race.dir, race.failures))
                .collect(),
        }
    }
}

/// The directory of the file that was to be run, or written.
fn dir_of(scene: &Scene) -> &Path {
    scene.path.parent().unwrap_or(&scene.path)
}

/// What all of it came to, in lines.
pub(super) fn conclude(reports: &[Report], counts: &Counts) -> String {
    let told = reports.iter().map(|report| {
        let text = match report {
            Report::Race(race) => of_race(race, &counts.of(&race.dir)),
            Report::Scene(scene) => of_scene(scene, &counts.of(dir_of(scene))),
            Report::Comparison(Comparison { scenario, sides }) => {
                let halves = sides.iter().map(|side| (side, counts.of(&side.race.dir)));
                let halves: Vec<Half> = halves.collect();
                table(&halves) + &sentence(scenario, &halves)
            }
        };
        format!("\n{text}")
    });
    let text: String = told.collect();
    let failures: Vec<(&Path, u64)> = reports.iter().flat_map(Report::failures).collect();
    let made: u64 = failures.iter().map(|(_, failures)| failures).sum();
    let traced: u64 = failures.iter().map(|(dir, _)| counts.of(dir).incidents).sum();
    if traced == made {
        return text;
    }
    format!("{text}{traced} of {made} failures were traced (lost {})\n", counts.lost)
}

/// What a race came to.
fn of_race(race: &Race, seen: &Seen) -> String {
    let Race { scenario, attempts, failures, seconds, .. } = race;
    match failures {
        0 => format!(
            "{scenario}: none of {attempts} execs failed in {seconds:.1} s; it is a race: try again\n"
        ),
        _ => format!(
            "{scenario}: {failures} of {attempts} execs failed with ETXTBSY in {seconds:.1} s{}\n",
            told(seen)
        ),
    }
}

/// What a scene came to.
fn of_scene(scene: &Scene, seen: &Seen) -> String {
    let name = catalogue::showing(&scene.scenario).map_or(&*scene.scenario, |demo| demo.name);
    format!("{name}: the {} failed with ETXTBSY{}\n", scene.syscall, told(seen))
}

/// Where the incidents are, and what they come to.
fn told(seen: &Seen) -> String {
    let Some((first, last)) = seen.ids else { return String::new() };
    let ids =
        if first == last { format!("incident #{first}") } else { format!("#{first} to #{last}") };
    let list = |counts: &BTreeMap<String, u64>| {
        let each: Vec<String> = counts.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        each.join("; ")
    };
    let holders = if seen.holders.is_empty() {
        String::new()
    } else {
        format!(" (holders: {})", list(&seen.holders))
    };
    format!("; {ids}: {}{holders}", list(&seen.verdicts))
}

/// A column for each side.
fn table(halves: &[Half]) -> String {
    let row = |head: &str, cell: &dyn Fn(&Half) -> String| {
        let cells: Vec<String> = halves.iter().map(cell).collect();
        (head.to_owned(), cells)
    };
    let mut rows = vec![row("", &|(side, _)| side.name.clone())];
    let repeats = halves.iter().any(|(side, _)| side.runs != side.race.attempts);
    if repeats {
        rows.push(row("scripts to run", &|(side, _)| side.runs.to_string()));
    }
    rows.extend([
        row("attempts", &|(side, _)| side.race.attempts.to_string()),
        row("failures", &|(side, _)| side.race.failures.to_string()),
        row("failures per 1000", &|(side, _)| {
            format!("{:.1}", 1000.0 * rate(side.race.failures, side.race.attempts))
        }),
    ]);
    if repeats {
        rows.push(row("scripts not run", &|(side, _)| side.given_up.to_string()));
        rows.push(row("longest retry", &|(side, _)| {
            if side.runs == side.race.attempts { "-".to_owned() } else { span(side.longest_ns) }
        }));
    }
    rows.push(row("incidents", &|(_, seen)| seen.incidents.to_string()));
    rows.extend(kinds(halves, "verdict", |seen| &seen.verdicts));
    rows.extend(kinds(halves, "holder", |seen| &seen.holders));

    let mut widths = vec![0; halves.len() + 1];
    for (head, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip([head].into_iter().chain(cells)) {
            *width = cell.len().max(*width);
        }
    }
    let line = |(head, cells): &(String, Vec<String>)| {
        let cells = cells.iter().zip(&widths[1..]).map(|(cell, width)| format!("  {cell:>width$}"));
        format!("{head:0$}{1}\n", widths[0], cells.collect::<String>())
    };
    rows.iter().map(line).collect()
}

/// A row for each kind that any side has.
fn kinds(
    halves: &[Half],
    head: &str,
    of: impl Fn(&Seen) -> &BTreeMap<String, u64>,
) -> Vec<(String, Vec<String>)> {
    let all: BTreeSet<&String> = halves.iter().flat_map(|(_, seen)| of(seen).keys()).collect();
    let count = |seen, kind: &String| of(seen).get(kind).copied().unwrap_or(0).to_string();
    all.into_iter()
        .map(|kind| {
            let cells = halves.iter().map(|(_, seen)| count(seen, kind)).collect();
            (format!("{head} {kind}"), cells)
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "nobody counts that far")]
fn rate(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// What the table shows.
fn sentence(scenario: &str, halves: &[Half]) -> String {
    let Some(((first, _), others)) = halves.split_first() else { return String::new() };
    let text = match (catalogue::showing(scenario).map(|demo| &demo.work), others) {
        (Some(Work::Remedy { cure, flaw }), [(second, _)]) => judge(first, second, *cure, *flaw),
        (Some(Work::Ways { flaw, cure }), _) => {
            let (failed, passed): (Vec<&Half>, Vec<&Half>) =
                halves.iter().partition(|(side, _)| side.race.failures > 0);
            let names = |halves: Vec<&Half>| {
                let names: Vec<&str> = halves.iter().map(|(side, _)| side.name.as_str()).collect();
                names.join(" and ")
            };
            let (failed, passed) = (names(failed), names(passed));
            match (failed.is_empty(), passed.is_empty()) {
                (true, _) => format!("{passed} did not fail: {cure}"),
                (_, true) => format!("{failed} failed: {flaw}"),
                _ => format!("{failed} failed: {flaw}; {passed} did not: {cure}"),
            }
        }
        _ => return String::new(),
    };
    format!("{text}.\n")
}

/// Whether a remedy helped, as far as the numbers tell, and why.
fn judge(without: &Side, with: &Side, cure: Option<&str>, flaw: Option<&str>) -> String {
    let name = &with.name;
    let (usual, left) = (rate(without.given_up, without.runs), rate(with.given_up, with.runs));
    let figures = |side: &Side| format!("{} of {}", side.given_up, side.runs);
    let (before, after) = (figures(without), figures(with));
    let expected = usual * rate(with.runs, 1);
    let because = |reason: Option<&str>| reason.map_or(String::new(), |why| format!(": {why}"));
    let few = rate(without.given_up, 1) < ENOUGH;
    if with.given_up > 0 {
        let flaw = because(flaw);
        return if few {
            format!("{name} is no cure, {after} scripts did not run (without it {before}){flaw}")
        } else if left >= usual / 2.0 {
            format!("{name} did not help, {after} scripts did not run, without it {before}{flaw}")
        } else {
            format!(
                "{name} made it rarer and is no cure, {after} scripts did not run, without it {before}{flaw}"
            )
        };
    }
    if few || expected < ENOUGH {
        return format!(
            "too few failures to tell whether {name} helps: none of {} with it, {before} without; try again",
            with.runs
        );
    }
    let busy = match with.race.failures {
        0 => String::new(),
        busy => format!(
            ", though {busy} calls failed and were repeated for up to {}",
            span(with.longest_ns)
        ),
    };
    let runs = with.runs;
    if cure.is_none() {
        return format!(
            "{name} had no failure in {runs} this time where {expected:.0} were to be expected, \
             and is no cure all the same{}",
            because(flaw)
        );
    }
    let but = flaw.map_or(String::new(), |flaw| format!("; once in a while it fails: {flaw}"));
    format!(
        "{name} helped, all of {runs} scripts ran where {expected:.0} failures were to be \
         expected{busy}{}{but}",
        because(cure)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(name: &str, attempts: u64, failures: u64, runs: u64, given_up: u64) -> Side {
        let race = Race {
            scenario: "remedy".into(),
            pid: 1,
            dir: name.into(),
            attempts,
            failures,
            seconds: 3.0,
            threads: vec![1],
        };
        Side { name: name.into(), race, runs, given_up, longest_ns: 2_500_000 }
    }

    /// A side that does not repeat failed calls.
    fn once(name: &str, attempts: u64, failures: u64) -> Side {
        side(name, attempts, failures, attempts, failures)
    }

    #[track_caller]
    fn judged(without: &Side, with: &Side, expected: &str) {
        let text = judge(without, with, Some("CURE"), Some("FLAW"));
        assert!(text.contains(expected), "no {expected:?} in: {text}");
        let helped = text.contains("helped, all");
        assert_eq!(text.contains("CURE"), helped, "{text}");
        assert_eq!(text.contains("FLAW"), helped || with.given_up > 0, "{text}");
    }

    #[test]
    fn a_remedy_is_judged_by_its_numbers() {
        let usual = once("unprotected", 8000, 80);
        judged(&usual, &once("x", 8000, 75), "did not help");
        judged(&usual, &once("x", 8000, 8), "made it rarer and is no cure, 8 of 8000");
        judged(&usual, &once("x", 4000, 0), "helped, all of 4000 scripts ran where 40 failures");
        judged(
            &usual,
            &side("x", 4050, 50, 4000, 0),
            "50 calls failed and were repeated for up to 2.50 ms",
        );
    }

    #[test]
    fn too_few_failures_tell_nothing_but_that_there_are_some() {
        let rare = once("unprotected", 8000, 4);
        judged(&rare, &once("x", 8000, 0), "too few failures to tell");
        judged(&rare, &once("x", 8000, 3), "no cure, 3 of 8000");
        // As likely by chance.
        judged(&once("unprotected", 8000, 80), &once("x", 300, 0), "too few failures to tell");
        judged(&once("unprotected", 0, 0), &once("x", 0, 0), "too few failures to tell");
    }

    /// One that has a flaw is not praised for a lucky run.
    #[test]
    fn what_is_no_cure_does_not_become_one() {
        let (without, with) = (once("unprotected", 8000, 80), once("x", 8000, 0));
        let text = judge(&without, &with, None, Some("FLAW"));
        assert!(text.contains("no cure all the same: FLAW"), "{text}");
    }

    #[test]
    fn the_table_has_a_column_for_each_side() {
        let seen = Seen {
            ids: Some((1, 80)),
            incidents: 80,
            verdicts: [("fork-exec-race".to_owned(), 80)].into(),
            holders: [("via fork, forked".to_owned(), 81)].into(),
        };
        let (without, with) = (once("unprotected", 8000, 80), once("flock", 400, 0));
        let text = table(&[(&without, seen), (&with, Seen::default())]);
        let expected = "
                         unprotected  flock
attempts                        8000    400
failures                          80      0
failures per 1000               10.0    0.0
incidents                         80      0
verdict fork-exec-race            80      0
holder via fork, forked           81      0
";
        assert_eq!(format!("\n{text}"), expected);
    }

    #[test]
    fn what_was_not_traced_is_said() {
        let Side { race, .. } = once("dir", 100, 3);
        let text = conclude(&[Report::Race(race)], &Counts::default());
        assert!(text.contains("3 of 100 execs failed"), "{text}");
        assert!(text.contains("0 of 3 failures were traced"), "{text}");
    }
}
