//! Stacks: small programs of several languages, whose sources show the functions and lines that open, fork and execute.

use crate::support::{Process, Turn, has, tracer};
use etxtbsy_trace::event::{Frame, Holder, Incident, Line};
use nix::sys::signal::Signal;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::skip;

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stacks");

/// The line of a source that ends with those words, counted from 1.
fn line(source: &str, ending: &str) -> u32 {
    let text = fs::read_to_string(format!("{SOURCES}/{source}")).unwrap();
    let is_it = |line: &str| line.ends_with(ending);
    let at = text.lines().position(is_it).unwrap_or_else(|| panic!("{source}: {ending}"));
    at as u32 + 1
}

/// A frame by the last part of its function's name, its line, and the name of its file.
fn find<'a>(stack: Option<&'a Vec<Frame>>, function: &str) -> Option<&'a Frame> {
    let is_it = |frame: &&Frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        name == function
            || name.ends_with(&format!("::{function}"))
            || name.ends_with(&format!(".{function}"))
    };
    stack?.iter().find(is_it)
}

/// Asserts that a stack has a function, at the line of the source that ends with `ending`.
#[track_caller]
fn assert_at(stack: Option<&Vec<Frame>>, function: &str, source: &str, ending: &str) {
    let frame = find(stack, function).unwrap_or_else(|| panic!("{function}: {stack:#?}"));
    assert_eq!(frame.line, Some(line(source, ending)), "{frame:#?}");
    let file = frame.file.as_deref().map(Path::new).and_then(Path::file_name);
    assert_eq!(file.and_then(|name| name.to_str()), Some(source), "{frame:#?}");
}

/// What a program's failure shows, with options of the tracer. The program waits until the tracer ends it: a process that
/// ends at once takes its mappings with it.
fn incident(turn: &Turn, options: &[&str], program: &[&str]) -> Incident {
    let path = turn.dir.path().join("program");
    let _ = fs::remove_file(&path);
    let command = [program, &[path.to_str().unwrap(), "wait"]].concat();
    let options = [&["--stop-after", "1", "--kill-after-stop"], options].concat();
    // Node writes files where it runs.
    let mut tracer = tracer();
    let (ended, mut trace) = turn.run_by(tracer.current_dir(turn.dir.path()), &options, &command);
    assert_eq!(ended.code, Some(128 + 15), "{}", ended.stderr);
    let [_] = &trace.incidents[..] else { panic!("not one: {:#?}", trace.incidents) };
    trace.incidents.remove(0)
}

/// The one that still has the file when the victim, which may have a copy too, has ended.
fn the_holder(incident: &Incident) -> &Holder {
    let mut others = incident.holders.iter().filter(|holder| holder.pid != incident.victim.pid);
    others.next().unwrap_or_else(|| panic!("{incident:#?}"))
}

fn opened(holder: &Holder) -> Option<&Vec<Frame>> {
    holder.opened.as_ref().and_then(|by| by.stack.as_ref())
}

fn forked(holder: &Holder) -> Option<&Vec<Frame>> {
    holder.forked.as_ref().and_then(|by| by.stack.as_ref())
}

/// Compiles a source; `None`, and the test is skipped, if there is no such compiler.
fn compiled(turn: &Turn, source: &str, compiler: &[&str]) -> Option<PathBuf> {
    let binary = turn.dir.path().join(source.replace('.', "-"));
    let mut command = Command::new(compiler[0]);
    command.args(&compiler[1..]).arg("-o").arg(&binary).arg(format!("{SOURCES}/{source}"));
    command.current_dir(turn.dir.path());
    match command.status() {
        Ok(status) => assert!(status.success(), "{compiler:?}"),
        Err(error) => skip!("{}: {error}", compiler[0]),
    }
    Some(binary)
}

/// Asserts the stacks of holder.c, built that way.
fn assert_in_c(turn: &Turn, options: &[&str]) {
    let words = [&["cc"], options].concat();
    let Some(binary) = compiled(turn, "holder.c", &words) else { return };
    let incident = incident(turn, &[], &[binary.to_str().unwrap()]);
    let holder = the_holder(&incident);
    assert_at(opened(holder), "open_program", "holder.c", "// the open");
    assert_at(opened(holder), "write_program", "holder.c", "// calls the open");
    assert_at(forked(holder), "fork_holder", "holder.c", "// the fork");
    assert_at(incident.victim.stack.as_ref(), "execute", "holder.c", "// the exec");
    assert_eq!(holder.opened.as_ref().unwrap().frames_unknown, Some(0), "{options:?}: {holder:#?}");
}

#[test]
fn in_c() {
    let Some(turn) = Turn::take_as_root() else { return };
    assert_in_c(&turn, &["-O2", "-g", "-fomit-frame-pointer"]);
    assert_in_c(&turn, &["-O2", "-g", "-fno-omit-frame-pointer"]);
    assert_in_c(&turn, &["-O0", "-g"]);
    assert_in_c(&turn, &["-O2", "-g", "-static"]);
    assert_in_c(&turn, &["-O2", "-g", "-no-pie"]);
}

/// Without symbols, nothing of the program's own is known, and nothing is guessed.
#[test]
fn stripped() {
    let Some(turn) = Turn::take_as_root() else { return };
    let Some(binary) = compiled(&turn, "holder.c", &["cc", "-O2", "-s"]) else { return };
    let incident = incident(&turn, &[], &[binary.to_str().unwrap()]);
    let opened = the_holder(&incident).opened.as_ref().unwrap();
    for frame in opened.stack.iter().flatten() {
        let is_own = frame.module.as_deref() == binary.to_str();
        assert!(!is_own || frame.function.is_none() && frame.line.is_none(), "{frame:#?}");
    }
    assert!(opened.frames_unknown.is_some(), "{opened:#?}");
}

/// The file of the program is gone: it is read by the process, or nothing is known.
#[test]
fn a_program_that_removes_itself() {
    let Some(turn) = Turn::take_as_root() else { return };
    let Some(binary) = compiled(&turn, "holder.c", &["cc", "-O2", "-g"]) else { return };
    let binary = binary.to_str().unwrap();
    let script = format!("exec 9< {binary}; rm {binary}; exec /proc/self/fd/9 \"$1\" wait");
    let incident = incident(&turn, &[], &["/bin/sh", "-c", &script, "sh"]);
    assert_at(opened(the_holder(&incident)), "open_program", "holder.c", "// the open");
}

#[test]
fn in_rust() {
    let Some(turn) = Turn::take_as_root() else { return };
    for options in [&["-g"][..], &["-O", "-C", "debuginfo=1"]] {
        let words = [&["rustc", "--edition=2024"], options].concat();
        let Some(binary) = compiled(&turn, "holder.rs", &words) else { return };
        let incident = incident(&turn, &[], &[binary.to_str().unwrap()]);
        let holder = the_holder(&incident);
        assert_at(opened(holder), "write_program", "holder.rs", "// the open");
        assert_at(forked(holder), "start_holder", "holder.rs", "// the fork");
        assert_at(incident.victim.stack.as_ref(), "execute", "holder.rs", "// the exec");
    }
}

#[test]
fn in_go() {
    let Some(turn) = Turn::take_as_root() else { return };
    let Some(binary) = compiled(&turn, "holder.go", &["go", "build"]) else { return };
    let incident = incident(&turn, &[], &[binary.to_str().unwrap()]);
    assert_at(opened(the_holder(&incident)), "writeProgram", "holder.go", "// the open");
    assert_at(incident.victim.stack.as_ref(), "execute", "holder.go", "// the exec");
}

/// Interpreters show their own functions only: none is named as one of the script's.
#[test]
fn in_python() {
    let Some(turn) = Turn::take_as_root() else { return };
    if !has("python3", "--version") {
        skip!("python3 is not installed");
    }
    let source = format!("{SOURCES}/holder.py");
    let incident = incident(&turn, &[], &["python3", &source]);
    let stack = opened(the_holder(&incident));
    assert!(find(stack, "write_program").is_none(), "{stack:#?}");
    assert!(the_holder(&incident).opened.as_ref().unwrap().frames_unknown.is_some());
}

/// With a perf map, the functions that Node has compiled have names.
#[test]
fn in_node() {
    let Some(turn) = Turn::take_as_root() else { return };
    if !has("node", "--version") {
        skip!("node is not installed");
    }
    let source = format!("{SOURCES}/holder.js");
    let node = ["node", "--perf-basic-prof", "--interpreted-frames-native-stack", &source];
    let incident = incident(&turn, &[], &node);
    let opener = the_holder(&incident).pid;
    fs::remove_file(format!("/tmp/perf-{opener}.map")).unwrap();
    let stack = incident.victim.stack.as_ref();
    let is_it =
        |frame: &Frame| frame.function.as_deref().is_some_and(|it| it.contains("~execute "));
    assert!(stack.is_some_and(|stack| stack.iter().any(is_it)), "{stack:#?}");
}

#[test]
fn nobodys() {
    let Some(turn) = Turn::take_as_root() else { return };
    let Some(binary) = compiled(&turn, "holder.c", &["cc", "-O2", "-g"]) else { return };
    let incident = incident(&turn, &["--stacks", "never"], &[binary.to_str().unwrap()]);
    let holder = the_holder(&incident);
    assert_eq!((opened(holder), forked(holder), &incident.victim.stack), (None, None, &None));
}

/// Machine-wide, opens of a program are shown once it has had a failure. (Only of the temporary directory's own.)
#[test]
fn of_the_whole_machine() {
    let Some(turn) = Turn::take_as_root() else { return };
    let Some(binary) = compiled(&turn, "holder.c", &["cc", "-O2", "-g"]) else { return };
    let tracer = Process::start(tracer().arg("--json"));
    // The first line: it is live.
    tracer.line();
    let next = |path: &Path| loop {
        match serde_json::from_str(&tracer.line()).unwrap() {
            Line::Incident(incident) if incident.path.as_deref() == path.to_str() => {
                return incident;
            }
            _ => {}
        }
    };
    let mut stacks = Vec::new();
    for name in ["first", "second"] {
        let path = turn.dir.path().join(name);
        let mut program = Command::new(&binary).arg(&path).arg("wait").spawn().unwrap();
        let incident = next(&path);
        program.kill().unwrap();
        program.wait().unwrap();
        let holder = the_holder(&incident);
        assert_at(forked(holder), "fork_holder", "holder.c", "// the fork");
        assert_at(incident.victim.stack.as_ref(), "execute", "holder.c", "// the exec");
        stacks.push(opened(holder).cloned());
    }
    tracer.signal(Signal::SIGINT);
    assert_eq!(tracer.wait().code, Some(0));
    assert_eq!(stacks[0], None);
    assert_at(stacks[1].as_ref(), "open_program", "holder.c", "// the open");
}
