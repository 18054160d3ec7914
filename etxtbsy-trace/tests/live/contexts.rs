//! `context`: the test and the job that the processes of a failure belong to.

use crate::support::{Process, Turn, tracer};
use etxtbsy_trace::event::{Incident, Line};
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
