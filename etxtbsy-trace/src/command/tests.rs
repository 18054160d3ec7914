//! The command against real processes.

use super::{
    Prepared,
    child::Child,
    signals::{FORWARDED, IGNORED_AT_START},
};
use crate::host::user::Invoker;
use libc::c_int;
use nix::{
    sys::signal::{SigSet, Signal, raise},
    unistd::Uid,
};
use std::{
    collections::BTreeSet,
    env,
    ffi::{OsStr, OsString},
    fs::{self, OpenOptions, Permissions},
    io::{self, BufRead, BufReader, Read as _},
    mem,
    os::{fd::AsRawFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process, ptr,
    sync::atomic::Ordering,
    time::Duration,
};
use tempfile::TempDir;
use test_support::{as_ordinary_user, skip};

fn prepared(argv: &[&str]) -> Prepared {
    let argv: Vec<_> = argv.iter().map(OsString::from).collect();
    Prepared::new(&argv, None, &[], None).unwrap()
}

async fn code(argv: &[&str]) -> u8 {
    prepared(argv).start().unwrap().wait().await.unwrap()
}

fn error(argv: &[&str]) -> (u8, String) {
    let error = prepared(argv).start().unwrap_err();
    (error.exit_code(), error.to_string())
}

/// A world-writable directory, and a path in it.
fn scratch() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let path = directory.path().join("out");
    (directory, path)
}

/// A shell command that writes its output to `path`.
fn into_file(path: &Path, script: &str) -> [OsString; 5] {
    let script = format!("exec >\"$1\"; {script}");
    ["sh".into(), "-c".into(), script.into(), "sh".into(), path.into()]
}

async fn output(script: &str, identity: Option<&Invoker>) -> String {
    let (_directory, path) = scratch();
    let prepared = Prepared::new(&into_file(&path, script), identity, &[], None).unwrap();
    assert_eq!(prepared.start().unwrap().wait().await.unwrap(), 0, "{script}");
    fs::read_to_string(path).unwrap()
}

#[tokio::test]
async fn exit_status_is_the_commands() {
    assert_eq!(code(&["true"]).await, 0);
    assert_eq!(code(&["sh", "-c", "exit 3"]).await, 3);
    assert_eq!(code(&["sh", "-c", "exit 255"]).await, 255);
}

#[tokio::test]
async fn killed_by_a_signal_is_128_plus_its_number() {
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]).await, 137);
    // A real-time signal has no name.
    assert_eq!(code(&["sh", "-c", "kill -40 $$"]).await, 168);
}

#[tokio::test]
async fn a_failed_exec_has_the_status_of_a_shell() {
    let (directory, path) = scratch();
    let name = path.to_str().unwrap();
    assert_eq!(error(&["no-such-cmd"]), (127, "no-such-cmd: command not found".into()));
    assert_eq!(error(&["a\nb"]), (127, "\"a\\nb\": command not found".into()));
    assert_eq!(error(&[""]), (127, "\"\": command not found".into()));
    assert_eq!(error(&[name]), (127, format!("{name}: No such file or directory")));

    // Another process writes it, so that no fork of another test's thread inherits the write fd.
    let write = into_file(&path, "echo '#!/no/such/interpreter'");
    Prepared::new(&write, None, &[], None).unwrap().start().unwrap().wait().await.unwrap();
    assert_eq!(error(&[name]), (126, format!("{name}: cannot execute: Permission denied")));
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    let missing = format!("{name}: cannot execute: its interpreter was not found");
    assert_eq!(error(&[name]), (127, missing));

    let directory = directory.path().to_str().unwrap();
    let denied = format!("{directory}: cannot execute: Permission denied");
    assert_eq!(error(&[directory]), (126, denied));
}

#[tokio::test]
async fn a_busy_command_is_not_retried() {
    let (_directory, path) = scratch();
    fs::copy("/bin/true", &path).unwrap();
    let name = path.to_str().unwrap();
    let writer = OpenOptions::new().append(true).open(&path).unwrap();
    assert_eq!(error(&[name]), (126, format!("{name}: cannot execute: Text file busy")));
    drop(writer);
}

#[tokio::test]
async fn it_runs_under_its_known_pid_and_not_before_start() {
    let (_directory, path) = scratch();
    let argv = into_file(&path, "echo $$");
    let prepared = Prepared::new(&argv, None, &[], None).unwrap();
    let pid = prepared.pid();
    // It waits in its read, or has not reached it yet.
    let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert_eq!(exe(pid), exe(process::id()));
    assert!(!path.exists());
    let started = prepared.start().unwrap();
    assert_eq!(started.pid(), pid);
    assert_eq!(started.wait().await.unwrap(), 0);
    assert_eq!(fs::read_to_string(path).unwrap(), format!("{pid}\n"));
}

#[tokio::test]
async fn dropping_a_prepared_command_kills_it_unrun() {
    let (_directory, path) = scratch();
    let prepared = Prepared::new(&into_file(&path, "echo ran"), None, &[], None).unwrap();
    let process = PathBuf::from(format!("/proc/{}", prepared.pid()));
    assert!(process.exists());
    drop(prepared);
    assert!(!process.exists());
    assert!(!path.exists());
}

const HELPER_FILE: &str = "ETXTBSY_TRACE_TEST_FILE";

/// Not a test: the tracer that `the_end_of_the_tracer_ends_the_waiting_command` kills.
#[test]
#[ignore = "the helper of another test"]
fn helper_that_is_killed() {
    let path = PathBuf::from(env::var_os(HELPER_FILE).unwrap());
    let prepared = Prepared::new(&into_file(&path, "echo ran"), None, &[], None).unwrap();
    println!("\npid {}", prepared.pid());
    io::stdin().read_line(&mut String::new()).unwrap();
    unreachable!("it is killed before");
}

#[test]
fn the_end_of_the_tracer_ends_the_waiting_command() {
    ends_with_the_tracer(false);
}

#[test]
fn the_end_of_the_tracer_ends_a_stopped_command() {
    ends_with_the_tracer(true);
}

fn ends_with_the_tracer(stopped: bool) {
    let (_directory, path) = scratch();
    let (_, module) = module_path!().split_once("::").unwrap();
    let mut tracer = process::Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
        .arg(format!("{module}::helper_that_is_killed"))
        .env(HELPER_FILE, &path)
        .stdin(process::Stdio::piped())
        .stdout(process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(tracer.stdout.take().unwrap()).lines().map(Result::unwrap);
    let pid = lines.find_map(|line| line.strip_prefix("pid ")?.parse().ok());
    let child = Child::new(pid.unwrap()).unwrap();
    let child = mem::ManuallyDrop::new(child); // must not kill or reap it
    let await_state = |state: &str| {
        let stat = || fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap();
        while !stat().contains(&format!(") {state} ")) {
            std::thread::yield_now();
        }
    };
    if stopped {
        // It waits for the start.
        await_state("S");
        child.send(libc::SIGSTOP).unwrap();
        await_state("T");
    }
    tracer.kill().unwrap();
    tracer.wait().unwrap();
    // The pidfd becomes readable when the process ends, whoever reaps it.
    let mut ends = libc::pollfd { fd: child.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `ends` is one pollfd, and outlives the call. The timeout makes a failing test end.
    assert_eq!(unsafe { libc::poll(&raw mut ends, 1, 60_000) }, 1);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_command_killed_before_its_start_has_a_status() {
    let prepared = prepared(&["true"]);
    prepared.child.send(libc::SIGTERM).unwrap();
    let started = prepared.start().unwrap();
    assert_eq!(started.wait().await.unwrap(), 143);
}

#[tokio::test]
async fn signals_can_be_forwarded() {
    let started = prepared(&["sleep", "1000"]).start().unwrap();
    started.forward(libc::SIGTERM).unwrap();
    assert_eq!(started.wait().await.unwrap(), 143);
    started.forward(libc::SIGTERM).unwrap();
    assert_eq!(started.wait().await.unwrap(), 143);
}

/// A shell whose forks take milliseconds, and nearly all of its time. All processes have the write end of a pipe, so its end
/// of file shows that none is left.
#[tokio::test]
async fn terminate_tree_ends_a_growing_tree() {
    for _ in 0..5 {
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let fd = writer.as_raw_fd();
        let forks = format!(
            "exec 9>/proc/$PPID/fd/{fd}; x=$(head -c 100000000 /dev/zero | tr '\\0' x); echo >&9; \
             while :; do sleep 1000 & done"
        );
        let started = prepared(&["sh", "-c", &forks]).start().unwrap();
        let mut reader = fs::File::from(reader);
        reader.read_exact(&mut [0]).unwrap();
        drop(writer);
        tokio::time::sleep(Duration::from_millis(20)).await;
        started.terminate_tree();
        assert_eq!(started.wait().await.unwrap(), 143);
        let mut ends = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `ends` is one pollfd, and outlives the call. The timeout makes a failing test end.
        assert_eq!(unsafe { libc::poll(&raw mut ends, 1, 60_000) }, 1);
    }
}

#[tokio::test]
async fn signals_sent_to_us_reach_the_command() {
    for signal in FORWARDED {
        reset_if_ignored(signal);
        let started = prepared(&["sleep", "1000"]).start().unwrap();
        // To this thread, because the other tests' threads do not block the signal.
        raise(signal).unwrap();
        assert_eq!(started.wait().await.unwrap(), 128 + signal as u8);
    }
}

/// Resets a signal that was ignored when the tests were started (nohup, a shell's `&`), because a
/// command would inherit that.
fn reset_if_ignored(signal: Signal) {
    // SAFETY: all zeroes is a valid sigaction that outlives the call; SIG_DFL replaces no handler.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        libc::sigaction(signal as i32, ptr::null(), &raw mut action);
        if action.sa_sigaction == libc::SIG_IGN {
            libc::signal(signal as i32, libc::SIG_DFL);
        }
    }
}

#[tokio::test]
async fn the_signal_mask_is_restored() {
    let before = SigSet::thread_get_mask().unwrap();
    let started = prepared(&["true"]).start().unwrap();
    assert_ne!(SigSet::thread_get_mask().unwrap(), before);
    started.wait().await.unwrap();
    drop(started);
    assert_eq!(SigSet::thread_get_mask().unwrap(), before);
}

#[tokio::test]
async fn signal_dispositions_are_as_from_a_shell() {
    // Rust ignores SIGPIPE, and tokio handles SIGWINCH.
    let _handler = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change());
    let status = output("while read -r line; do echo \"$line\"; done </proc/$$/status", None).await;
    let set = |name: &str| {
        let hex = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(hex.trim(), 16).unwrap()
    };
    assert_eq!(set("SigBlk:"), 0);
    // The C library reserves 32 and 33, and children of posix_spawn(3) ignore them.
    let own = 0b11 << 31;
    assert_eq!(set("SigIgn:") & !own, IGNORED_AT_START.load(Ordering::Relaxed));
}

/// The files of this process's fds that are not close-on-exec.
fn inheritable() -> BTreeSet<PathBuf> {
    let is_inheritable = |fd: &OsStr| {
        let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(fd)).ok()?;
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
        Some(c_int::from_str_radix(flags, 8).unwrap() & libc::O_CLOEXEC == 0)
    };
    fs::read_dir("/proc/self/fd")
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| is_inheritable(&entry.file_name()) == Some(true))
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .collect()
}

#[tokio::test]
async fn it_inherits_the_callers_fds_but_not_the_tracers() {
    let (directory, _) = scratch();
    let theirs = fs::File::create(directory.path().join("theirs")).unwrap();
    let ours = fs::File::create(directory.path().join("ours")).unwrap();
    // SAFETY: fcntl(2) with numbers only changes the flag of that fd, which is open.
    unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) };
    let expected = inheritable();
    assert!(expected.contains(&directory.path().join("theirs")));

    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let argv = ["cat".into(), fifo.clone().into()];
    let started = Prepared::new(&argv, None, &[], None).unwrap().start().unwrap();
    // The open returns when cat has opened the fifo too, and keeps cat reading.
    let hold = OpenOptions::new().write(true).open(&fifo).unwrap();
    let found: BTreeSet<_> = fs::read_dir(format!("/proc/{}/fd", started.pid()))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|link| *link != fifo)
        .collect();
    assert_eq!(found, expected);
    drop(hold);
    assert_eq!(started.wait().await.unwrap(), 0);
    drop(ours);
}

#[tokio::test]
async fn it_shares_the_process_group_and_session() {
    let ids = output("cut -d' ' -f5,6 /proc/$$/stat", None).await;
    let (group, session) = (nix::unistd::getpgrp(), nix::unistd::getsid(None).unwrap());
    assert_eq!(ids.trim(), format!("{group} {session}"));
}

#[tokio::test]
async fn the_command_has_all_ids_of_the_user() {
    if !Uid::effective().is_root() {
        skip!("becoming another user needs root");
    }
    let mut nobody = Invoker::named("nobody").unwrap();
    nobody.groups.push(nix::unistd::Gid::from_raw(54321));
    let (uid, gid) = (nobody.uid, nobody.gid);
    let status = output(
        "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm):' /proc/self/status; echo $USER $HOME",
        Some(&nobody),
    )
    .await;
    let words: Vec<_> =
        status.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let none = "0000000000000000";
    assert_eq!(
        words,
        [
            format!("Uid: {uid} {uid} {uid} {uid}"),
            format!("Gid: {gid} {gid} {gid} {gid}"),
            format!("Groups: 54321 {gid}"),
            format!("CapPrm: {none}"),
            format!("CapEff: {none}"),
            "nobody /nonexistent".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_failed_identity_change_is_status_125() {
    as_ordinary_user!();
    let nobody = Invoker::named("nobody").unwrap();
    let error =
        Prepared::new(&["true".into()], Some(&nobody), &[], None).unwrap().start().unwrap_err();
    assert_eq!(error.exit_code(), 125);
    assert!(!error.to_string().contains('\n'));
}
