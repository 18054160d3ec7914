//! The command line: exit statuses, ends, and refusals.

use crate::support::sudo_user::SudoUser;
use crate::support::{BINARY, NOBODY, Process, Trace, Turn, first_line, tracer};
use nix::sys::signal::{SigHandler, Signal, signal};
use std::fs::{self, Permissions};
use std::io::pipe;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
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
        as_if_by_sudo(&mut tracer())
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
fn duration_ends_tracing() {
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
fn stop_after_ends_tracing() {
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
fn an_interrupt_ends_tracing_and_keeps_all_incidents() {
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

/// As with `etxtbsy-trace --json | head -1`: it dies of SIGPIPE, as `cat` does.
#[test]
fn a_closed_stdout_ends_tracing() {
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
    let ended = tracer.wait();
    assert_eq!((ended.signal, ended.stderr.as_str()), (Some(Signal::SIGPIPE as i32), ""));
    root.wait();
}

#[test]
fn a_full_disk_is_an_error() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let ended = Process::start(tracer().args(["run", "-o", "/dev/full", "--", "true"])).wait();
    ended.assert_refused(125, &["/dev/full"]);
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
    ended.assert_refused(125, &["missing/trace.jsonl"]);
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
    ended.assert_refused(125, &[&pid]);
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
fn bad_usage_exits_with_2() {
    let _turn = Turn::take();
    for arguments in [&["--no-such-option"][..], &["--pid", "x"], &["run"]] {
        let ended = Process::start(tracer().args(arguments)).wait();
        assert_eq!(ended.code, Some(2), "{arguments:?}: {}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}

/// If tracing cannot start, the status is 125; with --best-effort the command runs untraced.
#[test]
fn a_command_runs_untraced_only_with_best_effort() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let script = ["--", "sh", "-c", "echo ran; exit 7"];
    let unwritable = turn.dir.path().join("missing/trace.jsonl");
    let unwritable = unwritable.to_str().unwrap();
    for (uid, options, cause) in [
        (NOBODY, &[][..], "CAP_BPF"),
        (0, &["-o", unwritable], "missing/trace.jsonl"),
        (0, &["--json", "-o", unwritable], "missing/trace.jsonl"),
    ] {
        let run = || {
            let mut command = tracer();
            command.uid(uid).gid(uid).current_dir("/").arg("run").args(options);
            command
        };
        let ended = Process::start(run().args(script)).wait();
        ended.assert_refused(125, &[cause]);
        assert_eq!(ended.stdout, "");
        let ended = Process::start(run().arg("--best-effort").args(script)).wait();
        ended.assert_refused(7, &["--best-effort", "tracing cannot start", cause]);
        assert_eq!(ended.stdout, "ran\n");
        let missing = Process::start(run().args(["--best-effort", "no-such-command"])).wait();
        assert_eq!(missing.code, Some(127), "{}", missing.stderr);
    }
    // If the user does not exist, the command does not run as root instead.
    let ended =
        Process::start(tracer().args(["run", "--best-effort", "--user", "no-such-user", "id"]))
            .wait();
    ended.assert_refused(125, &["no-such-user"]);
}

#[test]
fn the_end_of_tracing_before_that_of_the_command_is_reported() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let workload = format!("{BINARY} workload still-open >/dev/null; ");
    // The command runs until the trace is complete.
    let more = r#"until grep -q '"type":"summary"' "$0"; do :; done; exit 3"#;
    let script = workload.repeat(3) + more;
    let output = turn.output();
    let ended = Process::start(
        tracer()
            .args(["run", "--stop-after", "2", "-o"])
            .arg(&output)
            .args(["--", "sh", "-c", &script])
            .arg(&output),
    )
    .wait();
    ended.assert_refused(3, &["tracing ended", "--stop-after 2", "CMD runs on"]);
    assert_eq!(Trace::read(&output, &ended).incidents.len(), 2);
}

/// The command and its descendants end: the pipe that is their stdout is closed.
#[test]
fn kill_after_stop_ends_the_command_and_its_descendants() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let script = format!("{BINARY} workload still-open >&2; sh -c 'sleep 1000; :'; exit 3");
    for limit in [["--stop-after", "1"], ["-d", "0.1"]] {
        let ended = Process::start(
            tracer()
                .args(["run", "--kill-after-stop"])
                .args(limit)
                .args(["--", "sh", "-c", &script]),
        )
        .wait();
        ended.assert_refused(128 + 15, &["tracing ended", "--kill-after-stop"]);
    }
}

#[test]
fn the_command_has_the_callers_sigpipe_disposition() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    for (handler, ignored) in [(SigHandler::SigIgn, true), (SigHandler::SigDfl, false)] {
        let mut command = tracer();
        // SAFETY: signal(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(move || Ok(signal(Signal::SIGPIPE, handler).map(drop)?));
        }
        let ended = Process::start(command.args(["run", "grep", "SigIgn", "/proc/self/status"]));
        let ended = ended.wait();
        let set = ended.stdout.split_whitespace().last().unwrap();
        let set = u64::from_str_radix(set, 16).unwrap();
        assert_eq!(set & (1 << (Signal::SIGPIPE as u64 - 1)) != 0, ignored, "{set:x}");
    }
}

#[test]
fn json_lines_on_the_stdout_of_the_command_are_warned_of() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = turn.output();
    let output = output.to_str().unwrap();
    for (options, warned) in
        [(&["--json"][..], true), (&["-o", "-"], true), (&["-o", output], false), (&[], false)]
    {
        let ended = Process::start(tracer().arg("run").args(options).arg("true")).wait();
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert_eq!(
            ended.stderr.contains("both write to stdout"),
            warned,
            "{options:?}: {}",
            ended.stderr
        );
    }
}

#[test]
fn a_command_that_cannot_be_started_has_no_summary() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = turn.output();
    let ended =
        Process::start(tracer().args(["run", "-o"]).arg(&output).arg("no-such-command")).wait();
    ended.assert_refused(127, &["no-such-command"]);
    // What is watched, and the error.
    assert_eq!(ended.stderr.lines().count(), 2, "{}", ended.stderr);
    // The lines are complete.
    assert_eq!(Trace::read(&output, &ended).summary.failures, 0);
}

#[test]
fn a_command_that_is_not_in_the_path_of_sudo_has_the_reason() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let ended = Process::start(
        as_if_by_sudo(&mut tracer()).current_dir("/").args(["run", "no-such-command"]),
    )
    .wait();
    ended.assert_refused(127, &["command not found", "PATH is that of sudo", "sudo env"]);
}

/// As if sudo had executed the program in its own process.
#[test]
fn without_a_sudo_process_the_login_path_is_searched() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let dir = turn.dir.path();
    let (home, bin) = (dir.join("home"), dir.join("home/.cargo/bin"));
    fs::create_dir_all(&bin).unwrap();
    fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
    fs::write(bin.join("cargo"), "#!/bin/sh\necho \"$PATH\"\n").unwrap();
    fs::set_permissions(bin.join("cargo"), Permissions::from_mode(0o755)).unwrap();
    let profile = "id -u > \"$HOME/uid\"\nexport PATH=\"$HOME/.cargo/bin:$PATH\"\n";
    fs::write(home.join(".profile"), profile).unwrap();
    chown(&home, Some(NOBODY), Some(NOBODY)).unwrap();
    let accounts = dir.join("passwd");
    let account = format!("nobody:x:{NOBODY}:{NOBODY}::{}:/bin/sh\n", home.display());
    fs::write(&accounts, format!("root:x:0:0::/root:/bin/sh\n{account}")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /etc/passwd && exec \"$@\""]);
    command.arg(&accounts).arg(BINARY).args(["run", "--", "cargo"]);
    command.env("PATH", "/usr/bin:/bin").current_dir("/");
    let ended = Process::start(as_if_by_sudo(&mut command)).wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let path = ended.stdout.trim().split(':').collect::<Vec<_>>();
    assert_eq!(path[..2], ["/usr/bin", "/bin"], "what was chosen comes first");
    assert!(path.contains(&bin.to_str().unwrap()), "{path:?}");
    let uid = fs::read_to_string(home.join("uid")).unwrap();
    assert_eq!(uid.trim(), NOBODY.to_string(), "the profile is not read by root");
}

/// With the variables of a sudo process that does not exist.
fn as_if_by_sudo(command: &mut Command) -> &mut Command {
    let id = NOBODY.to_string();
    command.env("SUDO_UID", &id).env("SUDO_GID", &id).env("SUDO_USER", "nobody")
}

/// The examples of the README, by a user with a PATH of their own, who may use sudo.
#[test]
fn the_examples_of_the_readme_work_for_a_user_with_sudo() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let Some(user) = SudoUser::new(turn.dir.path()) else {
        return;
    };
    user.add_program("cargo", "echo \"$(id -u) cargo $* $OF_THE_USER $HOME $PATH\"");
    let test = user.home.join("test.sh");
    fs::write(&test, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&test, Permissions::from_mode(0o755)).unwrap();
    let as_user = |script: &str| Process::start(&mut user.shell(script)).wait();
    let has_jq = Path::new("/usr/bin/jq").exists();
    let readme = include_str!("../../../README.md");
    let uses = readme.split("## Use\n").nth(1).unwrap().split("```").nth(1).unwrap();
    let mut cargo_ran = false;
    for line in uses.lines().skip(1) {
        let (example, _) = line.split_once(" #").unwrap();
        let mut script = example.trim().replace("4242", "$$").replace("--for 1m", "--for 1s");
        if !["run", "hunt", "replay", "report", "schema", "check"]
            .iter()
            .any(|name| example.contains(name))
        {
            // It runs until Ctrl-C.
            script = script.replacen("etxtbsy-trace", "etxtbsy-trace -d 0.2", 1);
        }
        if !has_jq {
            script = script.replace("jq -r '.holders[]?.comm'", "grep -c summary");
        }
        let ended = as_user(&script);
        assert_eq!(ended.code, Some(0), "{script}: {}\n{}", ended.stdout, ended.stderr);
        if example.contains("cargo") {
            cargo_ran = true;
            let (home, path) = (user.home.display(), &user.path);
            let wanted = format!("{NOBODY} cargo test yes {home} {path}\n");
            assert_eq!(ended.stdout, wanted, "{script}");
        }
    }
    assert!(cargo_ran, "{uses}");
    // The caller's choice is kept.
    let ended = as_user(
        "sudo env PATH=/usr/bin:/bin A=b $(which etxtbsy-trace) run -- sh -c 'echo $PATH $A'",
    );
    assert_eq!(ended.stdout, "/usr/bin:/bin b\n", "{}", ended.stderr);
}

/// The command waits until the trace is complete: tracing ends first, and the command continues.
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
