//! One operation on all processors at full speed: the trace is still correct, the tracer's memory is
//! bounded, and other programs can still run.

use crate::support::{Attached, BINARY, Ended, Process, Trace, Turn, is_own_machine};
use etxtbsy_trace::event::{Incident, LossKind, VerdictKind};
use etxtbsy_workload::Storm;
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

/// How much slower a storm may be with a tracer than without, and how much longer other programs may
/// wait: enough for a machine with other load.
const SLOWER: f64 = 20.0;

/// How long each storm lasts.
const SECONDS: [&str; 2] = ["--seconds", "1"];

#[test]
fn every_failed_exec_is_counted() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (storm, trace) = traced("execs", &SECONDS);
    assert_eq!(storm.done, storm.failures);
    trace.assert_counts(&storm);
    assert_storm_reported(&storm, &trace);
    assert!(trace.lost_failures() > 0, "it kept {} failures", trace.incidents.len());
}

#[test]
fn forks_leave_nothing_behind() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (storm, trace) = traced("forks", &SECONDS);
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    assert_storm_reported(&storm, &trace);
}

#[test]
fn opens_leave_nothing_behind() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    // Emulated processors make as many as they can in a second.
    let seconds = if is_own_machine() { "1" } else { "600" };
    let (storm, trace) = traced("opens", &["--count", "1000000", "--seconds", seconds]);
    assert!(storm.done == 1_000_000 || is_own_machine(), "{storm:?}");
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    assert_storm_reported(&storm, &trace);
}

#[test]
fn threads_leave_nothing_behind() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (storm, trace) = traced("threads", &SECONDS);
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    assert_storm_reported(&storm, &trace);
}

/// Files without room in the map are counted, and are found when they make an exec fail. When the files
/// are closed, there is room again.
#[test]
fn files_beyond_the_size_of_the_map_are_counted() {
    const FILES: u64 = 100_000;
    /// Entries of the map `HOLDS`.
    const ROOM: u64 = 65_536;
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (storm, trace) = traced("held", &["--count", &FILES.to_string()]);
    assert_eq!(storm.done, FILES);
    let lost = trace.lost_of(LossKind::HoldsMapFull);
    // Other processes have files open, too.
    assert!((FILES - ROOM..FILES).contains(&lost), "{:?}", trace.lost);
    assert_storm_reported(&storm, &trace);

    let twice = format!(
        "{BINARY} workload storm held --count {FILES} && {BINARY} workload storm opens --count 1000"
    );
    let (ended, trace) = turn.run(&[], &["sh", "-c", &twice]);
    let storms: Vec<Storm> =
        ended.stdout.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let [full, storm] = &storms[..] else { panic!("{}", ended.stderr) };
    let after = trace.incidents.iter().find(|incident| incident.victim.pid == storm.pid);
    let after = after.expect("the second storm's failure is reported");
    let opened = after.holders[0].opened.as_ref().expect("its opener is known");
    assert_eq!(opened.pid, storm.pid, "{after:#?}");
    assert!(trace.lost_of(LossKind::HoldsMapFull) < full.done, "{:?}", trace.lost);
}

/// Ctrl-C while execs fail on all processors.
#[test]
fn ctrl_c_ends_tracing_in_a_storm_of_execs() {
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
    let received = stormy.received().to_owned();
    let (busy, ended) = interrupt(stormy.tracer);
    stormy.workload.end_storm();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let trace = Trace::parse(&(received + &ended.stdout));
    assert!(trace.incidents.len() > 1, "{:?}", trace.summary);
    // A second, unless even an idle tracer takes long, or processors are emulated.
    let emulated = is_own_machine();
    let limit = Duration::from_secs(if emulated { 10 } else { 1 }).max(idle * 5);
    assert!(busy < limit, "it took {busy:?} to end, an idle tracer {idle:?}");
}

/// Interrupts a tracer; returns how long it took to end.
fn interrupt(tracer: Process) -> (Duration, Ended) {
    let began = Instant::now();
    tracer.signal(Signal::SIGINT);
    let ended = tracer.wait();
    (began.elapsed(), ended)
}

/// A storm with a tracer of its tree, after one without for comparison. Asserts that neither the storm
/// nor other programs come to a halt, and that the tracer's memory does not double.
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

/// Starts a storm, and runs programs meanwhile; returns its report, and how long the programs took.
fn go(storm: &mut Process) -> (Storm, Duration) {
    storm.say_go();
    let began = Instant::now();
    for _ in 0..10 {
        assert!(Command::new("true").status().unwrap().success());
    }
    let waited = began.elapsed();
    (serde_json::from_str(&storm.line()).unwrap(), waited)
}

/// The peak memory of a process, in KiB.
fn peak(process: &Process) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// Asserts that there are incidents, and that all are right: the process had its own file open.
fn assert_storm_reported(storm: &Storm, trace: &Trace) {
    assert!(!trace.incidents.is_empty(), "{:?}", trace.summary);
    for incident in &trace.incidents {
        assert_eq!(incident.file.path.as_deref(), storm.path.to_str(), "{incident:#?}");
        assert_eq!(incident.victim.pid, storm.pid, "{incident:#?}");
        assert_still_open(incident);
    }
}

/// Asserts that the incident is of a process that executed a file it had open itself.
pub(crate) fn assert_still_open(incident: &Incident) {
    assert!(incident.complete, "{incident:#?}");
    assert_eq!(incident.verdict.kind, VerdictKind::StillOpen, "{incident:#?}");
    let [holder] = &incident.holders[..] else { panic!("not one holder: {incident:#?}") };
    assert_eq!(holder.pid, incident.victim.pid, "{incident:#?}");
    assert_eq!(holder.opened.as_ref().map(|by| by.pid), Some(holder.pid), "{incident:#?}");
}
