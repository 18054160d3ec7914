//! Compares each failure with the records of a workload whose processes log all that they hold.

use crate::support::{
    BINARY, Process, Trace, Turn, has_too_few, is_own_machine, race_course, race_seconds, tracer,
};
use etxtbsy_trace::event::LossKind;
use etxtbsy_workload::{Mixed, Refusals, Tally, compare, compare_refusals};
use nix::sys::signal::Signal;
use std::process::Command;
use std::thread::available_parallelism;

/// How long a thread of the workload sleeps between its calls, in microseconds.
const PAUSE: &str = "3000";

#[test]
fn no_false_holders_and_no_missed_certain_holders() {
    let Some(turn) = Turn::take_as_root() else { return };
    assert_right(&turn, &mut tracer(), "mixed");
}

/// Most records are lost: the reported incidents are still right, and the rest is counted.
#[test]
fn no_false_holders_while_the_ring_buffer_is_tiny() {
    let Some(turn) = Turn::take_as_root() else { return };
    let mut tracer = tracer();
    assert_right(&turn, tracer.env("ETXTBSY_TRACE_RING_BYTES", "32768"), "mixed, tiny ring");
}

#[test]
fn no_false_holders_while_the_machine_is_loaded() {
    let Some(turn) = Turn::take_as_root() else { return };
    let hogs = available_parallelism().unwrap().get() * 2;
    let hog = |_| Process::start(Command::new("/bin/sh").args(["-c", "while :; do :; done"]));
    let hogs: Vec<Process> = (0..hogs).map(hog).collect();
    assert_right(&turn, &mut tracer(), "mixed, loaded");
    for hog in hogs {
        hog.signal(Signal::SIGKILL);
        assert_eq!(hog.wait().signal, Some(Signal::SIGKILL as i32));
    }
}

/// A process that has closed the file is no holder, even if the memory of its description is reused.
#[test]
fn a_hold_that_has_ended_stays_ended() {
    let Some(turn) = Turn::take_as_root() else { return };
    let (truth, trace): (Mixed, _) = turn.workload(&["closed-again"]);
    let tally = compare(&truth, &trace.incidents, &trace.lost);
    print("closed-again", &truth, &tally);
    assert!(tally.is_sound(), "{}", tally.faults.join("\n"));
    assert_eq!((tally.missed, tally.lost), (0, 0), "{}", tally.faults.join("\n"));
}

/// Compares each refused write with the processes that ran the file.
#[test]
fn no_false_runners() {
    let Some(turn) = Turn::take_as_root() else { return };
    let (seconds, failures) = race_seconds().map_or((60, 1000), |seconds| (seconds, u64::MAX));
    let (seconds, failures) = (seconds.to_string(), failures.to_string());
    // On emulated processors a call takes up to 50 ms, longer than the shortest of the programs runs.
    let longer = if is_own_machine() { "100" } else { "1" };
    let course = ["--failures", &failures, "--seconds", &seconds, "--longer", longer];
    let (ended, trace) = turn.run(&[], &[&[BINARY, "workload", "refusals"], &course[..]].concat());
    let truth: Refusals = ended.report();
    assert_counted(&trace, truth.refused.len() as u64 + truth.failed_execs);
    let tally = compare_refusals(&truth, &trace.incidents, &trace.lost);
    println!("refusals: {tally:?}");
    assert!(tally.is_sound(), "{}", tally.faults.join("\n"));
    let unnamed = tally.compared - tally.with_culprit;
    // Three in 10,000 are not named: of 1,000, more than three once in 4,000 runs.
    let enough = unnamed <= (tally.compared / 1000).max(3);
    assert!(enough && tally.compared > 0, "{}", tally.faults.join("\n"));
}

fn assert_right(turn: &Turn, tracer: &mut Command, name: &str) {
    let course = race_course(400);
    let command = [BINARY, "workload", "mixed", "--pause", PAUSE];
    let command: Vec<&str> = command.into_iter().chain(course.iter().map(String::as_str)).collect();
    let (ended, trace) = turn.run_by(tracer, &[], &command);
    let truth: Mixed = ended.report();
    if has_too_few(&truth.race) {
        return;
    }
    assert_counted(&trace, truth.race.failures + truth.refused);
    let tally = compare(&truth, &trace.incidents, &trace.lost);
    print(name, &truth, &tally);
    assert!(tally.is_sound(), "{}", tally.faults.join("\n"));
    // If records were lost, a holder can be missing.
    let only_failures = trace.lost.iter().all(|lost| {
        use LossKind::{FailuresOverload, FailuresRingFull, FailuresUnread};
        matches!(lost.kind, FailuresOverload | FailuresRingFull | FailuresUnread)
    });
    if only_failures {
        assert_eq!(tally.missed, 0, "{}", tally.faults.join("\n"));
    }
}

/// Asserts that all failures were counted, except those for which the kernel skipped a program.
fn assert_counted(trace: &Trace, failed: u64) {
    let least = failed.saturating_sub(trace.lost_of(LossKind::ProgramsSkipped));
    let counted = trace.summary.failures;
    assert!((least..=failed).contains(&counted), "{counted} of {failed}: {:?}", trace.lost);
}

fn print(name: &str, truth: &Mixed, tally: &Tally) {
    println!(
        "{name}, seed {}: {} failures, {} lost, {} compared; {} complete, {} certain; \
         {} holders named, {} wrong ({} in complete, {} in certain incidents); \
         {} surely were, {} of them missed ({} in complete incidents); {} other faults; \
         by evidence {:?}, wrong {:?}",
        truth.seed,
        tally.failures,
        tally.lost,
        tally.compared,
        tally.complete,
        tally.certain,
        tally.holders,
        tally.wrong,
        tally.wrong_in_complete,
        tally.wrong_in_certain,
        tally.sure,
        tally.missed,
        tally.missed_in_complete,
        tally.others,
        tally.evidence,
        tally.wrong_evidence,
    );
}
