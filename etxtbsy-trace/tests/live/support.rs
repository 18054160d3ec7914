//! Runs the tracer with a time limit, and reads what it wrote.

pub(crate) mod mounted;
pub(crate) mod sudo_user;

use etxtbsy_trace::event::{
    Holder, Incident, Line, LossKind, Lost, Meta, NearMiss, Opened, Refusal, Summary,
};
use etxtbsy_workload::{Race, Storm};
use nix::sys::signal::{SigHandler, Signal, kill, killpg, signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, geteuid};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::io::{BufRead, BufReader, PipeReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle, Scope, ScopedJoinHandle};
use std::time::Duration;
use tempfile::TempDir;
pub(crate) use test_support::NOBODY;
use test_support::{skip, skipped};

/// The binary under test.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_etxtbsy-trace");

/// How long the races run, in seconds, if the environment sets it.
pub(crate) fn race_seconds() -> Option<u64> {
    let seconds = std::env::var("ETXTBSY_TRACE_RACE_SECONDS").ok()?;
    Some(seconds.parse().expect("ETXTBSY_TRACE_RACE_SECONDS is a number of seconds"))
}

/// Whether this is a virtual machine for the tests, made by `cargo xtask vm`.
pub(crate) fn is_own_machine() -> bool {
    std::env::var_os("ETXTBSY_TRACE_OWN_MACHINE").is_some()
}

/// The arguments for the length of a race: until that many failures, or for the time that the
/// environment sets.
///
/// Emulated processors make only 20 to 60 execs a second. To get enough failures, writing a file takes
/// longer there than the fork that it races with.
pub(crate) fn race_course(failures: u64) -> Vec<String> {
    let (failures, writing) = if is_own_machine() { (200, 10_000) } else { (failures, 0) };
    let (seconds, failures) = race_seconds().map_or((60, failures), |seconds| (seconds, u64::MAX));
    [("--seconds", seconds), ("--failures", failures), ("--writing-takes", writing)]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value.to_string()])
        .collect()
}

/// Asserts that all incidents are complete, but for two and one in 50. In about one failure in 100 the holder
/// drops the file between the refusal and the moment the programs look for it, some microseconds later; then no
/// holder is named. With 10 failures, three such ones come once in 10,000 runs.
pub(crate) fn assert_complete(all: &[Incident], is_complete: impl Fn(&Incident) -> bool) {
    let incomplete = all.iter().filter(|incident| !is_complete(incident)).count();
    assert!(
        incomplete <= 2 + all.len() / 50,
        "{incomplete} of {} not explained; the first: {:#?}",
        all.len(),
        all.iter().find(|incident| !incident.complete)
    );
}

/// Whether a race had no failure, because emulated processors made too few attempts; the test is then
/// skipped.
pub(crate) fn has_too_few(race: &Race) -> bool {
    let has = race.failures == 0;
    if has {
        assert!(race.attempts < 10_000, "nothing failed in {} attempts", race.attempts);
        skipped(format_args!("nothing failed in {} attempts", race.attempts));
    }
    has
}

/// Starts a thread with the name of this one, because skipped tests are reported by thread name.
pub(crate) fn spawn_scoped<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    run: impl FnOnce() -> T + Send + 'scope,
) -> ScopedJoinHandle<'scope, T> {
    let name = thread::current().name().unwrap_or_default().to_owned();
    thread::Builder::new().name(name).spawn_scoped(scope, run).unwrap()
}

/// A process that takes longer is killed, and its test fails.
fn limit() -> Duration {
    Duration::from_secs(120 + race_seconds().unwrap_or(0))
}

/// The turn of a test: only one runs at a time, so that no test disturbs another's race or sees its
/// failures.
pub(crate) struct Turn {
    /// The directory of the test, removed at its end.
    pub(crate) dir: TempDir,
    _lock: File,
}

impl Turn {
    pub(crate) fn take() -> Self {
        let lock = File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("live.lock")).unwrap();
        lock.lock().unwrap();
        let dir = tempfile::Builder::new().prefix("etxtbsy-trace-").tempdir_in("/var/tmp").unwrap();
        Self { dir, _lock: lock }
    }

    /// The same for a test that traces; `None` without root, and the test is skipped.
    pub(crate) fn take_as_root() -> Option<Self> {
        if geteuid().is_root() {
            return Some(Self::take());
        }
        skip!("tracing needs root (run: cargo xtask test)")
    }

    /// `run -o FILE --overwrite OPTIONS -- COMMAND`, to its end.
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> (Ended, Trace) {
        self.run_by(&mut tracer(), options, command)
    }

    /// The same with another tracer command.
    pub(crate) fn run_by(
        &self,
        tracer: &mut Command,
        options: &[&str],
        command: &[&str],
    ) -> (Ended, Trace) {
        let output = self.output();
        let ended = Process::start(
            tracer
                .args(["run", "--overwrite", "-o"])
                .arg(&output)
                .args(options)
                .arg("--")
                .args(command),
        )
        .wait();
        let trace = Trace::read(&output, &ended);
        (ended, trace)
    }

    /// A workload under `run`: its report and the trace.
    pub(crate) fn workload<T: DeserializeOwned>(&self, arguments: &[&str]) -> (T, Trace) {
        let (ended, trace) = self.run(&[], &[&[BINARY, "workload"], arguments].concat());
        (ended.report(), trace)
    }

    /// A race under `run`, until that many execs have failed.
    pub(crate) fn race<T: DeserializeOwned>(&self, name: &str, failures: u64) -> (T, Trace) {
        let course = race_course(failures);
        let arguments: Vec<&str> =
            [name].into_iter().chain(course.iter().map(String::as_str)).collect();
        self.workload(&arguments)
    }

    pub(crate) fn output(&self) -> PathBuf {
        self.dir.path().join("trace.jsonl")
    }
}

/// Whether a program is there, and runs.
pub(crate) fn has(program: &str, version: &str) -> bool {
    Command::new(program).arg(version).output().is_ok_and(|ended| ended.status.success())
}

/// The race go22315, which waits until it is traced.
pub(crate) struct WaitingRace(pub(crate) Process);

impl WaitingRace {
    pub(crate) fn start(start: impl FnOnce(&mut Command) -> Process) -> Self {
        let mut race = Command::new(BINARY);
        race.args(["workload", "go22315", "--wait-for-go"]).args(race_course(10));
        let process = start(&mut race);
        assert_eq!(process.line(), "ready");
        Self(process)
    }

    /// Starts the race once `tracer` traces it; returns its report and the trace.
    pub(crate) fn traced_by(mut self, tracer: Process) -> (Race, String) {
        let meta = tracer.line();
        self.0.say_go();
        let race: Race = serde_json::from_str(&self.0.line()).unwrap();
        assert_eq!(self.0.wait().code, Some(0));
        // It ends because the tree has ended.
        let ended = tracer.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        (race, format!("{meta}\n{}", ended.stdout))
    }
}

/// The tracer, without the variables of a sudo that started the tests.
pub(crate) fn tracer() -> Command {
    let mut command = Command::new(BINARY);
    for key in ["SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"] {
        command.env_remove(key);
    }
    // Set on most build machines; an error must still be one line.
    command.env("RUST_BACKTRACE", "1");
    command
}

/// A process in its own group, which is killed if it does not end in time.
pub(crate) struct Process {
    child: Child,
    stdout: Option<Receiver<String>>,
    stderr: Option<JoinHandle<String>>,
    /// Notifies the guard that the process has ended; the guard returns whether it killed the process.
    guard: Option<(Sender<()>, JoinHandle<bool>)>,
}

/// How a process ended, and the output that no [`Process::line`] had read.
pub(crate) struct Ended {
    /// The exit status; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut process = Self::start_with_stdout(command, Stdio::piped());
        let stdout = BufReader::new(process.child.stdout.take().unwrap());
        let (sender, receiver) = channel();
        // Ends with the pipe.
        thread::spawn(move || {
            for line in stdout.lines() {
                if sender.send(line.unwrap()).is_err() {
                    break;
                }
            }
        });
        process.stdout = Some(receiver);
        process
    }

    /// The same with another stdout.
    pub(crate) fn start_with_stdout(command: &mut Command, stdout: impl Into<Stdio>) -> Self {
        // SAFETY: signal(2) may be called between fork and exec.
        unsafe {
            // A shell in the background, or nohup(1), may have set them to be ignored.
            command.pre_exec(|| {
                signal(Signal::SIGINT, SigHandler::SigDfl)?;
                signal(Signal::SIGQUIT, SigHandler::SigDfl)?;
                signal(Signal::SIGHUP, SigHandler::SigDfl)?;
                Ok(())
            });
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).unwrap();
            String::from_utf8(bytes).unwrap()
        });
        let group = Pid::from_raw(child.id().cast_signed());
        let (ended, ends) = channel();
        let guard = thread::spawn(move || {
            let late = ends.recv_timeout(limit()) == Err(RecvTimeoutError::Timeout);
            if late {
                killpg(group, Signal::SIGKILL).unwrap();
            }
            late
        });
        Self { child, stdout: None, stderr: Some(stderr), guard: Some((ended, guard)) }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }

    /// Waits for the next line of its stdout.
    pub(crate) fn line(&self) -> String {
        self.stdout.as_ref().unwrap().recv().expect("it ended before the line")
    }

    /// Whether its next line is that one; false at the end of file.
    pub(crate) fn says(&self, line: &str) -> bool {
        self.stdout.as_ref().unwrap().recv().is_ok_and(|next| next == line)
    }

    /// Writes the line "go" to its stdin.
    pub(crate) fn say_go(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
    }

    /// Closes its stdin.
    pub(crate) fn say_end(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Stops it with SIGSTOP, and waits until it has stopped.
    pub(crate) fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        let status = waitpid(self.pid(), Some(WaitPidFlag::WUNTRACED)).unwrap();
        assert_eq!(status, WaitStatus::Stopped(self.pid(), Signal::SIGSTOP));
    }

    /// Ends a storm early, or before it has begun.
    pub(crate) fn end_storm(self) {
        self.signal(Signal::SIGINT);
        self.wait();
    }

    /// Closes its stdin and waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        drop(self.child.stdin.take());
        let killed =
            self.wait_guarded().expect("it can be waited for, and its guard has not failed");
        let status = self.child.wait().unwrap();
        assert!(!killed, "it had not ended after {:?} and was killed", limit());
        let stdout = self.stdout.take().into_iter().flatten().map(|line| line + "\n").collect();
        let stderr = self.stderr.take().unwrap().join().unwrap();
        Ended { code: status.code(), signal: status.signal(), stdout, stderr }
    }

    /// Waits for its end without reaping it, so that the guard cannot kill a reused pid; returns whether the
    /// guard killed it. Never panics, because a failed test drops its processes.
    fn wait_guarded(&mut self) -> Option<bool> {
        let waited = waitid(Id::Pid(self.pid()), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT);
        let (ended, guard) = self.guard.take()?;
        // The guard has ended if it killed the process.
        let _ = ended.send(());
        guard.join().ok().filter(|_| waited.is_ok())
    }
}

impl Drop for Process {
    /// The test failed before it waited: the process may have printed the reason.
    fn drop(&mut self) {
        if self.guard.is_some() {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.wait_guarded();
            let status = self.child.wait();
            let stderr = self.stderr.take().and_then(|stderr| stderr.join().ok());
            eprintln!("{}: {status:?}: {}", self.pid(), stderr.unwrap_or_default());
        }
    }
}

/// A workload, and a tracer that writes to its stdout.
pub(crate) struct Attached {
    pub(crate) workload: Process,
    pub(crate) tracer: Process,
    /// The lines of the trace that were read.
    received: String,
}

impl Attached {
    /// A workload that waits for "go", and a tracer of its tree that is live.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let workload = Process::start(Command::new(BINARY).arg("workload").args(arguments));
        assert_eq!(workload.line(), "ready");
        let pid = workload.pid().to_string();
        let tracer = Process::start(tracer().args(["--json", "--pid", &pid]));
        let mut attached = Self { workload, tracer, received: String::new() };
        attached.await_line();
        attached
    }

    /// The lines of the trace that were read.
    pub(crate) fn received(&self) -> &str {
        &self.received
    }

    /// Waits for the next line of the trace; returns the time of its failure, or 0 if it is no incident.
    pub(crate) fn await_line(&mut self) -> u64 {
        let line = self.tracer.line();
        self.received += &line;
        self.received.push('\n');
        match serde_json::from_str(&line).unwrap() {
            Line::Incident(incident) => incident.time_ns,
            _ => 0,
        }
    }

    /// Closes the workload's stdin and waits for the end of both.
    pub(crate) fn end(self) -> Trace {
        assert_eq!(self.workload.wait().code, Some(0));
        let ended = self.tracer.wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        Trace::parse(&(self.received + &ended.stdout))
    }
}

impl Ended {
    /// The report of a workload, from its stdout.
    pub(crate) fn report<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        serde_json::from_str(&self.stdout).expect(&self.stdout)
    }

    /// Asserts that it failed with that status and one error line that has these words.
    pub(crate) fn assert_refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "signal {:?}: {}", self.signal, self.stderr);
        let errors: Vec<&str> =
            self.stderr.lines().filter(|line| line.starts_with("etxtbsy-trace: ")).collect();
        let [error] = errors[..] else { panic!("not one error: {}", self.stderr) };
        for word in words {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
    }
}

/// The first line of a pipe.
pub(crate) fn first_line(reader: PipeReader) -> String {
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).unwrap();
    line
}

/// The lines of a trace, checked to be well-formed, ordered and consistent.
pub(crate) struct Trace {
    pub(crate) meta: Meta,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) near_misses: Vec<NearMiss>,
    pub(crate) refusals: Vec<Refusal>,
    pub(crate) lost: Vec<Lost>,
    pub(crate) summary: Summary,
}

impl Trace {
    pub(crate) fn read(output: &Path, ended: &Ended) -> Self {
        let text = std::fs::read_to_string(output)
            .unwrap_or_else(|error| panic!("{}: {error}: {}", output.display(), ended.stderr));
        assert!(!text.is_empty(), "nothing was written: {}", ended.stderr);
        Self::parse(&text)
    }

    pub(crate) fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line is not complete: {text}");
        let mut lines: Vec<Line> =
            text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let Some(Line::Summary(summary)) = lines.pop() else {
            panic!("the last line is no summary: {text}")
        };
        let mut lines = lines.into_iter();
        let Some(Line::Meta(meta)) = lines.next() else {
            panic!("the first line is no meta: {text}")
        };
        let (mut incidents, mut near_misses) = (Vec::new(), Vec::new());
        let (mut refusals, mut lost) = (Vec::new(), Vec::new());
        for line in lines {
            match line {
                Line::Incident(incident) => incidents.push(*incident),
                Line::NearMiss(near) => near_misses.push(*near),
                Line::Refusal(refusal) => refusals.push(refusal),
                Line::Lost(one) => lost.push(one),
                Line::Meta(_) | Line::Summary(_) => panic!("a second meta or summary: {text}"),
            }
        }
        let trace = Self { meta, incidents, near_misses, refusals, lost, summary };
        trace.assert_consistent();
        trace
    }

    /// All losses except those that no tracer can avoid: events during which another program, or a map
    /// operation of user space, was interrupted or preempted on the same CPU.
    pub(crate) fn lost(&self) -> Vec<&Lost> {
        self.lost.iter().filter(|lost| lost.kind != LossKind::ProgramsSkipped).collect()
    }

    /// The number of losses of that kind.
    pub(crate) fn lost_of(&self, kind: LossKind) -> u64 {
        self.lost.iter().filter(|lost| lost.kind == kind).map(|lost| lost.count).sum()
    }

    /// The number of failures without an incident, because their records were lost.
    pub(crate) fn lost_failures(&self) -> u64 {
        [LossKind::FailuresRingFull, LossKind::FailuresOverload, LossKind::FailuresUnread]
            .map(|kind| self.lost_of(kind))
            .iter()
            .sum()
    }

    /// Whether the kernel reported that it skipped a program.
    pub(crate) fn has_skipped_programs(&self) -> bool {
        self.lost_of(LossKind::ProgramsSkipped) > 0
    }

    /// The opener of a holder's file. It must be known, unless the kernel skipped a program.
    pub(crate) fn opener<'a>(&self, holder: &'a Holder) -> Option<&'a Opened> {
        assert!(holder.opened.is_some() || self.has_skipped_programs(), "{holder:#?}");
        holder.opened.as_ref()
    }

    /// Asserts that each failure of a storm was counted, unless the kernel skipped a program.
    pub(crate) fn assert_counts(&self, storm: &Storm) {
        let uncounted = storm.failures - self.summary.failures;
        let missed = self.lost_of(LossKind::ProgramsSkipped);
        assert!(uncounted <= missed, "{uncounted} of {} not: {:?}", storm.failures, self.lost);
    }

    fn assert_consistent(&self) {
        let count = self.incidents.len() as u64;
        let complete = self.incidents.iter().filter(|incident| incident.complete).count() as u64;
        let mut ids: Vec<u64> = self.incidents.iter().map(|incident| incident.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, (1..=count).collect::<Vec<_>>(), "ids count from 1");
        assert_eq!(self.summary.incidents, count);
        // Each failure is reported or lost, except those after the last one that was wanted.
        let unreported = self.lost_failures();
        if !self.meta.argv.iter().any(|word| word == "--stop-after") {
            assert_eq!(self.summary.failures, count + unreported, "{:?}", self.lost);
        }
        let near: u64 = self.near_misses.iter().map(|near| near.count).sum();
        assert_eq!(self.summary.near_misses, near);
        let refusals: u64 = self.refusals.iter().map(|refusal| refusal.count).sum();
        assert_eq!(self.summary.refusals, refusals);
        assert_eq!(self.summary.explained, complete);
        assert_eq!(self.summary.unexplained, count - complete);
        assert_eq!(self.summary.by_verdict.values().sum::<u64>(), count);
        assert_eq!(self.summary.lost, self.lost.iter().map(|lost| lost.count).sum::<u64>());
        for incident in &self.incidents {
            assert_eq!(incident.errno, "ETXTBSY");
            assert!(incident.time_ns > self.meta.time_ns, "{incident:#?}");
            for holder in &incident.holders {
                if let Some(opened) = &holder.opened {
                    assert!(opened.time_ns < incident.time_ns, "{incident:#?}");
                }
                if let Some(released) = &holder.released {
                    let after = released.time_ns.cast_signed() - incident.time_ns.cast_signed();
                    assert_eq!(released.after_ns, after, "{incident:#?}");
                }
            }
        }
    }
}
