//! What a demo came to: what its workload counted beside what was traced, and one sentence on it.
//! All numbers come from the run.

use super::catalogue::{self, Work};
use super::tally::{Counts, Seen};
use crate::output::time::span;
use crate::workload::{Comparison, Race, Scene, Side};
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
    let mut text = String::new();
    for report in reports {
        text += "\n";
        text += &match report {
            Report::Race(race) => of_race(race, &counts.of(&race.dir)),
            Report::Scene(scene) => of_scene(scene, &counts.of(dir_of(scene))),
            Report::Comparison(Comparison { scenario, sides }) => {
                let halves = sides.iter().map(|side| (side, counts.of(&side.race.dir)));
                let halves: Vec<Half> = halves.collect();
                table(&halves) + &sentence(scenario, &halves)
            }
        };
        text += "\n";
    }
    let failures: Vec<(&Path, u64)> = reports.iter().flat_map(Report::failures).collect();
    let made: u64 = failures.iter().map(|(_, failures)| failures).sum();
    let traced: u64 = failures.iter().map(|(dir, _)| counts.of(dir).incidents).sum();
    if traced != made {
        text += &format!("only {traced} of these {made} failures were traced");
        text += &match counts.lost {
            0 => "\n".to_owned(),
            lost => format!("; lost {lost}\n"),
        };
    }
    text
}

/// What a race came to.
fn of_race(race: &Race, seen: &Seen) -> String {
    let Race { scenario, attempts, failures, seconds, .. } = race;
    match failures {
        0 => format!(
            "{scenario}: none of {attempts} execs failed in {seconds:.1} s; it is a race: try again"
        ),
        _ => format!(
            "{scenario}: {failures} of {attempts} execs failed with ETXTBSY in {seconds:.1} s{}",
            told(seen)
        ),
    }
}

/// What a scene came to.
fn of_scene(scene: &Scene, seen: &Seen) -> String {
    let name = catalogue::showing(&scene.scenario).map_or(&*scene.scenario, |demo| demo.name);
    format!("{name}: the {} failed with ETXTBSY{}", scene.syscall, told(seen))
}

/// Where the incidents are, and what they come to.
fn told(seen: &Seen) -> String {
    let Some((first, last)) = seen.ids else { return String::new() };
    let ids = if first == last { format!("#{first}") } else { format!("#{first} to #{last}") };
    let each = seen.verdicts.iter().map(|(verdict, count)| format!("{verdict} {count}"));
    let holders = seen.holders.iter().map(|(holder, count)| format!("{holder} {count}"));
    let facts: Vec<String> = each.chain(holders).collect();
    format!("; {ids}: {}", facts.join("; "))
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
        rows.push(row("longest wait", &|(side, _)| span(side.longest_ns)));
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
        let mut line = format!("{head:0$}", widths[0]);
        for (cell, width) in cells.iter().zip(&widths[1..]) {
            line += &format!("  {cell:>width$}");
        }
        line + "\n"
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
    let name = others.last().map_or(scenario, |(side, _)| &side.name);
    let demo = catalogue::showing(name).or_else(|| catalogue::showing(scenario));
    let text = match (demo.map(|demo| &demo.work), others) {
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
    match cure {
        Some(_) => format!(
            "{name} helped, all of {} scripts ran where {expected:.0} failures were to be expected{busy}{}",
            with.runs,
            because(cure)
        ),
        None => format!(
            "{name} had no failure in {} this time where {expected:.0} were to be expected, and is no cure all the same{}",
            with.runs,
            because(flaw)
        ),
    }
}
