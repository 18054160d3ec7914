//! The conclusion of a demo: the workload's counts, what was traced, and one sentence about both.

use super::catalogue::{self, DemoKind};
use super::tally::{Counts, DirIncidents};
use crate::text::time::span;
use etxtbsy_workload::{Comparison, Race, Scene, Side};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The number of expected failures that makes a result significant: if five are expected, the
/// probability of none is less than 1%.
const SIGNIFICANT: f64 = 5.0;

/// The report of a workload.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Report {
    /// The same task in several ways.
    Comparison(Comparison),
    /// A race.
    Race(Race),
    /// One failure.
    Scene(Scene),
}

/// A side of a comparison, and its incidents.
type TracedSide<'a> = (&'a Side, DirIncidents);

impl Report {
    /// The number of failures in each directory.
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

/// The directory of the file in the failed call.
fn dir_of(scene: &Scene) -> &Path {
    scene.path.parent().unwrap_or(&scene.path)
}

/// The conclusion, as lines of text.
pub(super) fn conclude(reports: &[Report], counts: &Counts) -> String {
    let texts = reports.iter().map(|report| {
        let text = match report {
            Report::Race(race) => race_result(race, &counts.of(&race.dir)),
            Report::Scene(scene) => scene_result(scene, &counts.of(dir_of(scene))),
            Report::Comparison(Comparison { scenario, sides }) => {
                let sides = sides.iter().map(|side| (side, counts.of(&side.race.dir)));
                let sides: Vec<TracedSide> = sides.collect();
                table(&sides) + &sentence(scenario, &sides)
            }
        };
        format!("\n{text}")
    });
    let text: String = texts.collect();
    let failures: Vec<(&Path, u64)> = reports.iter().flat_map(Report::failures).collect();
    let made: u64 = failures.iter().map(|(_, failures)| failures).sum();
    let traced: u64 = failures.iter().map(|(dir, _)| counts.of(dir).incidents).sum();
    if traced == made {
        return text;
    }
    format!("{text}{traced} of {made} failures were traced (lost {})\n", counts.lost)
}

/// The result of a race.
fn race_result(race: &Race, traced: &DirIncidents) -> String {
    let Race { scenario, attempts, failures, seconds, .. } = race;
    match failures {
        0 => format!(
            "{scenario}: none of {attempts} execs failed in {seconds:.1} s; try again: a race does not fail every time\n"
        ),
        _ => format!(
            "{scenario}: {failures} of {attempts} execs failed with ETXTBSY in {seconds:.1} s{}\n",
            incidents_text(traced)
        ),
    }
}

/// The result of a scene.
fn scene_result(scene: &Scene, traced: &DirIncidents) -> String {
    let name =
        catalogue::find_by_workload(&scene.scenario).map_or(&*scene.scenario, |demo| demo.name);
    format!("{name}: the {} failed with ETXTBSY{}\n", scene.syscall, incidents_text(traced))
}

/// The ids of the incidents, with counts of their verdicts and holders.
fn incidents_text(traced: &DirIncidents) -> String {
    let Some((first, last)) = traced.ids else { return String::new() };
    let ids =
        if first == last { format!("incident #{first}") } else { format!("#{first} to #{last}") };
    let list = |counts: &BTreeMap<String, u64>| {
        let each: Vec<String> = counts.iter().map(|(kind, n)| format!("{kind} {n}")).collect();
        each.join("; ")
    };
    let holders = if traced.holders.is_empty() {
        String::new()
    } else {
        format!(" (holders: {})", list(&traced.holders))
    };
    format!("; {ids}: {}{holders}", list(&traced.verdicts))
}

/// A table with a column for each side.
fn table(sides: &[TracedSide]) -> String {
    let row = |label: &str, cell: &dyn Fn(&TracedSide) -> String| {
        let cells: Vec<String> = sides.iter().map(cell).collect();
        (label.to_owned(), cells)
    };
    let mut rows = vec![row("", &|(side, _)| side.name.clone())];
    let repeats = sides.iter().any(|(side, _)| side.runs != side.race.attempts);
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
    rows.push(row("incidents", &|(_, traced)| traced.incidents.to_string()));
    if sides.iter().any(|(_, traced)| traced.near_misses > 0) {
        rows.push(row("near misses", &|(_, traced)| traced.near_misses.to_string()));
    }
    rows.extend(kinds(sides, "verdict", |traced| &traced.verdicts));
    rows.extend(kinds(sides, "holder", |traced| &traced.holders));

    let mut widths = vec![0; sides.len() + 1];
    for (label, cells) in &rows {
        for (width, cell) in widths.iter_mut().zip([label].into_iter().chain(cells)) {
            *width = cell.len().max(*width);
        }
    }
    let line = |(label, cells): &(String, Vec<String>)| {
        let cells = cells.iter().zip(&widths[1..]).map(|(cell, width)| format!("  {cell:>width$}"));
        format!("{label:0$}{1}\n", widths[0], cells.collect::<String>())
    };
    rows.iter().map(line).collect()
}

/// A row for each kind that occurs on any side.
fn kinds(
    sides: &[TracedSide],
    label: &str,
    of: impl Fn(&DirIncidents) -> &BTreeMap<String, u64>,
) -> Vec<(String, Vec<String>)> {
    let all: BTreeSet<&String> = sides.iter().flat_map(|(_, traced)| of(traced).keys()).collect();
    let count = |traced, kind: &String| of(traced).get(kind).copied().unwrap_or(0).to_string();
    all.into_iter()
        .map(|kind| {
            let cells = sides.iter().map(|(_, traced)| count(traced, kind)).collect();
            (format!("{label} {kind}"), cells)
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn rate(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// A sentence that says what the table shows.
fn sentence(scenario: &str, sides: &[TracedSide]) -> String {
    let Some(((first, _), others)) = sides.split_first() else { return String::new() };
    let text = match (catalogue::find_by_workload(scenario).map(|demo| &demo.kind), others) {
        (Some(DemoKind::Remedy { cure, flaw, .. }), [(second, _)]) => {
            judge_remedy(first, second, *cure, *flaw)
        }
        (Some(DemoKind::Rare(_)), [second]) => judge_rare((first, &sides[0].1), second),
        (Some(DemoKind::Ways { flaw, cure }), _) => {
            let (failed, passed): (Vec<&TracedSide>, Vec<&TracedSide>) =
                sides.iter().partition(|(side, _)| side.race.failures > 0);
            let names = |sides: Vec<&TracedSide>| {
                let names: Vec<&str> = sides.iter().map(|(side, _)| side.name.as_str()).collect();
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

/// Says whether a remedy helped, as far as the numbers show, and why.
fn judge_remedy(without: &Side, with: &Side, cure: Option<&str>, flaw: Option<&str>) -> String {
    let name = &with.name;
    let (rate_before, rate_after) =
        (rate(without.given_up, without.runs), rate(with.given_up, with.runs));
    let figures = |side: &Side| format!("{} of {}", side.given_up, side.runs);
    let (before, after) = (figures(without), figures(with));
    let expected = rate_before * rate(with.runs, 1);
    let because = |reason: Option<&str>| reason.map_or(String::new(), |why| format!(": {why}"));
    let few = rate(without.given_up, 1) < SIGNIFICANT;
    if with.given_up > 0 {
        let flaw = because(flaw);
        return if few {
            format!("{name} is no cure: {after} scripts did not run (without it {before}){flaw}")
        } else if rate_after >= rate_before / 2.0 {
            format!("{name} did not help: {after} scripts did not run (without it {before}){flaw}")
        } else {
            format!(
                "{name} made failures rarer but is no cure: {after} scripts did not run (without it {before}){flaw}"
            )
        };
    }
    if few || expected < SIGNIFICANT {
        return format!(
            "too few failures to judge {name}: none of {} with it, {before} without it; try again",
            with.runs
        );
    }
    let busy = match with.race.failures {
        0 => String::new(),
        busy => format!(
            ", although {busy} calls failed and were repeated for up to {}",
            span(with.longest_ns)
        ),
    };
    let runs = with.runs;
    if cure.is_none() {
        return format!(
            "{name} is no cure, although none of {runs} scripts failed this time \
             (expected: {expected:.0}){}",
            because(flaw)
        );
    }
    let but = flaw.map_or(String::new(), |flaw| format!("; but it can fail: {flaw}"));
    format!(
        "{name} helped: all {runs} scripts ran (expected failures without it: {expected:.0}){busy}\
         {}{but}",
        because(cure)
    )
}

/// Says what near misses show that failures do not.
fn judge_rare(
    (without, traced_without): (&Side, &DirIncidents),
    (with, traced_with): &TracedSide,
) -> String {
    let figures = |side: &Side, traced: &DirIncidents| {
        let Side { name, race: Race { attempts, failures, .. }, .. } = side;
        let near = traced.near_misses;
        format!("{name}: {failures} of {attempts} execs failed, {near} more could have")
    };
    let both = format!("{}; {}", figures(without, traced_without), figures(with, traced_with));
    let before = without.race.failures + traced_without.near_misses;
    let after = with.race.failures + traced_with.near_misses;
    let expected = rate(before, without.race.attempts) * rate(with.race.attempts, 1);
    match after {
        0 if expected >= SIGNIFICANT => {
            format!("{both}: the race is gone (expected: {expected:.0})")
        }
        0 => format!("{both}: too few to judge; try again"),
        _ => format!("{both}: the race is still there"),
    }
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
    fn assert_judgement(without: &Side, with: &Side, expected: &str) {
        let text = judge_remedy(without, with, Some("CURE"), Some("FLAW"));
        assert!(text.contains(expected), "no {expected:?} in: {text}");
        let helped = text.contains("helped: all");
        assert_eq!(text.contains("CURE"), helped, "{text}");
        assert_eq!(text.contains("FLAW"), helped || with.given_up > 0, "{text}");
    }

    #[test]
    fn remedies_are_judged_by_their_numbers() {
        let usual = once("unprotected", 8000, 80);
        assert_judgement(&usual, &once("x", 8000, 75), "did not help");
        assert_judgement(
            &usual,
            &once("x", 8000, 8),
            "made failures rarer but is no cure: 8 of 8000",
        );
        assert_judgement(
            &usual,
            &once("x", 4000, 0),
            "helped: all 4000 scripts ran (expected failures without it: 40)",
        );
        assert_judgement(
            &usual,
            &side("x", 4050, 50, 4000, 0),
            "50 calls failed and were repeated for up to 2.50 ms",
        );
    }

    #[test]
    fn too_few_failures_are_not_judged() {
        let rare = once("unprotected", 8000, 4);
        assert_judgement(&rare, &once("x", 8000, 0), "too few failures to judge");
        assert_judgement(&rare, &once("x", 8000, 3), "no cure: 3 of 8000");
        // Too few runs with the remedy.
        assert_judgement(
            &once("unprotected", 8000, 80),
            &once("x", 300, 0),
            "too few failures to judge",
        );
        assert_judgement(&once("unprotected", 0, 0), &once("x", 0, 0), "too few failures to judge");
    }

    #[test]
    fn a_lucky_run_does_not_make_a_cure() {
        let (without, with) = (once("unprotected", 8000, 80), once("x", 8000, 0));
        let text = judge_remedy(&without, &with, None, Some("FLAW"));
        assert!(text.contains("is no cure, although") && text.contains(": FLAW"), "{text}");
    }

    #[test]
    fn the_table_has_a_column_for_each_side() {
        let traced = DirIncidents {
            ids: Some((1, 80)),
            incidents: 80,
            verdicts: [("fork-exec-race".to_owned(), 80)].into(),
            holders: [("via fork, forked".to_owned(), 81)].into(),
            near_misses: 0,
        };
        let (without, with) = (once("unprotected", 8000, 80), once("flock", 400, 0));
        let text = table(&[(&without, traced), (&with, DirIncidents::default())]);
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
    fn near_misses_judge_a_race_that_seldom_fails() {
        let near = |near_misses| DirIncidents { near_misses, ..DirIncidents::default() };
        let (without, with) = (once("unprotected", 8000, 1), once("x", 4000, 0));
        let judged = |before, after| judge_rare((&without, &near(before)), &(&with, near(after)));
        let expected = "unprotected: 1 of 8000 execs failed, 199 more could have; \
                        x: 0 of 4000 execs failed, 0 more could have: the race is gone (expected: 100)";
        assert_eq!(judged(199, 0), expected);
        assert!(judged(199, 1).ends_with("1 more could have: the race is still there"));
        assert!(judged(1, 0).ends_with(": too few to judge; try again"));
        let text = table(&[(&without, near(199)), (&with, near(0))]);
        assert!(text.contains("near misses                199     0\n"), "{text}");
    }

    #[test]
    fn untraced_failures_are_counted() {
        let Side { race, .. } = once("dir", 100, 3);
        let text = conclude(&[Report::Race(race)], &Counts::default());
        assert!(text.contains("3 of 100 execs failed"), "{text}");
        assert!(text.contains("0 of 3 failures were traced"), "{text}");
    }
}
