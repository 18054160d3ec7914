//! Helpers that fail.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    process::Command,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{Asked, helper, programs::Program};

#[test]
fn a_helper_that_does_not_answer_is_given_up() {
    let program = Program::c(&["-O2", "-g"]);
    let mut asked = Asked::start(|| {
        let mut command = Command::new("sleep");
        command.arg("1000");
        command
    });
    let traced = program.opening();
    let before = Instant::now();
    assert_eq!(asked.resolve(&traced), None);
    let took = before.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_helper_that_ends_or_is_missing_is_not_started_all_the_time() {
    let program = Program::c(&["-O2", "-g"]);
    let traced = program.opening();
    for helper in
        [|| Command::new("false"), || Command::new("/nonexistent"), || Command::new("true")]
    {
        let mut asked = Asked::start(helper);
        let before = Instant::now();
        for _ in 0..50 {
            assert_eq!(asked.resolve(&traced), None);
        }
        // Only the first few are tried.
        assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());
    }
}

/// The helper with a name of its own, by which the test finds it.
fn named_helper() -> Command {
    let mut command = helper();
    command.arg0("the-helper-to-be-killed");
    command
}

fn find_helper() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_helper = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        line.starts_with(b"the-helper-to-be-killed")
            && status.contains(&format!("PPid:\t{}\n", std::process::id()))
    };
    pids.filter(is_helper).map(Pid::from_raw).collect()
}

#[test]
fn a_helper_has_no_privileges_and_is_replaced_if_it_dies() {
    let program = Program::c(&["-O2", "-g"]);
    let traced = program.opening();
    let mut asked = Asked::start(named_helper);
    let resolved = asked.resolve(&traced).unwrap();
    let found = find_helper();
    let [pid] = found[..] else { panic!("{found:?}") };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for expected in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
    ] {
        assert!(status.contains(expected), "{status}");
    }
    if nix::unistd::geteuid().is_root() {
        assert!(status.contains("CapBnd:\t0000000000000000"), "{status}");
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
        assert!(status.contains("Gid:\t65534\t65534\t65534\t65534"), "{status}");
        let fds: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .flatten()
            .map(|fd| fd.file_name())
            .collect();
        assert_eq!(fds, ["0", "1", "2"]);
    }
    for _ in 0..3 {
        assert_eq!(asked.resolve(&traced).as_ref(), Some(&resolved));
        let found = find_helper();
        kill(found[0], Signal::SIGKILL).unwrap();
        assert_eq!(asked.resolve(&traced).as_ref(), Some(&resolved));
    }
    drop(asked);
    let until = Instant::now() + Duration::from_secs(5);
    while !find_helper().is_empty() {
        assert!(Instant::now() < until, "the helper outlives its resolver");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn each_key_is_answered_once_and_too_many_are_refused() {
    let program = Program::c(&["-O2", "-g"]);
    let traced = program.opening();
    let mut asked = Asked::start(helper);
    let mut waiting = 0;
    for nth in 0..200 {
        let mut stack = traced.stack.clone();
        stack.time_ns = nth;
        let key = etxtbsy_stacks::Key::of(&stack);
        let copy = etxtbsy_stacks::Copied { key, stack, pids: vec![u32::MAX, traced.id()] };
        waiting += usize::from(asked.resolver.ask(copy));
    }
    assert!((64..200).contains(&waiting), "{waiting}");
    let mut answered = std::collections::HashSet::new();
    while answered.len() < waiting {
        for (key, resolved) in asked.answers() {
            assert!(answered.insert(key));
            assert!(resolved.is_some());
        }
    }
}
