//! The capabilities of the tracer once it is live; the command inherits none of them.

use crate::support::{NOBODY, Process, Trace, Turn, tracer};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::thread::{self, sleep, yield_now};
use std::time::{Duration, Instant};

/// /proc/PID/task/TID/status of each thread of a process.
fn threads(pid: impl std::fmt::Display) -> Vec<BTreeMap<String, String>> {
    let statuses = fs::read_dir(format!("/proc/{pid}/task")).unwrap().filter_map(|task| {
        // A thread that has just ended has none.
        let status = fs::read_to_string(task.unwrap().path().join("status")).ok()?;
        let lines = status.lines().filter_map(|line| line.split_once(':'));
        Some(lines.map(|(name, rest)| (name.to_owned(), rest.trim().to_owned())).collect())
    });
    statuses.collect()
}

/// Whether a process needs `CAP_BPF` to read an element of a map that it has open: not from 5.19 on, nor
/// where the sysctl kernel.unprivileged_bpf_disabled is 0.
fn reading_maps_needs_bpf() -> bool {
    /// Of `union bpf_attr`, include/uapi/linux/bpf.h: what makes a map, and what reads an element.
    #[repr(C)]
    struct MapCreate {
        map_type: u32,
        key_size: u32,
        value_size: u32,
        max_entries: u32,
    }
    #[repr(C)]
    struct Element {
        map_fd: u32,
        key: u64,
        value: u64,
        flags: u64,
    }
    const BPF_MAP_CREATE: libc::c_int = 0;
    const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    fn bpf<T>(command: libc::c_int, argument: &T) -> nix::Result<libc::c_long> {
        // SAFETY: the argument is that of the command, and so are what its pointers point to.
        let done = unsafe { libc::syscall(libc::SYS_bpf, command, argument, size_of::<T>()) };
        Errno::result(done)
    }
    let array =
        MapCreate { map_type: BPF_MAP_TYPE_ARRAY, key_size: 4, value_size: 8, max_entries: 1 };
    let map_fd = bpf(BPF_MAP_CREATE, &array).unwrap() as i32;
    // SAFETY: it was just opened, for us.
    let map = unsafe { OwnedFd::from_raw_fd(map_fd) };
    // Capabilities are a thread's own.
    let read = thread::spawn(move || {
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        set_capabilities(None, sets).unwrap();
        let (key, mut value) = (0_u32, 0_u64);
        let (key, value) = (&raw const key as u64, &raw mut value as u64);
        bpf(BPF_MAP_LOOKUP_ELEM, &Element { map_fd: map.as_raw_fd() as u32, key, value, flags: 0 })
    });
    match read.join().unwrap() {
        Ok(_) => false,
        Err(errno) => {
            assert_eq!(errno, Errno::EPERM);
            true
        }
    }
}

/// Asserts that each thread of the tracer has only those of our capabilities, and cannot gain more. Waits
/// until the threads that started it are gone, which the kernel shows for a while after the join.
#[track_caller]
fn assert_has_only(pid: impl std::fmt::Display, wanted: CapabilitySet) {
    let wanted = wanted & capabilities(None).unwrap().permitted;
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match threads(&pid).iter().try_for_each(|thread| has_only(thread, wanted)) {
            Ok(()) => return,
            Err(wrong) if Instant::now() > until => panic!("{wrong}"),
            Err(_) => yield_now(),
        }
    }
}

/// The same for one thread, by its status; returns what is wrong.
fn has_only(thread: &BTreeMap<String, String>, wanted: CapabilitySet) -> Result<(), String> {
    // For when a 32-bit program runs.
    let aside = CapabilitySet::BPF | CapabilitySet::PERFMON;
    let name = &thread["Name"];
    for (set, may_be) in [("CapPrm", aside), ("CapEff", CapabilitySet::empty())] {
        let found = u64::from_str_radix(&thread[set], 16).unwrap();
        let found = CapabilitySet::from_bits_retain(found);
        if found - may_be != wanted - may_be {
            return Err(format!("{set} of {name}: {found:?} instead of {wanted:?}"));
        }
    }
    for none in ["CapInh", "CapAmb"] {
        if u64::from_str_radix(&thread[none], 16).unwrap() != 0 {
            return Err(format!("{none} of {name}: {}", thread[none]));
        }
    }
    if thread["NoNewPrivs"] == "1" { Ok(()) } else { Err(format!("NoNewPrivs of {name}")) }
}

/// A tracer that `nobody` called through sudo.
fn for_nobody() -> Command {
    let mut command = tracer();
    let id = NOBODY.to_string();
    command.env("SUDO_UID", &id).env("SUDO_GID", &id).env("SUDO_USER", "nobody").current_dir("/");
    command
}

#[test]
fn the_tracer_keeps_only_the_capabilities_it_needs() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let mut always = CapabilitySet::SYS_PTRACE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::CHECKPOINT_RESTORE;
    always.set(CapabilitySet::BPF, reading_maps_needs_bpf());
    let tracing = Process::start(tracer().args(["--json", "--pid", "1"]));
    tracing.line();
    assert_has_only(tracing.pid(), always);
    tracing.signal(Signal::SIGINT);
    assert_eq!(tracing.wait().code, Some(0));

    let running = Process::start(tracer().args(["run", "--", "sh", "-c", "echo $PPID; read end"]));
    let tracer = running.line();
    assert_has_only(tracer, always | CapabilitySet::KILL);
    assert_eq!(running.wait().code, Some(1));
}

/// Prints what a process inherited from its parent.
const HERITAGE: &str = "
    grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|SigBlk|SigIgn|THP_enabled|Umask):' \
        /proc/self/status
    cat /proc/self/limits /proc/self/oom_score_adj /proc/self/timerslack_ns; cut -d' ' -f19 /proc/self/stat
    pwd; env -u _ | sort";

/// Limits and a mask that differ from the defaults.
fn peculiar(command: &mut Command) -> &mut Command {
    let change = || {
        for (resource, soft) in [(Resource::RLIMIT_NOFILE, 77), (Resource::RLIMIT_MEMLOCK, 1 << 15)]
        {
            setrlimit(resource, soft, getrlimit(resource)?.1)?;
        }
        // SAFETY: no pointers.
        unsafe { libc::umask(0o27) };
        Ok(())
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { command.pre_exec(change) }
}

#[test]
fn the_command_inherits_what_it_would_without_the_tracer() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let heritage = ["/bin/sh", "-c", HERITAGE];
    let mut without = Command::new("env");
    for (key, value) in tracer().get_envs() {
        match value {
            Some(value) => without.env(key, value),
            None => without.env_remove(key),
        };
    }
    let without = Process::start(peculiar(without.args(heritage))).wait();
    let with = Process::start(peculiar(tracer().args(["run", "--"]).args(heritage))).wait();
    assert_eq!(with.code, Some(0), "{}", with.stderr);
    assert!(without.stdout.contains("Umask:\t0027") && without.stdout.contains("77 "));
    assert_eq!(with.stdout, without.stdout);
}

/// All but the environment, which sudo had changed already.
#[test]
fn under_sudo_the_command_inherits_what_the_caller_would_give() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let heritage = ["/bin/sh", "-c", HERITAGE];
    let id = NOBODY.to_string();
    let mut without = Command::new(heritage[0]);
    without.args(&heritage[1..]).current_dir("/");
    let change = || {
        setgroups(&[Gid::from_raw(NOBODY)])?;
        setgid(Gid::from_raw(NOBODY))?;
        Ok(setuid(Uid::from_raw(NOBODY))?)
    };
    // SAFETY: only system calls between fork and exec.
    unsafe { peculiar(&mut without).pre_exec(change) };
    let without = Process::start(&mut without).wait();
    let with = Process::start(peculiar(for_nobody().args(["run", "--"]).args(heritage))).wait();
    assert_eq!(with.code, Some(0), "{}", with.stderr);
    let facts = |text: &str| {
        text.lines()
            .take_while(|line| !line.starts_with('/'))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert!(facts(&without.stdout).contains(&format!("Uid:\t{id}\t{id}\t{id}\t{id}")));
    assert_eq!(facts(&with.stdout), facts(&without.stdout));
    let environment: BTreeSet<&str> = with.stdout.lines().collect();
    for line in ["USER=nobody", "LOGNAME=nobody", "HOME=/nonexistent"] {
        assert!(environment.contains(line), "no {line} in {environment:?}");
    }
    assert!(!with.stdout.contains("SUDO_"), "{}", with.stdout);
}

/// no_new_privs of the tracer does not apply to the command.
#[test]
fn the_command_may_gain_privileges() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let become_root = turn.dir.path().join("cat");
    fs::copy("/bin/cat", &become_root).unwrap();
    fs::set_permissions(&become_root, Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(turn.dir.path(), Permissions::from_mode(0o755)).unwrap();
    for (cat, effective) in [(&*become_root, 0), (Path::new("/bin/cat"), NOBODY)] {
        let mut run = for_nobody();
        run.args(["run", "--"]).arg(cat).arg("/proc/self/status");
        let ended = Process::start(&mut run).wait();
        let uids = format!("Uid:\t{NOBODY}\t{effective}\t{effective}\t{effective}\n");
        assert!(ended.stdout.contains(&uids), "{}{}", ended.stdout, ended.stderr);
    }
}

#[test]
fn signals_reach_a_command_of_another_user() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let process =
        Process::start(for_nobody().args(["run", "--", "sh", "-c", "echo up; exec sleep 1000"]));
    assert_eq!(process.line(), "up");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait().code, Some(128 + 15));
}

/// This needs the capabilities that the tracer keeps. Holder and parent live until they are reported.
#[test]
fn processes_of_another_user_are_described() {
    const HOLD: &str = "cp /bin/true \"$0\"; exec 3>>\"$0\"; \"$0\"; read end";
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    chown(turn.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let output = turn.output();
    let mut process = Process::start(
        for_nobody()
            .args(["run", "-o"])
            .arg(&output)
            .args(["--", "sh", "-c", "sh -c \"$1\" \"$0\"; exit $?"])
            .arg(turn.dir.path().join("busy"))
            .arg(HOLD),
    );
    let began = Instant::now();
    while !fs::read_to_string(&output).is_ok_and(|text| text.contains("\"incident\"")) {
        assert!(began.elapsed() < Duration::from_secs(60), "no incident");
        sleep(Duration::from_millis(10));
    }
    process.say_go();
    let trace = Trace::read(&output, &process.wait());
    let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
    let holder = &incident.holders[0];
    assert_eq!(holder.uid, Some(NOBODY));
    let shell = fs::canonicalize("/bin/sh").unwrap();
    for exe in [&holder.exe, &holder.ancestors[0].exe] {
        assert_eq!(exe.as_deref(), shell.to_str(), "{incident:#?}");
    }
}
