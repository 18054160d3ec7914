//! The command line: exit statuses, ends, and refusals.

use crate::support::{BINARY, NOBODY, Process, Trace, Turn, first_line, tracer};
use nix::sys::signal::Signal;
use std::fs;
use std::io::pipe;
use std::os::unix::fs::{MetadataExt, chown};
use std::process::Command;

#[test]
fn run_gives_the_status_of_the_command() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    for (command, code) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 7"], 7),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["sh", "-c", "kill -KILL $$"], 128 + 9),
    ] {
        let (ended, trace) = turn.run(&[], command);
        assert_eq!(ended.code, Some(code), "{command:?}: {}", ended.stderr);
        assert_eq!(trace.summary.incidents, 0);
        let given: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        assert_eq!(trace.meta.filter.command, Some(given));
    }
}

#[test]
fn run_leaves_stdin_and_stdout_to_the_command() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let mut process =
        Process::start(tracer().arg("run").arg("-o").arg(turn.output()).args(["--", "cat"]));
    process.say_go();
    let ended = process.wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), "go\n"), "{}", ended.stderr);
}

#[test]
fn run_sees_failures_of_grandchildren() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let script = format!("sh -c '{BINARY} workload still-open; exit 3'; exit 4");
    let (ended, trace) = turn.run(&[], &["sh", "-c", &script]);
    assert_eq!(ended.code, Some(4), "{}", ended.stderr);
    assert_eq!(trace.summary.incidents, 1);
}

#[test]
fn error_exitcode_is_for_success_with_incidents() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let options = ["--error-exitcode", "9"];
    let failing = format!("{BINARY} workload still-open; exit 7");
    for (command, code) in
        [(&[BINARY, "workload", "still-open"][..], 9), (&["true"], 0), (&["sh", "-c", &failing], 7)]
    {
        let (ended, _) = turn.run(&options, command);
        assert_eq!(ended.code, Some(code), "{command:?}: {}", ended.stderr);
    }
}

#[test]
fn run_under_sudo_is_for_the_user_who_called_it() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    chown(turn.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let output = turn.output();
    let script = "id -u; id -g; echo $USER";
    let ended = Process::start(
        tracer()
            .env("SUDO_UID", NOBODY.to_string())
            .env("SUDO_GID", NOBODY.to_string())
            .env("SUDO_USER", "nobody")
            .current_dir("/")
            .args(["run", "-o"])
            .arg(&output)
            .args(["--", "sh", "-c", script]),
    )
    .wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.stdout, format!("{NOBODY}\n{NOBODY}\nnobody\n"));
    assert_eq!(output.metadata().unwrap().uid(), NOBODY);
}

#[test]
fn duration_ends_it() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let ended = Process::start(tracer().args(["--json", "-d", "1"])).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let trace = Trace::parse(&ended.stdout);
    assert!(trace.summary.duration_ns >= 1_000_000_000);
}

/// A shell that waits for a line, makes that many failures, says so, and waits for another line.
fn shell_with_failures(failures: u32) -> Process {
    let workload = format!("{BINARY} workload still-open >/dev/null; ");
    let script = format!("read go; {}echo done; read end", workload.repeat(failures as usize));
    Process::start(Command::new("sh").args(["-c", &script]))
}

#[test]
fn stop_after_ends_it() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let mut root = shell_with_failures(3);
    let pid = root.pid().to_string();
    let tracer = Process::start(tracer().args(["--json", "--stop-after", "2", "--pid", &pid]));
    let meta = tracer.line();
    root.say_go();
    let ended = tracer.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let trace = Trace::parse(&format!("{meta}\n{}", ended.stdout));
    assert_eq!(trace.incidents.len(), 2);
    root.wait();
}

#[test]
fn interrupt_ends_it_with_all_that_was_seen() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut root = shell_with_failures(3);
        let pid = root.pid().to_string();
        let tracer = Process::start(tracer().args(["--json", "--pid", &pid]));
        let meta = tracer.line();
        root.say_go();
        assert_eq!(root.line(), "done");
        tracer.signal(signal);
        let ended = tracer.wait();
        assert_eq!(ended.code, Some(0), "{signal}: {}", ended.stderr);
        let trace = Trace::parse(&format!("{meta}\n{}", ended.stdout));
        assert_eq!(trace.incidents.len(), 3, "{signal}");
        root.wait();
    }
}

/// As with `etxtbsy-trace --json | head -1`.
#[test]
fn a_closed_stdout_ends_it() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let mut root = shell_with_failures(1);
    let pid = root.pid().to_string();
    let (reader, writer) = pipe().unwrap();
    let tracer = Process::start_with_stdout(tracer().args(["--json", "--pid", &pid]), writer);
    // This closes the pipe.
    let meta = first_line(reader);
    assert!(meta.contains("\"meta\""), "{meta}");
    root.say_go();
    tracer.wait().assert_refused(1, &["stdout"]);
    root.wait();
}

#[test]
fn a_full_disk_is_an_error() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let ended = Process::start(tracer().args(["run", "-o", "/dev/full", "--", "true"])).wait();
    ended.assert_refused(1, &["/dev/full"]);
}

#[test]
fn an_output_that_cannot_be_written_is_refused_before_the_command_starts() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let marker = turn.dir.path().join("started");
    let output = turn.dir.path().join("missing/trace.jsonl");
    let ended = Process::start(
        tracer().args(["run", "-o"]).arg(&output).args(["--", "touch"]).arg(&marker),
    )
    .wait();
    ended.assert_refused(1, &["missing/trace.jsonl"]);
    assert!(!marker.exists());
}

#[test]
fn a_process_that_does_not_exist_is_refused() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let ended_child = Process::start(&mut Command::new("true"));
    let pid = ended_child.pid().to_string();
    ended_child.wait();
    let ended = Process::start(tracer().args(["--json", "--pid", &pid])).wait();
    ended.assert_refused(1, &[&pid]);
}

#[test]
fn a_command_that_cannot_run_gives_the_status_of_a_shell() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let plain = turn.dir.path().join("plain");
    fs::write(&plain, "not a program").unwrap();
    let plain = plain.to_str().unwrap();
    for (command, code) in [("no-such-command", 127), ("/no/such/command", 127), (plain, 126)] {
        let ended = Process::start(tracer().args(["run", "--", command])).wait();
        ended.assert_refused(code, &[command]);
    }
}

#[test]
fn bad_usage_is_2() {
    let _turn = Turn::take();
    for arguments in [&["--no-such-option"][..], &["--pid", "x"], &["run"]] {
        let ended = Process::start(tracer().args(arguments)).wait();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}

/// The command waits until the trace is complete: tracing ends before it does, and it goes on.
#[test]
fn a_command_outlives_the_duration() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let script = r#"until grep -q '"type":"summary"' "$0"; do :; done; exit 3"#;
    let output = turn.output();
    let ended = Process::start(
        tracer()
            .args(["run", "-d", "0.1", "-o"])
            .arg(&output)
            .args(["--", "sh", "-c", script])
            .arg(&output),
    )
    .wait();
    assert_eq!(ended.code, Some(3), "{}", ended.stderr);
}
