//! Sample lines for the tests.

#![allow(clippy::unwrap_used)]

use crate::analysis::verdict;
use crate::event::{
    Ancestor, BusyFile, Direction, Evidence, Fd, Filter, Forked, Frame, Holder, How, Incident,
    Line, LossKind, Lost, Meta, NearMiss, Opened, Place, Refusal, Released, Role, Shortfall, State,
    Summary, Unheld, VerdictKind, Via, Victim,
};
use proptest::prelude::*;

// All fields that it fills are `Option`s.
#[allow(clippy::unnecessary_wraps)]
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn list(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// The incident with the verdict of the rules.
fn judged(incident: Incident) -> Incident {
    Incident { verdict: verdict::of(&incident), ..incident }
}

/// The time of the failures.
const NOW: u64 = 90_000_000_000_000;

pub(crate) fn meta() -> Meta {
    Meta {
        schema: crate::event::SCHEMA,
        version: "0.1.0".to_owned(),
        time: "2026-11-20T14:03:00.000000000Z".to_owned(),
        time_ns: NOW - 7_000_000_000,
        kernel: "6.18.0".to_owned(),
        arch: "x86_64".to_owned(),
        host: some("builder"),
        boot_id: some("5d1b2c9e-4b7f-4a55-9a55-0e2f6a1c3d4e"),
        argv: list(&["etxtbsy-trace", "run", "--", "make", "test"]),
        filter: Filter {
            pids: vec![4300],
            command: Some(list(&["make", "test"])),
            ..Filter::default()
        },
        provoke: None,
    }
}

fn ancestor(pid: u32, comm: &str) -> Ancestor {
    Ancestor { pid, comm: some(comm), comm_b64: None, exe: None, exe_b64: None }
}

fn holder(pid: u32, comm: &str) -> Holder {
    Holder {
        pid,
        ppid: Some(4300),
        comm: some(comm),
        comm_b64: None,
        exe: some("/usr/bin/demo"),
        exe_b64: None,
        argv: Some(list(&["demo", "fork-exec-race"])),
        argv_b64: None,
        uid: Some(1000),
        cgroup: some("/ci.slice"),
        context: None,
        ns_pid: None,
        local_pid: None,
        start_ns: Some(NOW - 130_000),
        exec_ns: None,
        script: None,
        script_b64: None,
        fds: vec![Fd {
            fd: 5,
            flags: list(&["O_WRONLY", "O_CREAT", "O_CLOEXEC"]),
            cloexec: Some(true),
        }],
        via: Via::Fork,
        evidence: Some(Evidence::TaskWork),
        call: None,
        state: State::ExecClosing,
        opened: Some(Opened {
            pid: 4300,
            tid: 4305,
            comm: some("worker-3"),
            comm_b64: None,
            time_ns: NOW - 455_000,
            closed_ns: None,
            runtime: None,
            context: None,
            path: some("/var/tmp/fork-exec-3"),
            path_b64: None,
            stack: None,
            frames_unknown: None,
        }),
        forked: Some(Forked {
            pid: 4300,
            tid: 4307,
            comm: some("worker-5"),
            comm_b64: None,
            time_ns: NOW - 120_000,
            stack: None,
            frames_unknown: None,
        }),
        ancestors: vec![ancestor(4300, "demo"), ancestor(22, "bash"), ancestor(1, "systemd")],
        released: Some(Released {
            how: How::CloseOnExec,
            time_ns: NOW + 180_000,
            after_ns: 180_000,
            exec: some("/bin/true"),
            exec_b64: None,
        }),
    }
}

/// A child that had not completed its exec.
pub(crate) fn race() -> Incident {
    judged(Incident {
        id: 12,
        time: "2026-11-20T14:03:07.123456789Z".to_owned(),
        time_ns: NOW,
        direction: Direction::Exec,
        syscall: "execve".to_owned(),
        errno: "ETXTBSY".to_owned(),
        path: some("/var/tmp/fork-exec-3"),
        path_b64: None,
        file: BusyFile {
            path: some("/var/tmp/fork-exec-3"),
            path_b64: None,
            dev: some("254:0"),
            ino: Some(1234),
            generation: None,
            role: Some(Role::Target),
            writers: Some(1),
        },
        victim: Victim {
            pid: 4312,
            tid: 4312,
            ppid: Some(4300),
            comm: some("worker-3"),
            exe: some("/usr/bin/demo"),
            argv: Some(list(&["demo", "fork-exec-race"])),
            cwd: some("/work"),
            uid: Some(1000),
            cgroup: some("/ci.slice"),
            ns_pid: Some(4312),
            local_pid: Some(4312),
            ..Victim::default()
        },
        holders: vec![holder(4310, "demo")],
        unheld: Vec::new(),
        suspects: Vec::new(),
        explained: 1,
        complete: true,
        certain: true,
        repaired: None,
        left_out: None,
        run: None,
        verdict: verdict::unexplained(Direction::Exec),
    })
}

/// A frame of that module.
fn frame(function: &str, source: Option<(&str, u32)>, module: &str) -> Frame {
    Frame {
        function: some(function),
        file: source.and_then(|(file, _)| some(file)),
        line: source.map(|(_, line)| line),
        module: some(module),
    }
}

const PROGRAM: &str = "/usr/bin/demo";
const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";
const LIBRARY: &str = "/rustc/4a4ef493e3a1488c6e321570238084b38948f6db/library/std/src";

/// [`race`] with stacks: those of a program in Rust, and of a library in C that forks.
pub(crate) fn with_stacks() -> Incident {
    let std = |function: &str, file: &str, line| {
        frame(function, Some((&format!("{LIBRARY}/{file}"), line)), PROGRAM)
    };
    let mut incident = race();
    let holder = &mut incident.holders[0];
    let opened = holder.opened.as_mut().unwrap();
    opened.stack = Some(vec![
        frame("open64", None, LIBC),
        std("std::sys::fs::unix::File::open_c", "sys/fs/unix.rs", 1213),
        std("std::fs::OpenOptions::_open", "fs.rs", 1834),
        std("std::fs::write::inner", "fs.rs", 394),
        frame("demo::build::write_script", Some(("src/build.rs", 42)), PROGRAM),
        frame("demo::main", Some(("src/main.rs", 7)), PROGRAM),
        std("std::rt::lang_start_internal", "rt.rs", 171),
        frame("__libc_start_main", None, LIBC),
    ]);
    opened.frames_unknown = Some(0);
    let forked = holder.forked.as_mut().unwrap();
    forked.stack = Some(vec![
        frame("fork", None, LIBC),
        frame("spawn_tests", None, "/usr/lib/libspawn.so.2"),
        frame("demo::run::all", Some(("src/run.rs", 17)), PROGRAM),
        frame("start_thread", None, LIBC),
    ]);
    forked.frames_unknown = Some(2);
    incident.victim.stack = Some(vec![
        frame("execve", None, LIBC),
        std("std::sys::process::unix::Command::exec", "sys/process/unix/unix.rs", 241),
        frame("demo::run::one", Some(("src/run.rs", 31)), PROGRAM),
        frame("demo::run::all", Some(("src/run.rs", 20)), PROGRAM),
        frame("start_thread", None, LIBC),
    ]);
    incident.victim.frames_unknown = Some(1);
    judged(incident)
}

/// The same race, won.
pub(crate) fn near_miss() -> NearMiss {
    won(race())
}

/// The same with stacks.
pub(crate) fn near_miss_with_stacks() -> NearMiss {
    won(with_stacks())
}

/// A near miss in place of the failure.
fn won(incident: Incident) -> NearMiss {
    let Incident { time, path, file, victim, mut holders, .. } = incident;
    let released = holders[0].released.as_mut().unwrap();
    released.time_ns = NOW - 420_000;
    released.after_ns = -420_000;
    NearMiss {
        time,
        time_ns: NOW,
        path,
        path_b64: None,
        file: BusyFile { writers: None, ..file },
        victim,
        holders,
        margin_ns: 300_000,
        count: 1,
        run: None,
    }
}

/// A daemon with an fd that is not close-on-exec.
pub(crate) fn leaked() -> Incident {
    let mut incident = race();
    let holder = &mut incident.holders[0];
    holder.comm = some("daemon");
    holder.exe = some("/usr/sbin/daemon");
    holder.argv = Some(list(&["daemon", "--name", "two words"]));
    holder.cgroup = some("/system.slice");
    holder.ns_pid = Some(7);
    holder.state = State::Running;
    holder.fds[0].flags = list(&["O_RDWR"]);
    holder.fds[0].cloexec = Some(false);
    holder.opened.as_mut().unwrap().time_ns = NOW - 7_384_000_000_000;
    holder.forked.as_mut().unwrap().time_ns = NOW - 7_200_000_000_000;
    holder.start_ns = Some(NOW - 7_200_000_010_000);
    holder.released = None;
    incident.file.path = some("/bin/sh");
    incident.file.role = Some(Role::ScriptInterpreter);
    judged(incident)
}

/// The opener's own fd.
pub(crate) fn still_open() -> Incident {
    let mut incident = race();
    let holder = &mut incident.holders[0];
    holder.pid = 4300;
    holder.ppid = Some(22);
    holder.via = Via::Open;
    holder.state = State::Running;
    holder.forked = None;
    holder.ancestors.remove(0);
    holder.released = Some(Released {
        how: How::Close,
        time_ns: NOW + 2_500_000_000,
        after_ns: 2_500_000_000,
        exec: None,
        exec_b64: None,
    });
    judged(incident)
}

/// No holder was found, and little is known.
pub(crate) fn unexplained() -> Incident {
    let mut incident = race();
    incident.path = None;
    incident.file = BusyFile {
        path: None,
        path_b64: None,
        dev: None,
        ino: None,
        generation: None,
        role: None,
        writers: Some(1),
    };
    incident.victim = Victim { pid: 4312, tid: 4313, ..Victim::default() };
    incident.holders.clear();
    incident.explained = 0;
    incident.complete = false;
    judged(incident)
}

/// Two of three holders; the fork of the second was not complete at the failure.
pub(crate) fn several() -> Incident {
    let mut incident = race();
    let mut second = holder(4311, "demo");
    second.state = State::InFork;
    second.exe = None;
    second.argv = None;
    second.forked.as_mut().unwrap().time_ns = NOW + 15_000;
    second.released.as_mut().unwrap().after_ns = 1_250_000;
    incident.holders.push(second);
    incident.file.writers = Some(3);
    incident.explained = 2;
    incident.complete = false;
    judged(incident)
}

/// A linker fails to open a program that is being run.
pub(crate) fn write_direction() -> Incident {
    let mut incident = still_open();
    incident.direction = Direction::Write;
    incident.syscall = "openat".to_owned();
    incident.file.writers = None;
    incident.victim.comm = some("ld");
    incident.victim.exe = some("/usr/bin/ld");
    let holder = &mut incident.holders[0];
    holder.via = Via::Running;
    holder.fds.clear();
    holder.opened = None;
    holder.released = None;
    incident.explained = 0;
    judged(incident)
}

/// Three holders of one opened file: two children of the opener, and a grandchild.
pub(crate) fn family() -> Incident {
    let mut incident = race();
    let mut second = holder(4311, "demo");
    second.state = State::Forked;
    second.start_ns = Some(NOW - 60_000);
    second.forked.as_mut().unwrap().time_ns = NOW - 52_000;
    second.released.as_mut().unwrap().after_ns = 95_000;
    let mut third = second.clone();
    third.pid = 4315;
    third.start_ns = Some(NOW - 300_000);
    third.comm = some("make-tool");
    third.ppid = Some(4308);
    let forked = third.forked.as_mut().unwrap();
    (forked.pid, forked.tid, forked.comm) = (4308, 4308, some("sh"));
    forked.time_ns = NOW - 280_000;
    third.ancestors.insert(0, ancestor(4308, "sh"));
    third.released = Some(Released {
        how: How::Exit,
        time_ns: NOW + 260_000,
        after_ns: 260_000,
        exec: None,
        exec_b64: None,
    });
    third.uid = Some(0);
    third.fds.push(Fd { fd: 9, flags: list(&["O_WRONLY"]), cloexec: Some(false) });
    incident.holders.extend([second, third]);
    judged(incident)
}

/// A mapping that outlived its fd.
pub(crate) fn mapping() -> Incident {
    let mut incident = still_open();
    let holder = &mut incident.holders[0];
    holder.via = Via::Mapping;
    holder.fds.clear();
    holder.released.as_mut().unwrap().how = How::Unmap;
    holder.released.as_mut().unwrap().after_ns = 800_000;
    judged(incident)
}

/// The fd was sent to another process at an unknown time.
pub(crate) fn passed() -> Incident {
    let mut incident = race();
    let holder = &mut incident.holders[0];
    holder.comm = some("receiver");
    holder.via = Via::Passed;
    holder.state = State::Running;
    holder.forked = None;
    holder.start_ns = Some(NOW - 60_000_000_000);
    holder.ancestors.remove(0);
    holder.released.as_mut().unwrap().how = How::Close;
    holder.released.as_mut().unwrap().exec = None;
    judged(incident)
}

/// No process holds it, but a socket's queue does.
pub(crate) fn unheld() -> Incident {
    let mut incident = unexplained();
    let opened = race().holders[0].opened.clone();
    incident.unheld = vec![Unheld {
        place: Place::SocketQueue,
        device: None,
        mount: None,
        mount_b64: None,
        opened,
    }];
    judged(incident)
}

/// A program that has been running since an unknown time.
pub(crate) fn running_for_ever() -> Incident {
    let mut incident = write_direction();
    incident.holders[0].start_ns = None;
    judged(incident)
}

/// A race that is pending.
pub(crate) fn pending() -> Incident {
    let mut incident = race();
    incident.holders[0].state = State::Forked;
    incident.holders[0].released = None;
    judged(incident)
}

/// Lost records.
pub(crate) fn lost() -> Lost {
    Lost { kind: LossKind::RecordsRingFull, what: "ring buffer full".to_owned(), count: 3 }
}

/// Calls that are only counted.
pub(crate) fn refusal() -> Refusal {
    Refusal {
        time: "2026-11-20T14:03:07.000000000Z".to_owned(),
        time_ns: NOW,
        syscall: "fallocate".to_owned(),
        errno: "ETXTBSY".to_owned(),
        pid: 4320,
        comm: some("fallocate"),
        comm_b64: None,
        count: 2,
    }
}

/// The last line of a run with that many incidents, all but one complete.
pub(crate) fn summary(incidents: u64, by_verdict: &[(VerdictKind, u64)]) -> Summary {
    Summary {
        failures: incidents,
        incidents,
        explained: incidents.saturating_sub(1),
        unexplained: incidents.min(1),
        refusals: 0,
        elsewhere: 0,
        repaired: 0,
        execs: None,
        near_misses: 0,
        lost: 0,
        unexplained_by: [(Shortfall::WriterNotFound, 1)].into(),
        change_first: some("write the file in a child process"),
        by_verdict: by_verdict.iter().copied().collect(),
        duration_ns: 12_345_678_901,
        hunt: None,
    }
}

/// The same as [`every_line`], without near misses.
pub(crate) fn no_near_misses() -> Vec<Line> {
    every_line().into_iter().filter(|line| !matches!(line, Line::NearMiss(_))).collect()
}

/// A line of each type, and several kinds of incidents.
pub(crate) fn every_line() -> Vec<Line> {
    let mut lines = vec![meta().into()];
    let incidents = [race(), leaked(), still_open(), unexplained(), several(), write_direction()];
    lines.extend((1..).zip(incidents).map(|(id, mut incident)| {
        incident.id = id;
        incident.into()
    }));
    lines.push(Line::NearMiss(Box::new(near_miss())));
    lines.push(Line::Refusal(refusal()));
    lines.push(Line::Lost(lost()));
    lines.push(Line::Summary(summary(6, &[(VerdictKind::LeakedFd, 1)])));
    lines
}

/// Hostile strings: mostly control and format characters.
pub(crate) fn string() -> impl Strategy<Value = String> {
    let nasty = prop::sample::select(vec![
        '\n',
        '\r',
        '\t',
        '\x1b',
        '\x07',
        '\0',
        '\x7f',
        '\u{9b}',
        '\u{85}',
        '\u{202e}',
        '\u{2066}',
        '\u{200b}',
        '\u{200f}',
        '\u{2028}',
        '\u{feff}',
        '\u{301}',
        '\u{fe0f}',
        '\u{e0041}',
        '[',
        'm',
        '3',
        '/',
        '\\',
        ' ',
        '\'',
        '"',
        '家',
    ]);
    let c = prop_oneof![nasty, any::<char>(), prop::char::range(' ', '~')];
    // Sometimes as long as the longest path.
    let size = prop_oneof![100 => 0..60_usize, 1 => 3_900..4_100_usize];
    let chars = size.prop_flat_map(move |size| prop::collection::vec(c.clone(), size));
    chars.prop_map(|chars| chars.into_iter().collect())
}

/// The strings for [`with_strings`].
pub(crate) fn strings() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(string(), 7)
}

/// The texts of the frames of a stack.
fn of_frames(stack: &mut Option<Vec<Frame>>) -> impl Iterator<Item = &mut String> {
    let frames = stack.iter_mut().flatten();
    frames.flat_map(|frame| [&mut frame.function, &mut frame.file, &mut frame.module]).flatten()
}

/// The incident with its strings replaced by those of `strings`.
pub(crate) fn with_strings(incident: &Incident, strings: &[String]) -> Incident {
    let mut next = strings.iter().cycle().cloned();
    let mut incident = incident.clone();
    {
        let mut put = |place: &mut String| *place = next.next().unwrap();
        let Incident { time, syscall, errno, path, file, victim, holders, verdict, .. } =
            &mut incident;
        [time, syscall, errno, &mut verdict.summary]
            .into_iter()
            .chain(&mut verdict.advice)
            .chain(path)
            .chain(&mut file.path)
            .chain(&mut file.dev)
            .chain(&mut victim.comm)
            .chain(&mut victim.exe)
            .chain(victim.argv.iter_mut().flatten())
            .chain(&mut victim.cwd)
            .chain(&mut victim.cgroup)
            .chain(of_frames(&mut victim.stack))
            .for_each(&mut put);
        for holder in holders {
            let fds = holder.fds.iter_mut().flat_map(|fd| &mut fd.flags);
            fds.chain(&mut holder.comm)
                .chain(&mut holder.exe)
                .chain(holder.argv.iter_mut().flatten())
                .chain(&mut holder.cgroup)
                .for_each(&mut put);
            if let Some(opened) = &mut holder.opened {
                opened.comm.iter_mut().for_each(&mut put);
                opened.path.iter_mut().for_each(&mut put);
                of_frames(&mut opened.stack).for_each(&mut put);
            }
            if let Some(forked) = &mut holder.forked {
                forked.comm.iter_mut().for_each(&mut put);
                of_frames(&mut forked.stack).for_each(&mut put);
            }
            for ancestor in &mut holder.ancestors {
                ancestor.comm.iter_mut().for_each(&mut put);
                ancestor.exe.iter_mut().for_each(&mut put);
            }
            if let Some(released) = &mut holder.released {
                released.exec.iter_mut().for_each(&mut put);
            }
        }
    }
    judged(incident)
}

/// Whether a terminal shows `text` as it is: no control character but the newline, and no character
/// that changes the direction of text or is invisible.
pub(crate) fn harmless(text: &str) -> bool {
    !text.chars().any(|c| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{ad}' | '\u{61c}' | '\u{feff}' | '\u{180b}'..='\u{180f}')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff9}'..='\u{fffb}')
            || matches!(c, '\u{300}'..='\u{36f}' | '\u{e0000}'..='\u{e0fff}' | '\u{e000}'..='\u{f8ff}')
    })
}
