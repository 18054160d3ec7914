//! `--as`: the role of the traced tree in the failures that are shown.

use crate::support::{Process, Trace, Turn, tracer};
use etxtbsy_trace::event::TreeRole;
use nix::libc;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

/// A script in the directory of the test.
fn script(turn: &Turn, name: &str) -> PathBuf {
    let path = turn.dir.path().join(name);
    fs::write(&path, "#!/bin/sh\nexit 0\n").unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

/// A shell that has a file open for writing, and executes another file that is busy. It continues and
/// ends on "go".
struct Holder(Process);

impl Holder {
    fn of(path: &Path, own: &Path) -> Self {
        let script =
            "exec 3<>\"$0\"; echo ready; read go; \"$1\" 2>/dev/null; echo failed; read go";
        let process = Process::start(Command::new("sh").args(["-c", script]).args([path, own]));
        assert_eq!(process.line(), "ready");
        Self(process)
    }
}

/// Asserts that an exec of the file in a child of this process fails.
fn assert_busy(path: &Path) {
    let error = Command::new(path).spawn().map(drop).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ETXTBSY), "{error}");
}

/// Traces a shell that holds one file, and fails to execute another that this process has open. Children
/// of this process fail to execute the first file, and a third one that the shell does not hold.
fn trace(role: &[&str]) -> Option<(u32, Trace)> {
    let turn = Turn::take_as_root()?;
    let [held, ours, other] = ["held", "ours", "other"].map(|name| script(&turn, name));
    let [_ours, _other] =
        [&ours, &other].map(|path| File::options().write(true).open(path).unwrap());
    let mut holder = Holder::of(&held, &ours);
    let pid = holder.0.pid().as_raw().cast_unsigned();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid.to_string()]).args(role));
    let meta = tracer.line();
    assert_busy(&held);
    assert_busy(&other);
    holder.0.say_go();
    assert_eq!(holder.0.line(), "failed");
    holder.0.say_go();
    assert_eq!(holder.0.wait().code, Some(0));
    let ended = tracer.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    Some((pid, Trace::parse(&format!("{meta}\n{}", ended.stdout))))
}

/// For each incident: the parent of the victim, and the holders.
fn parents_and_holders(trace: &Trace) -> Vec<(Option<u32>, Vec<u32>)> {
    let held = |incident: &etxtbsy_trace::event::Incident| {
        incident.holders.iter().map(|holder| holder.pid).collect()
    };
    trace.incidents.iter().map(|incident| (incident.victim.ppid, held(incident))).collect()
}

#[test]
fn as_victim_shows_failures_of_the_tree_and_counts_those_it_caused() {
    let Some((pid, trace)) = trace(&[]) else { return };
    assert_eq!(trace.meta.filter.role, TreeRole::Victim);
    assert_eq!(parents_and_holders(&trace), [(Some(pid), vec![process::id()])]);
    assert_eq!((trace.summary.failures, trace.summary.elsewhere), (1, 1), "{:?}", trace.summary);
}

#[test]
fn as_holder_shows_only_failures_that_the_tree_caused() {
    let Some((pid, trace)) = trace(&["--as", "holder"]) else { return };
    assert_eq!(trace.meta.filter.role, TreeRole::Holder);
    assert_eq!(parents_and_holders(&trace), [(Some(process::id()), vec![pid])]);
    assert_eq!((trace.summary.failures, trace.summary.elsewhere), (1, 2), "{:?}", trace.summary);
}

#[test]
fn as_either_shows_both() {
    let Some((pid, trace)) = trace(&["--as", "either"]) else { return };
    let mut found = parents_and_holders(&trace);
    found.sort_unstable();
    let mut expected = [(Some(process::id()), vec![pid]), (Some(pid), vec![process::id()])];
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!((trace.summary.failures, trace.summary.elsewhere), (2, 1), "{:?}", trace.summary);
}
