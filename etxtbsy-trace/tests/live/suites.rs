//! Small test suites in several languages, which fail once in hundreds of runs: one run shows the race, and a hunt shows
//! that a lock ends it. Each needs its language's compiler or interpreter, and is skipped without.

use crate::support::{Process, Trace, Turn, has, tracer};
use etxtbsy_trace::event::Hunt;
use std::process::Command;
use test_support::skip;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suites");

/// Options and a command of the tracer, to its end: its exit status and the trace.
fn trace(turn: &Turn, words: &[&str], suite: &[&str]) -> (Option<i32>, Trace) {
    let output = turn.output();
    let mut tracer = tracer();
    tracer.args(words).args(["--overwrite", "-o"]).arg(&output).arg("--").args(suite);
    let ended = Process::start(&mut tracer).wait();
    (ended.code, Trace::read(&output, &ended))
}

/// One run of the suite shows the race. With a lock, nothing is left of it.
fn assert_found_and_fixed(turn: &Turn, suite: &[&str]) {
    let (_, found) = trace(turn, &["run"], suite);
    let summary = &found.summary;
    assert!(summary.near_misses + summary.incidents > 0, "{summary:?}");
    for near in &found.near_misses {
        let path = near.file.path.as_deref().unwrap_or_default();
        assert!(path.contains("/tool-"), "{near:?}");
    }
    let fixed = [suite, &["fixed"]].concat();
    let (code, none) = trace(turn, &["hunt", "--provoke", "--runs", "2"], &fixed);
    assert_eq!((code, none.near_misses.len()), (Some(0), 0), "{:?}", none.near_misses.first());
    let Hunt { plain, provoked } = none.summary.hunt.unwrap();
    assert_eq!((plain.execs.of_written_files, provoked.execs.of_written_files), (240, 240));
}

/// A hunt with delays makes it fail.
fn assert_provoked(turn: &Turn, suite: &[&str]) {
    let (code, trace) =
        trace(turn, &["hunt", "--provoke", "--for", "60s", "--until", "failure"], suite);
    assert_eq!(code, Some(1), "{:?}", trace.summary.hunt);
}

/// A suite in a language with a compiler: how that is asked for its version, and builds a program.
fn assert_compiled(source: &str, version: [&str; 2], build: &[&str]) {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    if !has(version[0], version[1]) {
        skip!("{} is not installed", version[0]);
    }
    let (dir, binary) = (turn.dir.path().to_str().unwrap(), turn.dir.path().join("suite"));
    let mut compiler = Command::new(build[0]);
    compiler.args(&build[1..]).arg("-o").arg(&binary).arg(format!("{SOURCES}/{source}"));
    assert!(compiler.status().unwrap().success());
    let suite = [binary.to_str().unwrap(), dir];
    assert_found_and_fixed(&turn, &suite);
    assert_provoked(&turn, &suite);
}

#[test]
fn a_suite_in_c() {
    assert_compiled("suite.c", ["cc", "--version"], &["cc", "-pthread"]);
}

#[test]
fn a_suite_in_rust() {
    assert_compiled("suite.rs", ["rustc", "--version"], &["rustc", "--edition=2024"]);
}

#[test]
fn a_suite_in_go() {
    assert_compiled("suite.go", ["go", "version"], &["go", "build"]);
}

/// A suite in a language with an interpreter.
fn assert_interpreted(interpreter: &str, source: &str) {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    if !has(interpreter, "--version") {
        skip!("{interpreter} is not installed");
    }
    let source = format!("{SOURCES}/{source}");
    let suite = [interpreter, &source, turn.dir.path().to_str().unwrap()];
    assert_found_and_fixed(&turn, &suite);
    assert_provoked(&turn, &suite);
}

#[test]
fn a_suite_in_python() {
    assert_interpreted("python3", "suite.py");
}

#[test]
fn a_suite_in_node() {
    assert_interpreted("node", "suite.js");
}

#[test]
fn a_suite_in_java() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    if !has("javac", "-version") {
        skip!("there is no Java compiler");
    }
    let dir = turn.dir.path().to_str().unwrap();
    let built =
        Command::new("javac").args(["-d", dir]).arg(format!("{SOURCES}/Suite.java")).status();
    assert!(built.unwrap().success());
    let suite = ["java", "-cp", dir, "Suite", dir];
    assert_found_and_fixed(&turn, &suite);
    assert_provoked(&turn, &suite);
}
