//! The action of GitHub, by its two entry points as a runner calls them. Needs Node.

use crate::support::sudo_user::SudoUser;
use crate::support::{BINARY, Ended, NOBODY, Process, Trace, Turn};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::skip;

const ACTION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../action");

/// A job with this action as its one step.
struct Job {
    turn: Turn,
    dir: PathBuf,
    uid: u32,
    inputs: Vec<(&'static str, String)>,
}

impl Job {
    /// `None`, after a line that says so, without root or without Node.
    fn new() -> Option<Self> {
        let turn = Turn::take_as_root()?;
        if !Command::new("node").arg("--version").output().is_ok_and(|ended| ended.status.success())
        {
            skip!("node is not installed");
        }
        let inputs = vec![("INPUT_BINARY", BINARY.to_owned())];
        Some(Self { dir: turn.dir.path().to_owned(), turn, uid: 0, inputs })
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).to_str().unwrap().to_owned()
    }

    /// What was written to one of the runner's files, as `name=value` lines.
    fn values(&self, name: &str) -> Vec<(String, String)> {
        let text = fs::read_to_string(self.path(name)).unwrap_or_default();
        let pairs = text.lines().map(|line| line.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn output(&self, name: &str) -> String {
        let found = self.values("output").into_iter().find(|(it, _)| it == name);
        found.map(|(_, value)| value).unwrap_or_default()
    }

    /// The variables that the runner gives to an entry point.
    fn variables(&self) -> Vec<(String, String)> {
        let files = [
            ("GITHUB_OUTPUT", "output"),
            ("GITHUB_STATE", "state"),
            ("GITHUB_STEP_SUMMARY", "summary"),
        ];
        let files = files.map(|(name, file)| (name.to_owned(), self.path(file)));
        let inputs = self.inputs.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        let state = self.values("state").into_iter();
        let state = state.map(|(name, value)| (format!("STATE_{name}"), value));
        let temp = ("RUNNER_TEMP".to_owned(), self.path(""));
        files.into_iter().chain(inputs).chain(state).chain([temp]).collect()
    }

    fn run(&self, script: &str) -> Ended {
        let mut node = Command::new("node");
        node.arg(format!("{ACTION}/{script}")).uid(self.uid).gid(self.uid);
        Process::start(node.envs(self.variables())).wait()
    }

    /// As [`Self::run`], by a user with sudo.
    fn run_as(&self, user: &SudoUser, script: &str) -> Ended {
        let variables = self.variables();
        let variables = variables.iter().map(|(name, value)| format!("'{name}={value}' "));
        let node = format!("exec env {} node action/{script}", variables.collect::<String>());
        Process::start(&mut user.shell(&node)).wait()
    }

    /// Ends the step; fails if that fails the job.
    fn end(&self) -> String {
        let ended = self.run("post.js");
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        ended.stdout
    }
}

fn fail_some_execs() {
    let race = ["workload", "go22315", "--failures", "3", "--seconds", "60"];
    assert_eq!(Process::start(Command::new(BINARY).args(race)).wait().code, Some(0));
}

#[test]
fn a_job_is_traced_until_its_end() {
    let Some(job) = Job::new() else {
        return;
    };
    let began = job.run("main.js");
    assert_eq!((began.code, job.output("tracing").as_str()), (Some(0), "true"), "{}", began.stdout);
    fail_some_execs();
    let log = job.end();
    let trace = Trace::parse(&fs::read_to_string(job.output("trace")).unwrap());
    assert!(trace.summary.incidents >= 3, "{:?}", trace.summary);
    assert!(log.contains("\n::warning title=ETXTBSY"), "{log}");
    assert!(
        log.starts_with("::group::etxtbsy-trace\n") && log.contains("\n::endgroup::\n"),
        "{log}"
    );
    let summary = fs::read_to_string(job.path("summary")).unwrap();
    assert!(summary.starts_with("## ETXTBSY: ") && summary.contains("fork-exec-race"), "{summary}");
}

#[test]
fn a_user_with_sudo_can_have_a_job_traced() {
    let Some(mut job) = Job::new() else {
        return;
    };
    let Some(user) = SudoUser::new(job.turn.dir.path()) else {
        return;
    };
    let copy = user.home.join("action");
    fs::create_dir(&copy).unwrap();
    for file in ["main.js", "post.js", "runner.js"] {
        fs::copy(Path::new(ACTION).join(file), copy.join(file)).unwrap();
    }
    (job.dir, job.inputs) = (user.home.clone(), Vec::new());
    let began = job.run_as(&user, "main.js");
    assert_eq!((began.code, job.output("tracing").as_str()), (Some(0), "true"), "{}", began.stdout);
    fail_some_execs();
    let ended = job.run_as(&user, "post.js");
    assert!(ended.stdout.contains("\n::warning title=ETXTBSY"), "{}", ended.stdout);
    let trace = job.output("trace");
    assert_eq!(fs::metadata(&trace).unwrap().uid(), NOBODY);
    assert!(Trace::parse(&fs::read_to_string(trace).unwrap()).summary.incidents >= 3);
}

#[test]
fn a_job_fails_only_if_that_is_asked_for() {
    let Some(mut job) = Job::new() else {
        return;
    };
    job.inputs.push(("INPUT_FAIL", "true".into()));
    job.run("main.js");
    let log = job.end();
    assert!(log.contains("::notice title="), "{log}");
    fs::remove_file(job.path("state")).unwrap();
    job.run("main.js");
    fail_some_execs();
    let ended = job.run("post.js");
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
    assert!(ended.stdout.contains("\n::error title=etxtbsy-trace::"), "{}", ended.stdout);
}

/// The kernel may kill the tracer, for want of memory.
#[test]
fn a_tracer_that_was_killed_is_reported() {
    let Some(job) = Job::new() else {
        return;
    };
    job.run("main.js");
    let state = job.values("state");
    let pid = state.iter().find(|(name, _)| name == "pid").unwrap().1.parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let log = job.end();
    assert!(log.contains("::warning title=ETXTBSY"), "{log}");
    assert!(log.contains("the trace is not complete"), "{log}");
}

#[test]
fn a_job_that_cannot_be_traced_says_why_and_goes_on() {
    let Some(mut job) = Job::new() else {
        return;
    };
    let assert_notice = |job: &Job, words: &str| {
        let ended = job.run("main.js");
        assert_eq!(ended.code, Some(0), "{}", ended.stdout);
        let notices: Vec<_> =
            ended.stdout.lines().filter(|line| line.starts_with("::notice ")).collect();
        assert!(notices.len() == 1 && notices[0].contains(words), "{}", ended.stdout);
        assert_eq!(job.output("tracing"), "false");
        assert_eq!(job.end(), "");
        fs::remove_file(job.path("output")).unwrap();
    };
    job.inputs = vec![("INPUT_BINARY", "/no/such/program".into())];
    assert_notice(&job, "there is no program /no/such/program; install");
    job.inputs = vec![("INPUT_BINARY", "/bin/false".into())];
    assert_notice(&job, "not traced");
    // A user who may not use sudo.
    job.inputs = vec![("INPUT_BINARY", BINARY.into())];
    chown(&job.dir, Some(NOBODY), Some(NOBODY)).unwrap();
    job.uid = NOBODY;
    assert_notice(&job, "sudo");
}

/// The names in the metadata are those that the code reads and writes.
#[test]
fn the_metadata_has_the_inputs_and_outputs_of_the_code() {
    let read = |name: &str| fs::read_to_string(Path::new(ACTION).join(name)).unwrap();
    let (metadata, code) = (read("action.yml"), read("main.js") + &read("post.js"));
    let section = |name: &str| {
        let lines = metadata.lines().skip_while(|line| *line != name).skip(1);
        let lines = lines.take_while(|line| line.starts_with(' '));
        let names = lines.filter_map(|line| line.strip_prefix("  ")?.strip_suffix(':'));
        names.filter(|name| !name.starts_with(' ')).collect::<Vec<_>>()
    };
    assert_eq!(section("inputs:"), ["binary", "fail"]);
    assert_eq!(section("outputs:"), ["tracing", "trace"]);
    for name in section("inputs:") {
        assert!(code.contains(&format!("INPUT_{}", name.to_uppercase())), "{name}");
    }
    for name in section("outputs:") {
        assert!(code.contains(&format!("setOutput('{name}'")), "{name}");
    }
}
