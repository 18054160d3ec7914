//! The demos: each runs, ends by itself, and reports what was traced.

use crate::support::{BINARY, Ended, Process, Trace, Turn, is_own_machine, tracer};
use etxtbsy_trace::event::VerdictKind::{
    self, ForkExecRace, LeakedFd, PassedFd, RunningExecutable, SharedMapping, StillOpen,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use test_support::{NOBODY, skip};

/// Races: they fail a few times or not at all.
const RACES: [&str; 3] = ["go22315", "rust114554", "java"];
/// Each always fails that many times, with that verdict.
const SCENES: [(&str, usize, VerdictKind); 4] = [
    ("fork-in-progress", 1, ForkExecRace),
    ("leaked-daemon", 1, LeakedFd),
    ("busy-interpreter", 1, StillOpen),
    ("rewrite-in-place", 20, StillOpen),
];
/// The same for holders that got the file otherwise than by open, fork or dup.
const OTHER_HOLDERS: [(&str, usize, VerdictKind); 3] = [
    ("passed-fd", 1, PassedFd),
    ("shared-mapping", 1, SharedMapping),
    ("open-running", 1, RunningExecutable),
];
/// Each has an unprotected half, which can fail. With `true`, the other half cannot fail.
const REMEDIES: [(&str, bool); 9] = [
    ("mutex-spawn", false),
    ("mutex-child-exit", true),
    ("flock", false),
    ("fsync", false),
    ("rename", false),
    ("pipe-above", false),
    ("pipe-below", false),
    ("retry", false),
    ("write-in-child", true),
];

/// Each has a test of its own.
const OTHERS: [&str; 2] = ["near-miss", "hunt"];

/// A demo as text, with a second for each race and half, and the JSON lines in a file.
fn show(turn: &Turn, name: &[&str]) -> (Ended, Trace) {
    let output = turn.output();
    let ended = Process::start(
        tracer().arg("demo").args(name).args(["--seconds", "1", "--overwrite", "-o"]).arg(&output),
    )
    .wait();
    assert_eq!(ended.code, Some(0), "{name:?}: {}", ended.stderr);
    let trace = Trace::read(&output, &ended);
    assert!(trace.lost().is_empty(), "{name:?}: {:?}", trace.lost);
    (ended, trace)
}

fn has_java() -> bool {
    Command::new("java").arg("-version").output().is_ok_and(|java| java.status.success())
}

#[test]
fn the_list_names_all_demos() {
    let _turn = Turn::take();
    let ended = Process::start(tracer().args(["demo", "--list"])).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let listed: BTreeSet<&str> = ended
        .stdout
        .lines()
        .map(|line| {
            let (name, about) = line.split_once("  ").expect("a name and what it shows");
            assert!(!about.trim().is_empty(), "{line}");
            name
        })
        .collect();
    let tested = RACES
        .into_iter()
        .chain(SCENES.map(|(name, ..)| name))
        .chain(OTHER_HOLDERS.map(|(name, ..)| name))
        .chain(REMEDIES.map(|(name, _)| name))
        .chain(OTHERS);
    assert_eq!(listed, tested.collect());
}

#[test]
fn an_unknown_name_is_bad_usage() {
    let _turn = Turn::take();
    let ended = Process::start(tracer().args(["demo", "no-such-demo"])).wait();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("go22315"), "{}", ended.stderr);
}

#[test]
fn race_demos_report_each_failure() {
    let Some(turn) = Turn::take_as_root() else { return };
    for name in RACES.into_iter().filter(|name| *name != "java") {
        assert_race(&turn, name);
    }
}

#[test]
fn the_java_demo_reports_each_failure() {
    let Some(turn) = Turn::take_as_root() else { return };
    if !has_java() {
        skip!("java is not installed");
    }
    assert_race(&turn, "java");
}

/// The demo says how many failures the race had; each was traced.
fn assert_race(turn: &Turn, name: &str) {
    let (ended, trace) = show(turn, &[name]);
    let said = format!("{name}: {} of ", trace.incidents.len());
    let none = format!("{name}: none of ");
    let expected = if trace.incidents.is_empty() { none } else { said };
    assert!(ended.stdout.contains(&expected), "no {expected:?} in: {}", ended.stdout);
}

#[test]
fn the_near_miss_demo_shows_the_race_and_its_fix() {
    let Some(turn) = Turn::take_as_root() else { return };
    let (ended, trace) = show(&turn, &["near-miss"]);
    let near = trace.summary.near_misses;
    assert!(near > 0, "{}", ended.stdout);
    let said = format!("execs failed, {near} more could have; write-in-child: 0 of ");
    assert!(ended.stdout.contains(&said), "no {said:?} in: {}", ended.stdout);
}

#[test]
fn the_hunt_demo_finds_the_race_and_shows_its_fix() {
    let Some(_turn) = Turn::take_as_root() else { return };
    // Emulated processors take longer for each run.
    let seconds = if is_own_machine() { "30" } else { "3" };
    let ended = Process::start(tracer().args(["demo", "hunt", "--seconds", seconds])).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let started = format!("\n$ etxtbsy-trace hunt --provoke --for {seconds} --output ");
    for expected in [&*started, "fork-exec-race: ", "\nprovoked runs: fixed\n"] {
        assert!(ended.stdout.contains(expected), "no {expected:?} in: {}", ended.stdout);
    }
    let refused = Process::start(tracer().args(["demo", "hunt", "--json"])).wait();
    refused.assert_refused(125, &["demo hunt prints text only"]);
}

#[test]
fn scene_demos_have_their_verdict() {
    let Some(turn) = Turn::take_as_root() else { return };
    assert_told(&turn, &SCENES);
}

#[test]
fn scene_demos_with_other_holders_have_their_verdict() {
    let Some(turn) = Turn::take_as_root() else { return };
    assert_told(&turn, &OTHER_HOLDERS);
}

fn assert_told(turn: &Turn, scenes: &[(&str, usize, VerdictKind)]) {
    for &(name, failures, verdict) in scenes {
        let (ended, trace) = show(turn, &[name]);
        let verdicts: Vec<VerdictKind> =
            trace.incidents.iter().map(|incident| incident.verdict.kind).collect();
        assert_eq!(verdicts, vec![verdict; failures], "{name}: {}", ended.stdout);
    }
}

macro_rules! remedies {
    ($($test:ident: $name:literal,)*) => {$(
        #[test]
        fn $test() {
            let Some(turn) = Turn::take_as_root() else { return };
            let (ended, trace) = show(&turn, &[$name]);
            assert_table($name, &ended, &trace);
        }
    )*};
}

remedies! {
    mutex_spawn: "mutex-spawn",
    mutex_child_exit: "mutex-child-exit",
    flock: "flock",
    fsync: "fsync",
    rename: "rename",
    pipe_above: "pipe-above",
    pipe_below: "pipe-below",
    retry: "retry",
    write_in_child: "write-in-child",
}

/// The cells of the table, by the label of the row.
fn table(ended: &Ended) -> BTreeMap<String, Vec<String>> {
    let row = |line: &str| -> Option<(String, Vec<String>)> {
        let (head, cells) = line.split_at_checked(line.rfind("  ")?)?;
        let (head, first) = head.trim_end().rsplit_once("  ").unwrap_or(("", head));
        let cells = [first, cells].map(|cell| cell.trim().to_owned());
        Some((head.trim().to_owned(), cells.into()))
    };
    let rows =
        ended.stdout.lines().skip_while(|line| !line.trim_start().starts_with("unprotected "));
    rows.map_while(row).collect()
}

/// The table agrees with the trace, and certain remedies leave no failure.
fn assert_table(name: &str, ended: &Ended, trace: &Trace) {
    let table = table(ended);
    let numbers = |head: &str| -> Vec<u64> {
        let cells = table.get(head).unwrap_or_else(|| panic!("no {head}: {}", ended.stdout));
        cells.iter().map(|cell| cell.parse().expect(cell)).collect()
    };
    assert_eq!(table[""], ["unprotected", name]);
    let (attempts, failures) = (numbers("attempts"), numbers("failures"));
    assert!(attempts.iter().all(|attempts| *attempts > 0), "{}", ended.stdout);
    let (reported, made) = (trace.incidents.len() as u64, failures.iter().sum::<u64>());
    if reported < made && reported + trace.summary.lost >= made {
        skip!("the kernel skipped some of the failures, and counted them");
    }
    assert_eq!(numbers("incidents"), failures, "{}", ended.stdout);
    assert_eq!(reported, made, "{}", ended.stdout);

    // The directories are in the order of the halves.
    let mut by_dir: Vec<(&Path, u64)> = Vec::new();
    for incident in &trace.incidents {
        let dir = Path::new(incident.path.as_deref().unwrap()).parent().unwrap();
        match by_dir.iter_mut().find(|(known, _)| *known == dir) {
            Some((_, count)) => *count += 1,
            None => by_dir.push((dir, 1)),
        }
    }
    let traced: Vec<u64> = by_dir.iter().map(|(_, count)| *count).collect();
    let made: Vec<u64> = failures.iter().copied().filter(|failures| *failures > 0).collect();
    assert_eq!(traced, made, "{}", ended.stdout);

    let mut verdicts = vec![0; 2];
    for head in table.keys().filter(|head| head.starts_with("verdict ")) {
        verdicts.iter_mut().zip(numbers(head)).for_each(|(sum, count)| *sum += count);
    }
    assert_eq!(verdicts, failures, "{}", ended.stdout);

    let certain = REMEDIES.iter().any(|(remedy, certain)| *remedy == name && *certain);
    assert!(!certain || failures[1] == 0, "{}", ended.stdout);
    // The row is there if anything was retried.
    if name == "retry" && failures[1] > 0 {
        assert_eq!(numbers("scripts not run")[1], 0, "{}", ended.stdout);
    }
}

#[test]
fn the_tour_shows_four_demos() {
    let Some(turn) = Turn::take_as_root() else { return };
    let (ended, trace) = show(&turn, &[]);
    for stop in ["go22315: ", "leaked-daemon: ", "busy-interpreter: ", "write-in-child"] {
        assert!(ended.stdout.contains(stop), "no {stop:?} in: {}", ended.stdout);
    }
    let count = |kind| trace.summary.by_verdict.get(&kind).copied();
    assert_eq!((count(LeakedFd), count(StillOpen)), (Some(1), Some(1)), "{}", ended.stdout);
}

#[test]
fn json_goes_to_stdout_and_text_to_stderr() {
    let Some(_turn) = Turn::take_as_root() else { return };
    let ended = Process::start(tracer().args(["demo", "leaked-daemon", "--json"])).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(Trace::parse(&ended.stdout).incidents.len(), 1);
    assert!(ended.stderr.contains("leaked-daemon: "), "{}", ended.stderr);
}

#[test]
fn the_java_demo_is_skipped_without_java() {
    let turn = Turn::take();
    let ended = Process::start(tracer().args(["demo", "java"]).env("PATH", turn.dir.path())).wait();
    assert_eq!((ended.code, &*ended.stdout), (Some(0), ""), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains("java"), "{}", ended.stderr);
}

/// The demo runs as the user who called sudo, and its counts still reach the tracer.
#[test]
fn under_sudo_the_demo_runs_as_the_caller() {
    let Some(turn) = Turn::take_as_root() else { return };
    // Other users may not have access to the build directory.
    fs::set_permissions(turn.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let binary = turn.dir.path().join("etxtbsy-trace");
    fs::copy(BINARY, &binary).unwrap();
    let ended = Process::start(
        Command::new(&binary)
            .args(["demo", "leaked-daemon", "--json"])
            .env("SUDO_UID", NOBODY.to_string())
            .env("SUDO_GID", NOBODY.to_string())
            .env("SUDO_USER", "nobody")
            .current_dir("/"),
    )
    .wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let trace = Trace::parse(&ended.stdout);
    let uids: Vec<_> = trace.incidents.iter().map(|incident| incident.victim.uid).collect();
    assert_eq!(uids, [Some(NOBODY)]);
    assert!(ended.stderr.contains("leaked-daemon: "), "{}", ended.stderr);
}
