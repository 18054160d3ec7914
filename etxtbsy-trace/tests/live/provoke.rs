//! `run --provoke`: failures become likely, and nothing else changes.

use crate::support::{BINARY, Ended, NOBODY, Process, Turn, tracer};
use etxtbsy_trace::event::Provoke;
use etxtbsy_workload::{Comparison, Race};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getsid};
use std::env;
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use test_support::{skip, skipped};

/// A command that runs one of the helpers below, with a directory of its own.
fn helper(name: &str) -> Vec<String> {
    let exe = env::current_exe().unwrap().to_str().unwrap().to_owned();
    let options = ["--ignored", "--exact", "--nocapture", "--test-threads=1"];
    let name = format!("provoke::{name}");
    [exe].into_iter().chain(options.map(Into::into)).chain([name]).collect()
}

const DIRECTORY: &str = "ETXTBSY_TRACE_TEST_DIRECTORY";

fn run_helper(turn: &Turn, options: &[&str], name: &str) -> Ended {
    let command = helper(name);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut tracer = tracer();
    let (ended, _) = turn.run_by(tracer.env(DIRECTORY, turn.dir.path()), options, &command);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("1 passed"), "{}", ended.stdout);
    ended
}

fn helper_directory() -> PathBuf {
    env::var_os(DIRECTORY).expect("another test runs this one").into()
}

#[test]
fn provoked_failures_are_likely_and_marked() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let race = [BINARY, "workload", "go22315", "--failures", "30", "--seconds", "60"];
    let (ended, trace) = turn.run(&["--provoke", "--seed", "1234"], &race);
    let race: Race = ended.report();
    // Without delays, about one attempt in 500 fails.
    assert!(race.failures >= 30 && race.attempts < 20 * race.failures, "{race:?}");
    assert_eq!(trace.summary.failures, race.failures);
    assert_eq!(trace.meta.provoke, Some(Provoke { max_ns: 5_000_000, seed: 1234 }));
    let line = "provoking: delays up to 5 ms, seed 1234; repeat with --provoke=5ms --seed 1234\n";
    assert!(ended.stderr.contains(line), "{}", ended.stderr);
    let replay = Process::start(tracer().arg("replay").arg(turn.output())).wait();
    assert!(replay.stdout.contains(line), "{}", replay.stdout);
}

#[test]
fn without_provoke_nothing_is_marked() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (ended, trace) = turn.run(&[], &["true"]);
    assert_eq!(trace.meta.provoke, None);
    assert!(!ended.stderr.contains("provoking"), "{}", ended.stderr);
}

/// Results of many calls: failing execs, statuses, pipes, signals, files.
const SCRIPT: &str = r"
exec 2>&1
no-such-command; echo $?
./no-such-file; echo $?
printf 'exit 3\n' >plain; ./plain; echo $?
chmod +x plain; ./plain; echo $?
printf '#!/no/such/interpreter\n' >script; chmod 755 script; ./script; echo $?
printf '\177ELF garbage' >elf; chmod 755 elf; ./elf; echo $?
mkdir directory; ./directory; echo $?
exec 7>kept; echo kept >&7; cat kept; ls /proc/self/fd
seq 1 20000 | sort -rn | sed 3q | tr '\n' ' '; echo
(:) & for i in 1 2 3 4 5 6 7 8 9 10; do x=$( (:) | (:) | echo y | cat ); echo $x; done
trap 'echo got TERM' TERM; kill -TERM $$; trap - TERM
sh -c 'kill -KILL $$'; echo $?
sh -c 'exit 200'; echo $?
cp /bin/true copy; ./copy; echo $?
exec 8>>copy; ./copy; echo $?; exec 8>&-; ./copy; echo $?
dd if=/dev/zero bs=1000 count=100 2>/dev/null | wc -c
umask; ulimit -n; cat /proc/self/comm; wc -c <script
exit 42
";

#[test]
fn the_command_gets_the_same_results() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = |tracer: &[&str]| {
        let dir = tempfile::tempdir_in(turn.dir.path()).unwrap();
        let words = [tracer, &["sh", "-c", SCRIPT]].concat();
        Process::start(Command::new(words[0]).args(&words[1..]).current_dir(dir.path())).wait()
    };
    let plain = output(&["env"]);
    let file = turn.output();
    let file = file.to_str().unwrap();
    let provoked = output(&[BINARY, "run", "-o", file, "--provoke=2ms", "--"]);
    assert_eq!((plain.code, provoked.code), (Some(42), Some(42)), "{}", provoked.stderr);
    assert_eq!(provoked.stdout, plain.stdout);
    assert!(plain.stdout.contains("Text file busy"), "{}", plain.stdout);
}

#[test]
fn calls_of_32_bit_programs_are_left_alone() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (ended, _) = turn.run(&["--provoke=2ms"], &[BINARY, "workload", "fail-in-32-bits", "exec"]);
    if ended.code == Some(77) {
        skip!("32-bit programs: {}", ended.stderr);
    }
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
}

/// How many programs are spawned under a lock.
const SPAWNS: u64 = 10_000;

/// Not a test: threads that hold a lock from the open for writing until the spawn has returned.
#[test]
#[ignore = "the helper of another test"]
fn helper_that_spawns_under_a_lock() {
    let (dir, lock, count) = (helper_directory(), Mutex::new(()), AtomicU64::new(0));
    thread::scope(|scope| {
        for index in 0..4 {
            let (path, lock, count) = (dir.join(format!("locked-{index}")), &lock, &count);
            scope.spawn(move || {
                while count.fetch_add(1, Ordering::Relaxed) < SPAWNS {
                    let guard = lock.lock().unwrap();
                    write_program(&path);
                    let mut child = Command::new(&path).stdin(Stdio::null()).spawn().unwrap();
                    drop(guard);
                    assert!(child.wait().unwrap().success());
                }
            });
        }
    });
}

/// Writes a script that does nothing.
fn write_program(path: &Path) {
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o755).open(path).unwrap();
    file.write_all(b"#!/bin/true\n").unwrap();
}

#[test]
fn a_correct_program_stays_correct() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let start = Instant::now();
    run_helper(&turn, &["--provoke=200us"], "helper_that_spawns_under_a_lock");
    eprintln!("{SPAWNS} spawns took {:?}", start.elapsed());
    for remedy in ["write-in-child", "mutex-child-exit"] {
        let workload = [BINARY, "workload", "remedy", remedy, "--seconds", "2"];
        let (ended, _) = turn.run(&["--provoke=200us"], &workload);
        let Comparison { sides, .. } = ended.report();
        assert!(sides[0].race.failures > 0, "{sides:?}");
        assert_eq!((sides[1].race.failures, sides[1].given_up), (0, 0), "{sides:?}");
    }
}

#[test]
fn setuid_programs_keep_their_privileges_under_root() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    fs::set_permissions(turn.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let program = turn.dir.path().join("id");
    fs::copy("/usr/bin/id", &program).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o4755)).unwrap();
    let script = format!("{} -u; grep NoNewPrivs /proc/self/status", program.display());
    let (plain, _) = turn.run(&["--user", "nobody"], &["sh", "-c", &script]);
    let (provoked, _) = turn.run(&["--user", "nobody", "--provoke"], &["sh", "-c", &script]);
    assert_eq!(provoked.stdout, plain.stdout);
    assert!(provoked.stdout.contains("NoNewPrivs:\t0"), "{}", provoked.stdout);
}

#[test]
fn without_root_no_new_privs_is_set_and_reported() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let script = "grep NoNewPrivs /proc/self/status; exit 4";
    let mut command = tracer();
    command.args(["run", "--best-effort", "--provoke", "--seed", "3", "--", "sh", "-c", script]);
    let ended = Process::start(command.current_dir("/").uid(NOBODY).gid(NOBODY)).wait();
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(4), "NoNewPrivs:\t1\n"));
    for words in ["sets no_new_privs", "without it (--best-effort)", "--provoke=5ms --seed 3"] {
        assert!(ended.stderr.contains(words), "{words}: {}", ended.stderr);
    }
}

/// Not a test: a program with a filter of its own, as a container runtime installs one.
#[test]
#[ignore = "the helper of another test"]
fn helper_with_its_own_filter() {
    let code = |code: u32| code as u16;
    let statement = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let mut filter = [
        statement(code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS), 0),
        libc::sock_filter {
            code: code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K),
            jt: 0,
            jf: 1,
            k: libc::SYS_mkdirat as u32,
        },
        statement(code(libc::BPF_RET | libc::BPF_K), libc::SECCOMP_RET_ERRNO | 0x63),
        statement(code(libc::BPF_RET | libc::BPF_K), libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the program refers to `filter`, which outlives the calls; the others get numbers and a C string.
    let (installed, made, errno, listener) = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1_u64, 0_u64, 0_u64, 0_u64);
        let filter = |flags: u64| {
            let mode = libc::SECCOMP_SET_MODE_FILTER;
            libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program)
        };
        let installed = filter(0);
        let made = libc::mkdirat(libc::AT_FDCWD, c"never".as_ptr(), 0o700);
        let errno = nix::errno::Errno::last_raw();
        (installed, made, errno, filter(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER))
    };
    assert_eq!((installed, made, errno), (0, -1, 0x63));
    // The kernel allows one listener; docs/limitations.md says so.
    assert_eq!((listener, nix::errno::Errno::last()), (-1, nix::errno::Errno::EBUSY));
    for _ in 0..50 {
        let path = helper_directory().join("own-filter");
        write_program(&path);
        assert!(Command::new(&path).status().unwrap().success());
    }
}

#[test]
fn filters_of_the_command_keep_working() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    run_helper(&turn, &["--provoke=1ms"], "helper_with_its_own_filter");
}

#[test]
fn one_provoke_in_another_is_refused() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let inner = [BINARY, "run", "--provoke", "--", "true"];
    let (ended, _) = turn.run(&["--provoke"], &inner);
    assert_eq!(ended.code, Some(125));
    assert!(ended.stderr.contains("an outer --provoke"), "{}", ended.stderr);
}

/// Not a test: signals with SA_RESTART interrupt calls that wait.
#[test]
#[ignore = "the helper of another test"]
fn helper_that_gets_signals() {
    static SIGNALS: AtomicU64 = AtomicU64::new(0);
    extern "C" fn count(_: libc::c_int) {
        SIGNALS.fetch_add(1, Ordering::Relaxed);
    }
    let period = libc::timeval { tv_sec: 0, tv_usec: 300 };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: the handler only counts. signal(3) of glibc and musl sets SA_RESTART. The timer outlives the call.
    unsafe {
        libc::signal(libc::SIGALRM, count as *const () as usize);
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut());
    }
    let path = helper_directory().join("signals");
    for _ in 0..500 {
        let mut options = File::options();
        let file = options.write(true).create(true).truncate(true).mode(0o755).open(&path).unwrap();
        // SAFETY: the pointer and the length are those of a string.
        let written =
            unsafe { libc::write(file.as_raw_fd(), c"#!/bin/true\n".as_ptr().cast(), 12) };
        assert_eq!(written, 12, "{}", nix::errno::Errno::last());
    }
    assert!(SIGNALS.load(Ordering::Relaxed) > 500);
}

#[test]
fn handlers_with_sa_restart_are_not_noticed() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    run_helper(&turn, &["--provoke=2ms"], "helper_that_gets_signals");
}

/// Its last exec is delayed: it has a write fd of a program.
const DELAYED: &str = "cp /bin/true held; exec 5>>held; exec true";

/// `run --provoke=1s` with a seed, of which the first delay is 0.88 s; returns the time that it took.
fn run_delayed(turn: &Turn, command: &[&str]) -> (Ended, Duration) {
    let start = Instant::now();
    let mut tracer = tracer();
    let tracer = tracer.current_dir(turn.dir.path());
    let (ended, _) = turn.run_by(tracer, &["--provoke=1s", "--seed", "0"], command);
    (ended, start.elapsed())
}

#[test]
fn a_seed_repeats_the_delays() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    for _ in 0..2 {
        let (ended, took) = run_delayed(&turn, &["sh", "-c", DELAYED]);
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        assert!(took >= Duration::from_nanos(883_310_809), "{took:?}");
    }
}

#[test]
fn a_delayed_call_can_be_killed() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    for signal in ["KILL", "TERM"] {
        let script = format!("date +%s%N; timeout -s {signal} 0.2 sh -c '{DELAYED}'; date +%s%N");
        let (ended, _) = run_delayed(&turn, &["sh", "-c", &script]);
        let times: Vec<u64> = ended.stdout.lines().map(|line| line.parse().unwrap()).collect();
        let took = Duration::from_nanos(times[1] - times[0]);
        assert!(took < Duration::from_millis(800), "{signal}: {took:?}");
    }
}

#[test]
fn delays_are_concurrent() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let script = format!(
        "date +%s%N; for i in $(seq 40); do mkdir $i; (cd $i; {DELAYED}) & done; wait; date +%s%N"
    );
    let (ended, _) = run_delayed(&turn, &["sh", "-c", &script]);
    let times: Vec<u64> = ended.stdout.lines().map(|line| line.parse().unwrap()).collect();
    let took = Duration::from_nanos(times[1] - times[0]);
    // One after the other they would take about 20 s.
    assert!((Duration::from_millis(800)..Duration::from_secs(8)).contains(&took), "{took:?}");
}

/// The supervisor's processes in a session, which its first process leads.
fn supervisors(session: Option<Pid>) -> Vec<Pid> {
    let is_supervisor = |pid: &Pid| {
        fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|comm| comm == "etxtbsy-provoke\n")
            && session.is_none_or(|session| getsid(Some(*pid)) == Ok(session))
            && !fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|it| it.contains(") Z "))
    };
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut pids: Vec<Pid> = pids.map(Pid::from_raw).filter(is_supervisor).collect();
    pids.sort();
    pids
}

/// Waits until the session has that many.
fn await_supervisors(session: Pid, count: usize) -> Vec<Pid> {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let found = supervisors(Some(session));
        if found.len() == count {
            return found;
        }
        assert!(Instant::now() < end, "{found:?} instead of {count}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A race of some seconds with long delays, and the session of its supervisor.
fn race_with_supervisor(turn: &Turn) -> (Process, Pid) {
    let mut command = tracer();
    command.args(["run", "--provoke=20ms", "--overwrite", "-o"]).arg(turn.output()).arg("--");
    command.args([BINARY, "workload", "go22315", "--seconds", "5"]);
    let earlier = supervisors(None);
    let race = Process::start(&mut command);
    let end = Instant::now() + Duration::from_secs(20);
    let session = loop {
        let new = supervisors(None).into_iter().find(|pid| !earlier.contains(pid));
        if let Some(session) = new.and_then(|pid| getsid(Some(pid)).ok()) {
            break session;
        }
        assert!(Instant::now() < end, "no supervisor");
        thread::sleep(Duration::from_millis(5));
    };
    await_supervisors(session, 2);
    // Until the race is under way.
    thread::sleep(Duration::from_secs(1));
    (race, session)
}

#[test]
fn the_command_survives_its_supervisors() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (race, session) = race_with_supervisor(&turn);
    for turn in 0..10 {
        let both = await_supervisors(session, 2);
        // The one that answers is the older one.
        kill(both[turn % 2], Signal::SIGKILL).unwrap();
        thread::sleep(Duration::from_millis(50));
    }
    let ended = race.wait();
    // A call that failed with ENOSYS would have ended the race with an error.
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let race: Race = ended.report();
    assert!(race.failures > 0, "{race:?}");
    await_supervisors(session, 0);
}

#[test]
fn the_command_survives_the_tracer() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (race, session) = race_with_supervisor(&turn);
    race.signal(Signal::SIGKILL);
    let report: Race = serde_json::from_str(&race.line()).unwrap();
    assert!(report.seconds >= 5.0, "{report:?}");
    assert_eq!(race.wait().signal, Some(libc::SIGKILL));
    await_supervisors(session, 0);
}

#[test]
fn a_daemon_of_the_command_lives_on_without_delays() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let daemon = "sleep 1; cp /bin/true held; exec 5>>held; exec touch done";
    let script = format!("(setsid sh -c '{daemon}' >/dev/null 2>&1 &)");
    let (ended, took) = run_delayed(&turn, &["sh", "-c", &script]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    if took > Duration::from_secs(1) {
        skipped(format_args!("the tracer took {took:?} to end"));
    }
    let end = Instant::now() + Duration::from_secs(10);
    while !turn.dir.path().join("done").exists() {
        assert!(Instant::now() < end, "the daemon's exec failed");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn wrong_limits_and_a_seed_alone_are_usage_errors() {
    for (options, words) in [
        (&["--provoke=5"][..], "give a number with a unit such as 200us, 5ms or 1s"),
        (&["--provoke=0ms"], "must be more than 0"),
        (&["--provoke=2s"], "give at most 1s"),
        (&["--seed", "1"], "--provoke"),
    ] {
        let ended = Process::start(tracer().arg("run").args(options).args(["--", "true"])).wait();
        assert_eq!(ended.code, Some(2));
        assert!(ended.stderr.contains(words), "{options:?}: {}", ended.stderr);
    }
}
