//! A tracer that is killed at any time leaves nothing behind, and its command behaves as under any
//! other wrapper.

use crate::support::{BINARY, Process, Turn, tracer};
use aya::programs::{ProgramError, ProgramInfo, loaded_programs};
use nix::sys::signal::Signal;
use nix::unistd::dup2_stderr;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long to wait for something to disappear.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until nothing is left.
#[track_caller]
fn await_none<T: std::fmt::Debug>(what: &str, mut left: impl FnMut() -> BTreeSet<T>) {
    let began = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            return;
        }
        assert!(began.elapsed() < LIMIT, "{what} left behind: {left:?}");
        sleep(Duration::from_millis(20));
    }
}

/// The processes that match, without this one.
fn processes(is: impl Fn(&Path) -> bool) -> BTreeSet<u32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid = entry.file_name().to_str()?.parse().ok()?;
        (pid != std::process::id() && is(&entry.path())).then_some(pid)
    });
    all.collect()
}

/// The processes that run the tracer.
fn tracers() -> BTreeSet<u32> {
    let binary = Path::new(BINARY).canonicalize().unwrap();
    processes(|process| fs::read_link(process.join("exe")).is_ok_and(|exe| exe == binary))
}

/// The state and the parent from stat, after the name, which can have any character.
fn state_and_parent(process: &Path) -> Option<(String, u32)> {
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

fn children(of: u32) -> BTreeSet<u32> {
    processes(|process| state_and_parent(process).is_some_and(|(_, parent)| parent == of))
}

/// The ids of the loaded eBPF programs.
fn programs() -> BTreeSet<u32> {
    let id = |program: Result<ProgramInfo, ProgramError>| match program {
        Ok(program) => Some(program.id()),
        // Unloaded in between.
        Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::NotFound => {
            None
        }
        Err(error) => panic!("{error}"),
    };
    loaded_programs().filter_map(id).collect()
}

/// The ids of the eBPF programs that some process has open.
fn programs_in_use() -> BTreeSet<u32> {
    let mut used = BTreeSet::new();
    for pid in processes(|_| true) {
        let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { continue };
        for fd in fds.flatten() {
            let Ok(info) = fs::read_to_string(fd.path()) else { continue };
            let number = |line: &str| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok();
            used.extend(info.lines().filter_map(number));
        }
    }
    used
}

/// The entries of a directory, which may be missing.
fn names(directory: impl AsRef<Path>) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

/// Redirects stderr to stdout.
fn with_stderr(command: &mut Command) -> &mut Command {
    // SAFETY: a system call.
    unsafe { command.pre_exec(|| Ok(dup2_stderr(io::stdout())?)) }
}

#[test]
fn a_killed_tracer_leaves_nothing() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let mounts = || fs::read_to_string("/proc/self/mountinfo").unwrap();
    let outside = || (names("/sys/fs/bpf"), mounts());
    let [tmp, cwd] = ["tmp", "cwd"].map(|name| turn.dir.path().join(name));
    for directory in [&tmp, &cwd] {
        fs::create_dir(directory).unwrap();
    }
    for moment in [
        "maps made",
        "programs loaded",
        "programs attached",
        "ready after",
        "started",
        "no call was seen to fail",
    ] {
        let (before, outside_before) = (programs(), outside());
        let mut command = tracer();
        command.env("TMPDIR", &tmp).current_dir(&cwd).args(["run", "-vv", "--"]);
        let mut process =
            Process::start(with_stderr(command.args(["sh", "-c", "echo started; exec cat"])));
        let held = loop {
            let line = process.line();
            if line.contains("maps made") {
                assert_eq!(children(process.pid().as_raw().cast_unsigned()).len(), 1);
            }
            if line.contains(moment) && (moment != "started" || line == moment) {
                break children(process.pid().as_raw().cast_unsigned());
            }
            if line == "started" {
                // The next moment is at its end.
                process.say_end();
            }
        };
        process.signal(Signal::SIGKILL);
        if moment == "started" {
            // The command continues.
            process.say_go();
            while process.line() != "go" {}
            process.say_end();
        }
        let ended = process.wait();
        assert!(
            ended.signal == Some(9) || moment == "no call was seen to fail",
            "{moment}: {}",
            ended.stderr
        );
        await_none(moment, || held.iter().copied().filter(|pid| lives(*pid)).collect());
        await_none(moment, tracers);
        await_none(moment, || {
            let new: BTreeSet<u32> = programs().difference(&before).copied().collect();
            // Programs of other tracers are in use.
            new.difference(&programs_in_use()).copied().collect()
        });
        assert_eq!(outside(), outside_before, "{moment}");
        assert_eq!((names(&tmp), names(&cwd)), Default::default(), "{moment}");
    }
}

fn lives(pid: u32) -> bool {
    state_and_parent(Path::new(&format!("/proc/{pid}"))).is_some_and(|(state, _)| state != "Z")
}

/// `run` ends with its command, even if that leaves processes behind.
#[test]
fn run_does_not_wait_for_what_the_command_leaves_behind() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let fifo = turn.dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    // It cannot end before the FIFO has a reader.
    let script = "setsid sh -c 'echo $$ >\"$0\"' \"$0\" </dev/null >/dev/null 2>&1 & exit 5";
    let ended = Process::start(tracer().args(["run", "--", "sh", "-c", script]).arg(&fifo)).wait();
    assert_eq!(ended.code, Some(5), "{}", ended.stderr);
    let pid: u32 = fs::read_to_string(&fifo).unwrap().trim().parse().unwrap();
    assert!(pid > 0);
}

#[test]
fn signals_are_forwarded_to_the_command() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let script = "for s in INT TERM HUP QUIT USR1 USR2; do trap \"echo $s\" $s; done
        echo up; while :; do sleep 0.05; done";
    let process = Process::start(tracer().args(["run", "--", "sh", "-c", script]));
    assert_eq!(process.line(), "up");
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ] {
        process.signal(signal);
        assert_eq!(process.line(), signal.as_str().trim_start_matches("SIG"));
    }
    // The whole group, because sleep would continue.
    nix::sys::signal::killpg(process.pid(), Signal::SIGKILL).unwrap();
    assert_eq!(process.wait().signal, Some(9));
}
