//! One thing on all processors as fast as they can: what the tracer says is true all the same, its
//! memory is bounded, and the machine is still there for others.

use crate::support::{Attached, BINARY, Ended, Process, Trace, Turn, is_own_machine};
use etxtbsy_trace::event::{Incident, LossKind, VerdictKind};
use etxtbsy_workload::Storm;
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// How much slower a storm may go with a tracer than without, and how much longer others may wait:
/// enough for a machine that does something else besides.
const SLOWER: f64 = 20.0;

/// How long each goes.
const SECONDS: [&str; 2] = ["--seconds", "1"];

#[test]
fn every_failed_exec_is_counted() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (storm, trace) = traced("execs", &SECONDS);
    assert_eq!(storm.done, storm.failures);
    trace.assert_counts(&storm);
    assert_told(&storm, &trace);
    assert!(trace.lost_failures() > 0, "it kept {} failures", trace.incidents.len());
}

#[test]
fn forks_leave_nothing_behind() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (storm, trace) = traced("forks", &SECONDS);
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    assert_told(&storm, &trace);
}

#[test]
fn opens_leave_nothing_behind() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    // As many as there are in a second where processors are emulated.
    let seconds = if is_own_machine() { "1" } else { "600" };
    let (storm, trace) = traced("opens", &["--count", "1000000", "--seconds", seconds]);
    assert!(storm.done == 1_000_000 || is_own_machine(), "{storm:?}");
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    assert_told(&storm, &trace);
}

#[test]
fn threads_leave_nothing_behind() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (storm, trace) = traced("threads", &SECONDS);
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    assert_told(&storm, &trace);
}

/// More files than there is room for: what finds none is counted, and is found again once it makes
/// an exec fail. Then there is room again.
#[test]
fn files_beyond_the_room_there_is_are_counted() {
    const FILES: u64 = 100_000;
    /// Entries of the map `HOLDS`.
    const ROOM: u64 = 65_536;
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (storm, trace) = traced("held", &["--count", &FILES.to_string()]);
    assert_eq!(storm.done, FILES);
    let lost = trace.lost_of(LossKind::HoldsMapFull);
    // Others have files open as well.
    assert!((FILES - ROOM..FILES).contains(&lost), "{:?}", trace.lost);
    assert_told(&storm, &trace);

    let twice = format!(
        "{BINARY} workload storm held --count {FILES} && {BINARY} workload storm opens --count 1000"
    );
    let (ended, trace) = turn.run(&[], &["sh", "-c", &twice]);
    let storms: Vec<Storm> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let [full, storm] = &storms[..] else { panic!("{}", ended.stderr) };
    let after = trace.incidents.iter().find(|incident| incident.victim.pid == storm.pid);
    let after = after.expect("the second storm's failure is told");
    let opened = after.holders[0].opened.as_ref().expect("its opener was noted");
    assert_eq!(opened.pid, storm.pid, "{after:#?}");
    assert!(trace.lost_of(LossKind::HoldsMapFull) < full.done, "{:?}", trace.lost);
}

/// Ctrl-C while execs fail on all processors.
#[test]
fn ctrl_c_ends_it_in_a_storm_of_execs() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let quiet = Attached::start(&["storm", "execs", "--wait-for-go"]);
    let (idle, ended) = interrupt(quiet.tracer);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    quiet.workload.end_storm();

    let mut stormy = Attached::start(&["storm", "execs", "--wait-for-go", "--seconds", "60"]);
    stormy.workload.say_go();
    stormy.await_line();
    let told = stormy.told().to_owned();
    let (busy, ended) = interrupt(stormy.tracer);
    stormy.workload.end_storm();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let trace = Trace::parse(&(told + &ended.stdout));
    assert!(trace.incidents.len() > 1, "{:?}", trace.summary);
    // A second, where an idle tracer takes a fifth of it, and processors are not emulated.
    let emulated = is_own_machine();
    let limit = Duration::from_secs(if emulated { 10 } else { 1 }).max(idle * 5);
    assert!(busy < limit, "it ended after {busy:?}, an idle one after {idle:?}");
}

/// Interrupts a tracer; gives how long it took to end.
fn interrupt(tracer: Process) -> (Duration, Ended) {
    let began = Instant::now();
    tracer.signal(Signal::SIGINT);
    let ended = tracer.wait();
    (began.elapsed(), ended)
}

/// A storm with a tracer of its tree. One without goes before, for comparison: neither the storm nor
/// others are brought to a halt. The tracer's memory stays within twice what it was.
fn traced(of: &str, limits: &[&str]) -> (Storm, Trace) {
    let arguments = [&["storm", of, "--wait-for-go"], limits].concat();
    let mut alone = Process::start(Command::new(BINARY).arg("workload").args(&arguments));
    assert_eq!(alone.line(), "ready");
    let (free, waited) = go(&mut alone);
    assert_eq!(alone.wait().code, Some(0));

    let mut attached = Attached::start(&arguments);
    let before = peak(&attached.tracer);
    let (storm, waits) = go(&mut attached.workload);
    let after = peak(&attached.tracer);
    #[expect(clippy::cast_precision_loss, reason = "no storm counts to 2⁵³")]
    let rate = |storm: &Storm| storm.done as f64 / storm.seconds;
    println!(
        "{of}: {:.0} a second, without {:.0}; others waited {waits:?}, without {waited:?}; \
         {before} KiB, then {after}",
        rate(&storm),
        rate(&free)
    );
    assert!(rate(&storm) * SLOWER > rate(&free), "{:.0} a second", rate(&storm));
    assert!(waits < waited.mul_f64(SLOWER), "others waited {waits:?}, {waited:?} without it");
    assert!(after < 2 * before, "it took {before} KiB, then {after}");
    (storm, attached.end())
}

/// Lets a storm begin, and starts programs meanwhile; gives its report, and how long those took.
fn go(storm: &mut Process) -> (Storm, Duration) {
    storm.say_go();
    let began = Instant::now();
    for _ in 0..10 {
        assert!(Command::new("true").status().unwrap().success());
    }
    let waited = began.elapsed();
    (serde_json::from_str(&storm.line()).unwrap(), waited)
}

/// The most memory that a process has taken, in KiB.
fn peak(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// That there are incidents, and that all are right: the process had its own file open.
fn assert_told(storm: &Storm, trace: &Trace) {
    assert!(!trace.incidents.is_empty(), "{:?}", trace.summary);
    for incident in &trace.incidents {
        assert_eq!(incident.file.path.as_deref(), storm.path.to_str(), "{incident:#?}");
        assert_eq!(incident.victim.pid, storm.pid, "{incident:#?}");
        assert_still_open(incident);
    }
}

/// That a process is told to have failed to exec what it had opened itself.
pub(crate) fn assert_still_open(incident: &Incident) {
    assert!(incident.complete, "{incident:#?}");
    assert_eq!(incident.verdict.kind, VerdictKind::StillOpen, "{incident:#?}");
    let [holder] = &incident.holders[..] else { panic!("not one holder: {incident:#?}") };
    assert_eq!(holder.pid, incident.victim.pid, "{incident:#?}");
    assert_eq!(holder.opened.as_ref().map(|by| by.pid), Some(holder.pid), "{incident:#?}");
}
