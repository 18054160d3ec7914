//! Faults around the tracer: what was seen before is kept, what was missed is counted.

use crate::storms::assert_still_open;
use crate::support::mounted::Mounted;
use crate::support::{
    Attached, BINARY, Ended, Process, Trace, Turn, first_line, is_own_machine, tracer,
};
use etxtbsy_trace::event::{Line, LossKind, Shortfall, VerdictKind};
use etxtbsy_trace::tracer::{features::maps_allocate_late, layout::running_kernel};
use etxtbsy_workload::Storm;
use nix::sys::signal::Signal;
use nix::sys::time::{TimeSpec, TimeValLike};
use nix::time::{ClockId, clock_gettime, clock_settime};
use std::fs;
use std::io::{ErrorKind, pipe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, sleep};
use std::time::Duration;
use test_support::skip;

/// Longer than the grace period of a failure.
const SUSPENDED: Duration = Duration::from_secs(2);

/// The tracer is suspended while several programs fail to exec a file that they have open. When it
/// continues, all releases are in the ring buffer, so no holder is reported to hold the file still.
#[test]
fn failures_while_the_tracer_is_suspended_are_reported_afterwards() {
    const FAILURES: usize = 50;
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let script = format!(
        "read go; i=0; while [ $i -lt {FAILURES} ]; do \
         {BINARY} workload still-open >/dev/null || exit 1; i=$((i+1)); done; echo done; read end"
    );
    let mut root = Process::start(Command::new("sh").args(["-c", &script]));
    let pid = root.pid().to_string();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid]));
    let meta = tracer.line();
    tracer.stop();
    root.say_go();
    assert_eq!(root.line(), "done");
    sleep(SUSPENDED);
    tracer.signal(Signal::SIGCONT);
    root.wait();
    let trace = finished(&meta, &tracer.wait());
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    assert_eq!(trace.incidents.len(), FAILURES);
    for incident in &trace.incidents {
        assert!(incident.complete, "{incident:#?}");
        assert_eq!(incident.verdict.kind, VerdictKind::StillOpen, "{incident:#?}");
        assert!(incident.holders[0].released.is_some(), "{incident:#?}");
    }
}

/// The same in a storm, for most of which there is no room.
#[test]
fn a_storm_while_the_tracer_is_suspended_is_counted() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let mut attached = Attached::start(&["storm", "execs", "--wait-for-go", "--seconds", "60"]);
    attached.workload.say_go();
    attached.await_line();
    attached.tracer.stop();
    let stopped_ns = monotonic_ns();
    sleep(SUSPENDED);
    let continued_ns = monotonic_ns();
    attached.tracer.signal(Signal::SIGCONT);
    // It continues.
    while attached.await_line() < continued_ns {}
    attached.workload.signal(Signal::SIGINT);
    let storm: Storm = serde_json::from_str(&attached.workload.line()).unwrap();
    let trace = attached.end();
    trace.assert_counts(&storm);
    trace.incidents.iter().for_each(assert_still_open);
    let mut before = trace.incidents.iter().filter(|incident| incident.time_ns < stopped_ns);
    assert!(before.next().is_some(), "what was seen before is kept");
}

#[test]
fn two_tracers_see_the_same() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = turn.output();
    let mut first = Attached::start(&["storm", "execs", "--wait-for-go", "--count", "300"]);
    let pid = first.workload.pid().to_string();
    let second = Process::start(tracer().args(["--json", "--pid", &pid, "-o"]).arg(&output));
    let meta = second.line();
    first.workload.say_go();
    let storm: Storm = serde_json::from_str(&first.workload.line()).unwrap();
    let one = first.end();
    let other = finished(&meta, &second.wait());
    for trace in [&one, &other] {
        trace.assert_counts(&storm);
        assert!(trace.lost().is_empty(), "{:?}", trace.lost);
        trace.incidents.iter().for_each(assert_still_open);
    }
}

/// The tracer starts while execs fail on all processors, some of them at that moment.
#[test]
fn failures_in_progress_at_the_start_are_complete_or_omitted() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let workload = Process::start(Command::new(BINARY).args([
        "workload",
        "storm",
        "execs",
        "--seconds",
        "60",
    ]));
    let pid = workload.pid().to_string();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid]));
    let lines = [tracer.line(), tracer.line()].join("\n");
    workload.end_storm();
    let trace = finished(&lines, &tracer.wait());
    assert!(trace.summary.failures > 0);
    for incident in &trace.incidents {
        assert!(incident.complete, "{incident:#?}");
        assert_eq!(incident.verdict.kind, VerdictKind::StillOpen, "{incident:#?}");
        assert_eq!(incident.holders[0].pid, incident.victim.pid, "{incident:#?}");
    }
}

/// The file keeps what was written before the disk was full, and stdout has all lines.
#[test]
fn a_disk_that_becomes_full_keeps_what_was_written() {
    const FAILURES: u64 = 200;
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let disk = small_disk(turn.dir.path());
    let output = disk.0.join("trace.jsonl");
    let storm = ["workload", "--report", "/dev/null", "storm", "execs"];
    let ended = Process::start(
        tracer()
            .args(["run", "--json", "-o"])
            .arg(&output)
            .args(["--", BINARY])
            .args(storm)
            .args(["--count", &FAILURES.to_string()]),
    )
    .wait();
    let trace = Trace::parse(&ended.stdout);
    assert_eq!((trace.summary.failures, trace.incidents.len() as u64), (FAILURES, FAILURES));
    let kept = fs::read_to_string(&output).unwrap();
    assert!(ended.stdout.starts_with(&kept), "the file is not how the trace begins");
    // The first line is no incident, and the last one can be incomplete.
    let incidents = kept.matches('\n').count() as u64 - 1;
    assert!(incidents > 0);
    let missing = format!("; {} of {FAILURES} incidents are not there", FAILURES - incidents);
    ended.assert_refused(125, &["trace.jsonl", "No space left on device", &missing]);
}

/// A tmpfs with room for a few incidents.
pub(crate) fn small_disk(dir: &Path) -> Mounted {
    Mounted::new(dir, "disk", "tmpfs", Some("size=64k"))
}

/// The kernel has no memory for map elements: each hold without one is counted, and the rest is
/// reported. If maps are preallocated, nothing is lost.
#[test]
fn holds_for_which_there_is_no_memory_are_counted() {
    const FILES: u64 = 60_000;
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let Some(group) = MemoryGroup::new() else {
        skip!("there is no memory controller of cgroups");
    };
    let storm = ["storm", "held", "--wait-for-go", "--count", &FILES.to_string()];
    let mut workload = Process::start(Command::new(BINARY).arg("workload").args(storm));
    assert_eq!(workload.line(), "ready");
    let pid = workload.pid().to_string();
    let script = format!("echo $$ >{} && exec \"$@\"", group.0.join("cgroup.procs").display());
    let tracer = Process::start(
        Command::new("sh").args(["-c", &script, "sh", BINARY, "--json", "--pid", &pid]),
    );
    let meta = tracer.line();
    // The tracer itself can be killed for its memory.
    tracer.stop();
    group.leave(2 << 20);
    workload.say_go();
    let storm: Storm = serde_json::from_str(&workload.line()).unwrap();
    group.unlimit();
    tracer.signal(Signal::SIGCONT);
    assert_eq!(workload.wait().code, Some(0));
    let trace = finished(&meta, &tracer.wait());
    trace.assert_counts(&storm);
    // The map has places for all of them.
    if maps_allocate_late(&running_kernel().unwrap()) {
        assert!(trace.lost_of(LossKind::HoldsMapFull) > FILES / 10, "{:?}", trace.lost);
    } else {
        assert_eq!(trace.lost_of(LossKind::HoldsMapFull), 0, "{:?}", trace.lost);
    }
}

/// A cgroup whose memory is limited.
struct MemoryGroup(PathBuf, &'static [&'static str; 4]);

impl MemoryGroup {
    /// The parent directory, the files of the limit and of the usage, and the value for no limit.
    const KINDS: [[&'static str; 4]; 2] = [
        ["/sys/fs/cgroup", "memory.max", "memory.current", "max"],
        ["/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "-1"],
    ];

    fn new() -> Option<Self> {
        Self::KINDS.iter().find_map(|kind| {
            let dir = Path::new(kind[0]).join(format!("etxtbsy-trace-{}", std::process::id()));
            fs::create_dir(&dir).ok()?;
            let group = Self(dir, kind);
            group.0.join(kind[1]).exists().then_some(group)
        })
    }

    /// Sets the limit to that many bytes above the usage.
    fn leave(&self, bytes: u64) {
        let taken = fs::read_to_string(self.0.join(self.1[2])).unwrap();
        let limit = taken.trim().parse::<u64>().unwrap() + bytes;
        fs::write(self.0.join(self.1[1]), limit.to_string()).unwrap();
    }

    fn unlimit(&self) {
        fs::write(self.0.join(self.1[1]), self.1[3]).unwrap();
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The process that closes the attachments stays in the group for a moment.
        while fs::remove_dir(&self.0).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
            thread::yield_now();
        }
    }
}

/// After the clock is set, `time` follows the new clock. Needs its own machine.
#[test]
fn times_follow_a_clock_that_is_set() {
    const HOUR: i64 = 3600;
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    if !is_own_machine() {
        skip!("it sets the machine's clock (run: cargo xtask vm)");
    }
    let failure = format!("read go; {BINARY} workload still-open >/dev/null");
    let script = format!("{failure}; {failure}; read end");
    let mut root = Process::start(Command::new("sh").args(["-c", &script]));
    let pid = root.pid().to_string();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid]));
    tracer.line();
    let mut next = || {
        root.say_go();
        let Ok(Line::Incident(incident)) = serde_json::from_str(&tracer.line()) else {
            panic!("not an incident");
        };
        let time: jiff::Timestamp = incident.time.parse().unwrap();
        (time.as_nanosecond(), i128::from(incident.time_ns))
    };
    let first = next();
    step_clock(HOUR);
    let second = next();
    step_clock(-HOUR);
    let stepped = (second.0 - first.0) - (second.1 - first.1);
    let off = (stepped - i128::from(HOUR) * 1_000_000_000).abs();
    assert!(off < 60_000_000_000, "{stepped} ns");
    root.wait();
    assert_eq!(tracer.wait().code, Some(0));
}

fn step_clock(seconds: i64) {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).unwrap();
    clock_settime(ClockId::CLOCK_REALTIME, now + TimeSpec::seconds(seconds)).unwrap();
}

/// The reader of stdout has ended; the file has all lines until then, and is complete.
#[test]
fn a_closed_stdout_leaves_the_file_complete() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = turn.output();
    let mut workload =
        Process::start(Command::new(BINARY).args(["workload", "storm", "execs", "--wait-for-go"]));
    assert_eq!(workload.line(), "ready");
    let pid = workload.pid().to_string();
    let (reader, writer) = pipe().unwrap();
    let tracer = Process::start_with_stdout(
        tracer().args(["--json", "--pid", &pid, "-o"]).arg(&output),
        writer,
    );
    first_line(reader);
    workload.say_go();
    let ended = tracer.wait();
    assert_eq!((ended.signal, ended.stderr.as_str()), (Some(Signal::SIGPIPE as i32), ""));
    workload.end_storm();
    let trace = Trace::parse(&fs::read_to_string(&output).unwrap());
    // Each processor may have been reporting one.
    let (whole, cut): (Vec<_>, Vec<_>) =
        trace.incidents.iter().partition(|incident| incident.complete);
    assert!(!whole.is_empty());
    whole.into_iter().for_each(assert_still_open);
    assert!(cut.len() <= thread::available_parallelism().unwrap().get(), "{cut:#?}");
    let why = trace.summary.unexplained_by.get(&Shortfall::RecordsLost).copied();
    assert_eq!(why.unwrap_or_default(), cut.len() as u64, "{:?}", trace.summary);
}

/// The trace of a tracer that must succeed; `lines` were already read.
fn finished(lines: &str, ended: &Ended) -> Trace {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Trace::parse(&format!("{lines}\n{}", ended.stdout))
}

/// Now, in nanoseconds of CLOCK_MONOTONIC.
fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().num_nanoseconds().cast_unsigned()
}
