//! Outputs that fail or stall: nobody reads them, or there is no room.

use crate::fuse::{BROKEN, Server};
use crate::support::{BINARY, Process, Trace, Turn, first_line, tracer};
use etxtbsy_trace::event::Line;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, setsid};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, PipeReader, PipeWriter, Write, pipe};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};
use test_support::skip;

/// More incidents than the small pipe has room for.
const FAILURES: usize = 40;

/// A pipe with room for two or three incidents, which nobody reads.
fn small_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(4096)).unwrap();
    (reader, writer)
}

/// A script that makes that many failures.
fn failures(count: usize) -> String {
    let one = format!("{BINARY} workload still-open >/dev/null || exit 1");
    format!("i=0; while [ $i -lt {count} ]; do {one}; i=$((i+1)); done")
}

#[test]
fn the_command_status_is_returned_although_nobody_reads_the_trace() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (reader, writer) = small_pipe();
    let script = format!("{}; exit 7", failures(FAILURES));
    let ended = Process::start_with_stdout(
        tracer().args(["run", "--json", "--", "sh", "-c", &script]),
        writer,
    )
    .wait();
    ended.assert_refused(7, &["nothing was read from stdout", "of 40 incidents are not there"]);
    drop(reader);
}

#[test]
fn a_signal_ends_tracing_although_nobody_reads_the_trace() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let Some(turn) = Turn::take_as_root() else {
            return;
        };
        let script = format!("read go; {}; echo done; read end", failures(FAILURES));
        let mut root = Process::start(Command::new("sh").args(["-c", &script]));
        let (reader, writer) = small_pipe();
        let output = turn.output();
        let tracer = Process::start_with_stdout(
            tracer().args(["--json", "--pid", &root.pid().to_string(), "-o"]).arg(&output),
            writer,
        );
        let mut reader = BufReader::with_capacity(1, reader);
        let mut meta = String::new();
        reader.read_line(&mut meta).unwrap();
        assert!(matches!(serde_json::from_str(&meta).unwrap(), Line::Meta(_)));
        root.say_go();
        assert_eq!(root.line(), "done");
        tracer.signal(signal);
        let ended = tracer.wait();
        ended.assert_refused(125, &["nothing was read from stdout"]);
        // The other output is complete.
        let trace = Trace::parse(&fs::read_to_string(&output).unwrap());
        assert_eq!(trace.incidents.len(), FAILURES, "{signal}");
        let rest: Vec<String> = reader.lines().map(Result::unwrap).collect();
        assert!(!rest.is_empty() && rest.len() < FAILURES, "{}", rest.len());
        root.wait();
    }
}

/// The same with a command that continues after tracing has ended: it still gets its signals.
#[test]
fn a_command_gets_its_signals_while_the_last_lines_find_no_reader() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (reader, writer) = small_pipe();
    // Another process sends the signal, because signals from the command itself are not forwarded.
    let kill = "(sh -c 'kill -TERM $0' $PPID)";
    let script = format!("trap 'exit 9' TERM; {}; {kill}; while :; do :; done", failures(9));
    let ended = Process::start_with_stdout(
        tracer().args(["run", "--json", "--stop-after", "9", "--", "sh", "-c", &script]),
        writer,
    )
    .wait();
    assert_eq!(ended.code, Some(9), "{}", ended.stderr);
    drop(reader);
}

/// Limits the size of files that a command and its children write, in bytes.
fn limit(command: &mut Command, bytes: u64) {
    // SAFETY: setrlimit(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?));
    }
}

#[test]
fn a_file_at_its_size_limit_is_reported_at_once_and_tracing_continues() {
    const MOST: u64 = 16 << 10;
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = turn.output();
    // The script waits for the report, and then makes another failure.
    let script = format!(
        "{}; until grep -q 'File too large' \"$0\"; do :; done; {}",
        failures(20),
        failures(1)
    );
    let errors = turn.dir.path().join("errors");
    fs::write(&errors, "").unwrap();
    let all = format!("exec \"$@\" 2>>{}", errors.display());
    let mut shell = Command::new("sh");
    shell.args(["-c", &all, "sh", BINARY, "run", "--json", "-o"]).arg(&output);
    shell.args(["--", "sh", "-c", &script]).arg(&errors).env_remove("SUDO_UID");
    limit(&mut shell, MOST);
    let ended = Process::start(&mut shell).wait();
    let errors = fs::read_to_string(&errors).unwrap();
    assert_eq!(ended.code, Some(125), "{:?}: {errors}", ended.signal);
    let trace = Trace::parse(&ended.stdout);
    assert_eq!(trace.incidents.len(), 21);
    let kept = fs::read_to_string(&output).unwrap();
    assert!(kept.len() as u64 <= MOST && ended.stdout.starts_with(&kept));
    // One report at once, and one at the end with the number of missing incidents.
    let reports: Vec<&str> =
        errors.lines().filter(|line| line.contains("File too large")).collect();
    let [at_once, end] = reports[..] else { panic!("{errors}") };
    assert!(at_once.contains("tracing goes on"), "{errors}");
    assert!(end.contains("of 21 incidents are not there"), "{errors}");
}

#[test]
fn a_command_starts_although_nothing_may_be_written() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let marker = turn.dir.path().join("started");
    let mut command = tracer();
    command.args(["run", "-o"]).arg(turn.output()).args(["--", "touch"]).arg(&marker);
    limit(&mut command, 0);
    let ended = Process::start(&mut command).wait();
    assert!(marker.exists(), "{}", ended.stderr);
    ended.assert_refused(125, &["File too large"]);
}

#[test]
fn the_command_has_the_default_action_for_sigxfsz() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (ended, _) = turn.run(&[], &["sh", "-c", "kill -XFSZ $$"]);
    assert_eq!(ended.code, Some(128 + libc::SIGXFSZ), "{}", ended.stderr);
}

#[test]
fn a_full_disk_does_not_end_what_is_shown() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let mut root = Process::start(
        Command::new("sh").args(["-c", &format!("read go; {}; echo done; read end", failures(3))]),
    );
    let pid = root.pid().to_string();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid, "-o", "/dev/full"]));
    let meta = tracer.line();
    root.say_go();
    assert_eq!(root.line(), "done");
    root.wait();
    let ended = tracer.wait();
    ended.assert_refused(125, &["/dev/full", "No space left", "3 of 3 incidents are not there"]);
    let trace = Trace::parse(&format!("{meta}\n{}", ended.stdout));
    assert_eq!(trace.incidents.len(), 3);
}

#[test]
fn an_io_error_is_reported_at_once_and_tracing_continues() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let at = turn.dir.path().join("fuse");
    fs::create_dir(&at).unwrap();
    let Some(server) = Server::start(&at, &at, |_| true) else {
        skip!("this kernel has no FUSE");
    };
    let mut run = tracer();
    run.args(["run", "--json", "-o"]).arg(at.join(BROKEN));
    let ended = Process::start(run.args(["--", "sh", "-c", &failures(3)])).wait();
    umount2(&at, MntFlags::MNT_DETACH).unwrap();
    assert!(server.end().is_empty());
    assert_eq!(ended.code, Some(125), "{}", ended.stderr);
    assert_eq!(Trace::parse(&ended.stdout).incidents.len(), 3);
    let reports: Vec<&str> =
        ended.stderr.lines().filter(|line| line.contains("Input/output error")).collect();
    let [at_once, end] = reports[..] else { panic!("{}", ended.stderr) };
    assert!(at_once.contains("tracing goes on"), "{at_once}");
    assert!(end.contains("3 of 3 incidents are not there"), "{end}");
}

/// A terminal without room for another byte, because nobody reads it: the master and the terminal.
fn stalled_terminal() -> (OwnedFd, File) {
    let (mut ours, mut theirs) = (0, 0);
    let size = libc::winsize { ws_row: 50, ws_col: 160, ws_xpixel: 0, ws_ypixel: 0 };
    let (no_name, no_settings) = (std::ptr::null_mut(), std::ptr::null());
    // SAFETY: the pointers are to live values; nothing is written by a null one.
    let opened = unsafe {
        libc::openpty(&raw mut ours, &raw mut theirs, no_name, no_settings, &raw const size)
    };
    Errno::result(opened).unwrap();
    // SAFETY: both were just opened, for us.
    let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), File::from_raw_fd(theirs)) };
    fcntl(&theirs, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    for size in [4096, 1] {
        let full = loop {
            if let Err(error) = (&theirs).write(&vec![b'x'; size]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
    }
    fcntl(&theirs, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (ours, theirs)
}

/// Starts a program with its own controlling terminal.
fn start_on(terminal: &File, command: &mut Command) -> Child {
    let end = || terminal.try_clone().unwrap();
    command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm");
    let take = || {
        setsid()?;
        // SAFETY: stdin is a terminal, and the argument no pointer.
        Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) })?;
        Ok(())
    };
    // SAFETY: system calls, which are all that is done between fork and exec.
    unsafe { command.pre_exec(take) }.spawn().unwrap()
}

/// Waits until the file has a line of that type.
#[track_caller]
fn await_line(file: &Path, kind: &str, of: &mut Child) {
    let began = Instant::now();
    let wanted = format!("{{\"type\":\"{kind}\"");
    while !fs::read_to_string(file).is_ok_and(|text| text.contains(&wanted)) {
        if began.elapsed() > Duration::from_secs(60) {
            of.kill().unwrap();
            panic!("no {kind} in {}", file.display());
        }
        sleep(Duration::from_millis(10));
    }
}

/// Ends the process by SIGTERM, within a time limit; returns its status. Signals are repeated, because
/// they go to the command until that has been reaped.
#[track_caller]
fn terminate(mut process: Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        kill(Pid::from_raw(process.id().cast_signed()), Signal::SIGTERM).unwrap();
        if let Some(status) = process.try_wait().unwrap() {
            return status.code();
        }
        if began.elapsed() > Duration::from_secs(20) {
            process.kill().unwrap();
            panic!("it does not end");
        }
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_signal_ends_the_view_although_nobody_reads_the_terminal() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = turn.output();
    let (_unread, terminal) = stalled_terminal();
    let mut tracing = tracer();
    let mut tracing =
        start_on(&terminal, tracing.args(["--format", "tui", "--pid", "1", "-o"]).arg(&output));
    await_line(&output, "meta", &mut tracing);
    assert_eq!(terminate(tracing), Some(0));
    Trace::parse(&fs::read_to_string(&output).unwrap());
}

/// The command's output, which is written to the terminal at the end, delays nothing, either.
#[test]
fn the_command_ends_under_the_view_although_nobody_reads_the_terminal() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = turn.output();
    let (_unread, terminal) = stalled_terminal();
    let script = format!("seq 100000; {}; exit 7", failures(3));
    let mut running = tracer();
    running.args(["run", "--format", "tui", "-o"]).arg(&output);
    let mut running = start_on(&terminal, running.args(["--", "sh", "-c", &script]));
    await_line(&output, "summary", &mut running);
    assert_eq!(terminate(running), Some(7));
    assert_eq!(Trace::parse(&fs::read_to_string(&output).unwrap()).incidents.len(), 3);
}

/// As with `etxtbsy-trace run --json CMD | head -1`.
#[test]
fn a_closed_stdout_does_not_affect_the_command() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let (reader, writer) = pipe().unwrap();
    let script = format!("read go; {}; exit 5", failures(3));
    let mut tracer = Process::start_with_stdout(
        tracer().args(["run", "--json", "--", "sh", "-c", &script]),
        writer,
    );
    first_line(reader);
    tracer.say_go();
    let ended = tracer.wait();
    // The only message is that CMD and the JSON lines share stdout.
    assert_eq!((ended.code, ended.stderr.lines().count()), (Some(5), 1), "{}", ended.stderr);
    assert!(ended.stderr.contains("stdout"), "{}", ended.stderr);
}

/// As with `etxtbsy-trace schema | head -1`.
#[test]
fn a_closed_stdout_ends_other_commands_quietly() {
    let turn = Turn::take();
    let recording = turn.output();
    fs::write(&recording, r#"{"type":"lost","what":"x","count":1}"#).unwrap();
    for arguments in
        [&["schema"][..], &["demo", "--list"], &["replay", recording.to_str().unwrap()]]
    {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let ended = Process::start_with_stdout(tracer().args(arguments), writer).wait();
        let sigpipe = Some(libc::SIGPIPE);
        assert_eq!((ended.signal, ended.stderr.as_str()), (sigpipe, ""), "{arguments:?}");
    }
}

/// With any memory limit, it traces, or reports why it cannot.
#[test]
fn too_little_memory_is_reported_in_one_line() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let mut failed = 0;
    // With less memory the program itself does not start.
    for mebibytes in (16..64).step_by(3) {
        let mut command = tracer();
        // SAFETY: setrlimit(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(move || {
                Ok(setrlimit(Resource::RLIMIT_AS, mebibytes << 20, mebibytes << 20)?)
            });
        }
        command.args(["run", "--overwrite", "-o"]).arg(turn.output()).args(["--", "true"]);
        let ended = Process::start(&mut command).wait();
        let lines: Vec<&str> = ended.stderr.lines().collect();
        let said = lines.iter().filter(|line| line.starts_with("etxtbsy-trace: ")).count();
        assert!(ended.signal.is_none() && ended.code != Some(101), "{mebibytes} MiB: {lines:?}");
        if ended.code != Some(0) {
            assert_eq!((said, lines.len()), (1, 1), "{mebibytes} MiB: {lines:?}");
            failed += 1;
        }
    }
    assert!(failed > 0);
}
