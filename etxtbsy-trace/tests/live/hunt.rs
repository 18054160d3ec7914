//! `hunt`: a command again and again under one tracer.

use crate::support::{BINARY, Ended, NOBODY, Process, Trace, Turn, tracer};
use etxtbsy_trace::event::{Provoke, Run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// Fails in its third run: then the shell itself has the file open for writing.
const THIRD: &str = r#"
cd "$0"
echo x >>runs
n=$(wc -l <runs)
echo "this is run $n"
cp /bin/true busy$n
[ $n != 3 ] || exec 9>>busy$n
./busy$n
"#;

/// `hunt -o FILE OPTIONS -- COMMAND`, to its end.
fn hunt(turn: &Turn, options: &[&str], command: &[&str]) -> (Ended, Trace) {
    let output = turn.output();
    let mut tracer = tracer();
    let tracer = tracer
        .args(["hunt", "--overwrite", "-o"])
        .arg(&output)
        .args(options)
        .arg("--")
        .args(command);
    let ended = Process::start(tracer).wait();
    let trace = Trace::read(&output, &ended);
    (ended, trace)
}

#[test]
fn it_ends_with_the_run_that_fails() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let dir = turn.dir.path().to_str().unwrap();
    let (ended, trace) = hunt(&turn, &[], &["sh", "-c", THIRD, dir]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
    assert_eq!(incident.run, Some(Run { number: 3, provoked: false }));
    let plain = trace.summary.hunt.unwrap().plain;
    assert_eq!((plain.runs, plain.failed, plain.with_incidents), (3, 1, 1), "{plain:?}");
    assert_eq!((plain.execs.failed, plain.execs.of_written_files), (1, 3), "{plain:?}");
    for expected in [
        "\nrun 3: exit status 126, 1 failure, 0 near misses\n  | this is run 3\n",
        "\n1. still-open: ",
        "\n3 runs of sh -c ",
        "\n  failed                     1 (33.33%, 95%: 6.15 to 79.23%)\n",
        "\nrepeat with: sudo etxtbsy-trace hunt --runs 3 -- sh -c ",
    ] {
        assert!(ended.stdout.contains(expected), "no {expected:?} in: {}", ended.stdout);
    }
    assert!(!ended.stdout.contains("this is run 2"), "{}", ended.stdout);
    assert_eq!(ended.stderr, "");
}

#[test]
fn a_race_that_is_gone_is_fixed() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let before = turn.dir.path().join("before.jsonl");
    let busy = "cd \"$0\"; cp /bin/true busy; exec 9>>busy; for i in $(seq 20); do ./busy; done 2>/dev/null; true";
    let cured = "cd \"$0\"; cp /bin/true busy; for i in $(seq 20); do ./busy; done";
    let dir = turn.dir.path().to_str().unwrap();
    let (ended, trace) = hunt(&turn, &["--runs", "5"], &["sh", "-c", busy, dir]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert_eq!(trace.summary.hunt.unwrap().plain.execs.failed, 100);
    fs::rename(turn.output(), &before).unwrap();
    let options = ["--runs", "5", "--baseline", before.to_str().unwrap()];
    let (ended, _) = hunt(&turn, &options, &["sh", "-c", cured, dir]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let expected = "\nplain runs: fixed\n  runs with a failure: fixed, before 5 of 5 ";
    assert!(ended.stdout.contains(expected), "{}", ended.stdout);
    let (ended, _) = hunt(&turn, &options, &["sh", "-c", busy, dir]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("\nplain runs: same\n"), "{}", ended.stdout);
}

#[test]
fn every_other_run_is_provoked() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let race = [BINARY, "workload", "go22315", "--failures", "5", "--seconds", "2"];
    let (ended, trace) = hunt(&turn, &["--runs", "4", "--provoke", "--seed", "7"], &race);
    assert_eq!(trace.meta.provoke, Some(Provoke { max_ns: 5_000_000, seed: 7 }));
    let hunt = trace.summary.hunt.unwrap();
    assert_eq!((hunt.plain.runs, hunt.provoked.runs), (2, 2), "{hunt:?}");
    assert!(hunt.provoked.with_incidents == 2, "{hunt:?}: {}", ended.stdout);
    let of = |provoked| {
        let runs = trace.incidents.iter().filter_map(|incident| incident.run);
        let runs = runs.filter(|run| run.provoked == provoked);
        runs.inspect(|run| assert_eq!(run.number % 2 == 1, provoked)).count() as u64
    };
    assert_eq!((of(true), of(false)), (hunt.provoked.incidents, hunt.plain.incidents));
    assert!(ended.stdout.contains("  (run 1, provoked)\n"), "{}", ended.stdout);
    let again = "repeat with: sudo etxtbsy-trace hunt --runs 4 --provoke=5ms --seed 7 -- ";
    assert!(ended.stdout.contains(again), "{}", ended.stdout);
}

#[test]
fn near_misses_end_a_hunt_for_them() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    // The subshell's child inherits the fd, and has ended when the file is run.
    let near = "cd \"$0\"; cp /bin/true near; (sleep 0.02 & ) 9>>near; sleep 0.1; ./near";
    let dir = turn.dir.path().to_str().unwrap();
    let (ended, trace) = hunt(&turn, &["--until", "near-miss"], &["sh", "-c", near, dir]);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let [near] = &trace.near_misses[..] else { panic!("{:#?}", trace.near_misses) };
    assert_eq!(near.run, Some(Run { number: 1, provoked: false }));
    let plain = trace.summary.hunt.unwrap().plain;
    assert_eq!((plain.runs, plain.with_incidents, plain.with_near_misses), (1, 0, 1));
}

#[test]
fn a_time_limit_ends_the_run() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (ended, trace) = hunt(&turn, &["--for", "1s"], &["sleep", "1000"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(trace.summary.hunt.unwrap().plain.runs, 0);
    assert!(
        ended.stdout.contains("\n0 runs of sleep 1000, and one that was cut short, in "),
        "{}",
        ended.stdout
    );
}

/// A hunt whose command has begun, and the pid of the command.
fn hunting(turn: &Turn) -> (Process, Pid) {
    let path = turn.dir.path().join("pid");
    let script = format!("echo $$ >{0}.new; mv {0}.new {0}; sleep 1000; :", path.display());
    let mut tracer = tracer();
    let tracer = tracer.args(["hunt", "--overwrite", "-o"]).arg(turn.output());
    let tracer = Process::start(tracer.args(["--", "sh", "-c", &script]));
    while !path.exists() {
        sleep(Duration::from_millis(5));
    }
    let pid = fs::read_to_string(&path).unwrap().trim().parse().unwrap();
    (tracer, Pid::from_raw(pid))
}

fn is_there(pid: Pid) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn a_signal_ends_the_hunt_and_the_command() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (tracer, command) = hunting(&turn);
        tracer.signal(signal);
        let ended = tracer.wait();
        assert_eq!(ended.code, Some(0), "{signal}: {}", ended.stderr);
        assert!(!is_there(command), "{signal}");
        let trace = Trace::read(&turn.output(), &ended);
        assert_eq!(trace.summary.hunt.unwrap().plain.runs, 0, "{signal}");
        fs::remove_file(turn.dir.path().join("pid")).unwrap();
    }
}

#[test]
fn the_command_does_not_outlive_a_killed_hunt() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (tracer, command) = hunting(&turn);
    tracer.signal(Signal::SIGKILL);
    assert_eq!(tracer.wait().signal, Some(Signal::SIGKILL as i32));
    while is_there(command) {
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_launcher_is_an_error() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (tracer, command) = hunting(&turn);
    let status = fs::read_to_string(Path::new("/proc").join(command.to_string()).join("status"));
    let parent = status.unwrap().lines().find_map(|line| {
        line.strip_prefix("PPid:\t").map(|pid| Pid::from_raw(pid.parse().unwrap()))
    });
    kill(parent.unwrap(), Signal::SIGKILL).unwrap();
    tracer.wait().assert_refused(125, &["the process that starts CMD has ended"]);
    kill(command, Signal::SIGKILL).unwrap();
}

#[test]
fn a_command_that_cannot_be_started_ends_the_hunt() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let missing = Process::start(tracer().args(["hunt", "/no/such/command"])).wait();
    missing.assert_refused(127, &["/no/such/command: No such file or directory"]);
    assert_eq!(missing.stdout, "");
    drop(turn);
}

#[test]
fn the_command_runs_as_the_user() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    fs::set_permissions(turn.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let user = NOBODY.to_string();
    let options = ["--runs", "1", "--user", &user, "--provoke"];
    let (ended, _) = hunt(&turn, &options, &["sh", "-c", "id -u; exit 9"]);
    let expected =
        format!("\nrun 1, provoked: exit status 9, 0 failures, 0 near misses\n  | {NOBODY}\n");
    assert!(ended.stdout.contains(&expected), "{}", ended.stdout);
    assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
}

#[test]
fn a_command_has_default_signals_and_its_own_status() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let script = "cat; grep SigIgn /proc/self/status; echo error >&2; kill -9 $$";
    let (ended, _) = hunt(&turn, &["--runs", "2"], &["sh", "-c", script]);
    let block = "\nrun 2: exit status 137, 0 failures, 0 near misses\n  | SigIgn:";
    let (_, output) = ended.stdout.split_once(block).expect(&ended.stdout);
    let (ignored, rest) = output.split_once('\n').unwrap();
    let ignored = u64::from_str_radix(ignored.trim().trim_start_matches("\\t"), 16).unwrap();
    let of = |signal: Signal| ignored >> (signal as i32 - 1) & 1;
    assert_eq!((of(Signal::SIGINT), of(Signal::SIGTERM)), (0, 0), "{output}");
    assert!(rest.starts_with("  | error\n"), "{output}");
}

#[test]
fn json_lines_are_alone_on_stdout() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let ended = Process::start(tracer().args(["hunt", "--json", "--runs", "2", "true"])).wait();
    let trace = Trace::parse(&ended.stdout);
    assert_eq!(trace.summary.hunt.unwrap().plain.runs, 2);
    assert!(ended.stderr.contains("\n2 runs of true in "), "{}", ended.stderr);
    drop(turn);
}
