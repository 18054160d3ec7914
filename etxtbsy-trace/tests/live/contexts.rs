//! `context`: the test and the job that the processes of a failure belong to.

use crate::support::mounted::Mounted;
use crate::support::{Process, Turn, tracer};
use etxtbsy_trace::event::{Incident, Line};
use nix::sys::signal::Signal;
use std::fs;
use std::process::Command;

/// A shell under a test runner executes a program that it has open for writing, in a child. The job is in the environment
/// of the shell's parent too.
#[test]
fn the_test_and_the_job_are_named() {
    let Some(turn) = Turn::take_as_root() else { return };
    fs::copy("/bin/true", turn.dir.path().join("tool")).unwrap();
    let of_test = "PYTEST_CURRENT_TEST='tests/test_tool.py::test_runs (call)' sh -c \
                   'echo ready; read go; exec 3>>./tool; ./tool 2>/dev/null; echo failed; read go'; exit 0";
    let mut shell = Process::start(
        Command::new("sh")
            .args(["-c", of_test])
            .current_dir(turn.dir.path())
            .env("GITHUB_JOB", "build")
            .env("GITHUB_RUN_ID", "17")
            .env("GITHUB_TOKEN", "sesame")
            .env_remove("GITHUB_WORKFLOW")
            .env_remove("GITHUB_REPOSITORY")
            .env_remove("GITHUB_RUN_ATTEMPT")
            .env_remove("NEXTEST_TEST_NAME"),
    );
    assert_eq!(shell.line(), "ready");
    let pid = shell.pid().to_string();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid]));
    tracer.line();
    shell.say_go();
    assert_eq!(shell.line(), "failed");
    let line = tracer.line();
    shell.say_go();
    shell.wait();
    tracer.wait();

    assert!(!line.contains("sesame"), "{line}");
    let Line::Incident(incident) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
    let Incident { victim, holders, .. } = &*incident;
    let holder = holders.iter().find(|holder| holder.pid != victim.pid).unwrap();
    let opened = holder.opened.as_ref().unwrap();
    for context in [&victim.context, &holder.context, &opened.context] {
        let context = context.as_ref().unwrap();
        assert_eq!(context.test.as_deref(), Some("tests/test_tool.py::test_runs"), "{incident:#?}");
        assert_eq!(context.job.as_deref(), Some("build, run 17"), "{incident:#?}");
    }
}

/// Of processes that have ended when the tracer gets to look, nothing is left in /proc: the kernel's number of their cgroup
/// leads to its path.
#[test]
fn the_cgroup_of_a_process_that_has_ended_is_known() {
    let Some(turn) = Turn::take_as_root() else { return };
    let hierarchy = Mounted::new(turn.dir.path(), "cgroup", "cgroup2", None);
    let id = "5d".repeat(32);
    let name = format!("docker-{id}.scope");
    let cgroup = hierarchy.0.join(&name);
    fs::create_dir(&cgroup).unwrap();
    fs::copy("/bin/true", turn.dir.path().join("tool")).unwrap();
    let script = "echo ready; read go; echo 0 >\"$0/cgroup.procs\"; exec 3>>./tool; ./tool 2>/dev/null; exit 0";
    let command = ["-c", script, cgroup.to_str().unwrap()];
    let mut shell = Process::start(Command::new("sh").args(command).current_dir(turn.dir.path()));
    assert_eq!(shell.line(), "ready");
    let pid = shell.pid().to_string();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid]));
    tracer.line();
    tracer.stop();
    shell.say_go();
    shell.wait();
    tracer.signal(Signal::SIGCONT);
    let line = tracer.line();
    tracer.wait();
    fs::remove_dir(&cgroup).unwrap();

    let Line::Incident(incident) = serde_json::from_str(&line).unwrap() else { panic!("{line}") };
    let Incident { victim, holders, .. } = &*incident;
    let holders = holders.iter().map(|holder| (&holder.cgroup, &holder.context));
    for (path, context) in holders.chain([(&victim.cgroup, &victim.context)]) {
        assert_eq!(path.as_deref(), Some(&*format!("/{name}")), "{incident:#?}");
        let container = context.as_ref().and_then(|context| context.container.as_deref());
        assert_eq!(container, Some(&*id), "{incident:#?}");
    }
}
