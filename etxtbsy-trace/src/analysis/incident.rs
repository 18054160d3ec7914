//! From a case to the incident that is written: names for numbers, and what else was seen of the
//! processes.

use std::rc::Rc;

use etxtbsy_trace_common::{Actor, Hold, How, Lineage, Stance, TextOf, Via};
use jiff::Timestamp;

use crate::{
    analysis::{
        attribution::{Attribution, Held, Suspect, Unheld},
        case::{Case, Pin, Runner},
        verdict,
    },
    event::{
        self, Ancestor, BusyFile, Context, Direction, Evidence, Fd, Forked, Holder, Incident,
        Opened, Place, Released, Repaired, Role, Shortfall, State, Victim,
        bytes::{maybe_text, text, texts},
    },
    host::{
        context::of_cgroup,
        process::{Facts, Seen, split_argv},
    },
    tracer::records::path_of,
};

/// How many ancestors of a holder are listed.
const ANCESTORS: usize = 32;

/// What building an incident needs to know of the world.
pub struct World<'a> {
    /// What was seen of the processes.
    pub seen: &'a Seen,
    /// Who forked a process, for those that inherited write fds.
    pub lineage: Box<dyn Fn(u32) -> Option<Lineage> + 'a>,
    /// The path of a cgroup of the v2 hierarchy, by the number that the kernel side reports.
    pub cgroup: Box<dyn Fn(u64) -> Option<String> + 'a>,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, in nanoseconds.
    pub realtime_offset_ns: i128,
    /// The roots of the traced trees; none for the whole machine.
    pub roots: &'a [u32],
    /// What the file to be executed begins with, if an interpreter was busy.
    pub target_begins: Option<Vec<u8>>,
}

/// A moment of CLOCK_MONOTONIC as RFC 3339 in UTC, with nanoseconds.
#[must_use]
pub fn rfc3339(realtime_offset_ns: i128, time_ns: u64) -> String {
    Timestamp::from_nanosecond(realtime_offset_ns + i128::from(time_ns))
        .map_or_else(|_| String::new(), |time| format!("{time:.9}"))
}

/// Builds the incident of a case, given who held the file.
#[must_use]
pub fn build(id: u64, case: &Case, attribution: &Attribution, world: &World<'_>) -> Incident {
    let failure = &case.failure;
    let (path, path_b64) = maybe_text(case.text(TextOf::Path));
    let mut holders: Vec<Holder> = match &case.running {
        Some(running) => {
            running.runners.iter().map(|runner| running_holder(runner, case, world)).collect()
        }
        None => attribution.holders.iter().map(|held| holder(held, case, world)).collect(),
    };
    // A process that wants to write what it runs itself comes first.
    let is_other = |holder: &Holder| case.is_write() && holder.pid != failure.tgid;
    holders.sort_by_key(|holder| (is_other(holder), verdict::blame(holder)));
    let (explained, complete) = match (&case.running, case.is_write()) {
        _ if case.refused_by().is_some() => (1, true),
        (Some(running), _) => {
            let kept = u32::try_from(case.pins.len()).unwrap_or(u32::MAX);
            let found = running.explained + kept;
            let count = running.count.map(i32::unsigned_abs);
            // Whoever ran it was gone before it was counted; a swap file is not in the count.
            let whole = count.map_or(kept > 0, |count| found >= count);
            (count.map_or(found, |count| found.min(count)), found > 0 && whole)
        }
        (None, true) => (0, false),
        (None, false) => (attribution.explained, attribution.is_complete()),
    };
    let kept = case.pins.iter().filter(|_| case.is_write() || case.refused_by().is_some());
    let kept = kept.map(|pin| Unheld { hold: Hold::default(), pin: pin.clone() });
    let unheld_by: Vec<Unheld> = attribution.unheld.iter().cloned().chain(kept).collect();
    // That no process runs the file was found out a moment later.
    let certain = match (case.is_write(), case.refused_by()) {
        (true, Some(_)) => false,
        (true, None) | (false, Some(_)) => complete,
        (false, None) => complete && attribution.is_certain(),
    };
    let mut incident = Incident {
        id,
        time: rfc3339(world.realtime_offset_ns, failure.exit_ns),
        time_ns: failure.exit_ns,
        direction: if case.is_write() { Direction::Write } else { Direction::Exec },
        syscall: syscall(failure.syscall),
        errno: "ETXTBSY".to_owned(),
        path,
        path_b64,
        file: busy_file(case, attribution.writers, world),
        victim: victim(case, world),
        holders,
        unheld: unheld_by.iter().map(|one| unheld(one, case, world)).collect(),
        suspects: attribution.suspects.iter().map(suspect).collect(),
        explained,
        complete,
        certain,
        repaired: case.repaired.map(|repaired| Repaired {
            time_ns: repaired.time_ns,
            after_ns: repaired.time_ns.cast_signed() - failure.exit_ns.cast_signed(),
            ino: repaired.ino,
        }),
        left_out: None,
        run: None,
        verdict: verdict::unexplained(Direction::Exec),
    };
    incident.verdict = verdict::of_traced(&incident, world.roots);
    incident
}

/// Why an incident is not complete, if it is not.
#[must_use]
pub fn shortfall(case: &Case, incident: &Incident) -> Option<Shortfall> {
    let file_known = case.running.is_some() || case.failure.inode != 0;
    match incident.direction {
        _ if incident.complete => None,
        _ if !file_known => Some(Shortfall::FileNotFound),
        _ if case.lost => Some(Shortfall::RecordsLost),
        Direction::Write => Some(Shortfall::RunnerNotFound),
        Direction::Exec if incident.unheld.iter().any(|one| one.place == Place::Unknown) => {
            Some(Shortfall::HeldByNoProcess)
        }
        Direction::Exec if incident.file.writers.is_none() => Some(Shortfall::Ambiguous),
        Direction::Exec | Direction::Other(_) => Some(Shortfall::WriterNotFound),
    }
}

/// The name of a system call.
pub(crate) fn syscall(number: i32) -> String {
    let known = usize::try_from(number).ok().and_then(syscalls::Sysno::new);
    known.map_or_else(|| format!("syscall_{number}"), |known| known.name().to_owned())
}

pub(super) fn busy_file(case: &Case, writers: Option<u32>, world: &World<'_>) -> BusyFile {
    let failure = &case.failure;
    if let Some(running) = &case.running {
        let (path, path_b64) = text(&running.path);
        return BusyFile {
            path: Some(path),
            path_b64,
            dev: Some(dev(running.dev)),
            ino: Some(running.ino),
            generation: case.refused.map(|refused| refused.generation),
            role: None,
            writers: running.count,
        };
    }
    if let Some(found) = case.refused_by() {
        let (path, path_b64) = text(&found.path);
        return BusyFile {
            path: Some(path),
            path_b64,
            dev: Some(dev(found.dev)),
            ino: None,
            generation: None,
            role: (!case.is_write()).then_some(Role::Target),
            writers: None,
        };
    }
    let known = failure.inode != 0;
    let (path, path_b64) = maybe_text(case.text(TextOf::BusyFile).map(path_of).as_deref());
    let role = match (failure.opened, world.target_begins.as_deref()) {
        (1, _) => Some(Role::Target),
        (_, Some(begin)) if begin.starts_with(b"#!") => Some(Role::ScriptInterpreter),
        (_, Some(begin)) if begin.starts_with(b"\x7fELF") => Some(Role::ElfInterpreter),
        _ => None,
    };
    BusyFile {
        path,
        path_b64,
        dev: known.then(|| dev(failure.dev)),
        ino: known.then_some(failure.ino),
        generation: known.then_some(failure.generation),
        role,
        writers: writers.map(u32::cast_signed),
    }
}

/// MAJOR and MINOR of the kernel's `dev_t`, include/linux/kdev_t.h.
fn dev(dev: u32) -> String {
    format!("{}:{}", dev >> 20, dev & 0xf_ffff)
}

/// A name of at most 16 bytes, NUL padded; `None` if nobody saw it.
pub(crate) fn comm(bytes: &[u8]) -> Option<&[u8]> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    (end > 0).then(|| &bytes[..end])
}

/// A pid as the kernel side reports it; `None` if there is none.
fn pid(pid: u32) -> Option<u32> {
    (pid != 0).then_some(pid)
}

/// A process's pid in our namespace: as the kernel reported it, or as /proc had it.
fn local_pid(reported: Option<&etxtbsy_trace_common::Holder>, seen: Option<&Facts>) -> Option<u32> {
    reported.and_then(|holder| pid(holder.local_pid)).or(seen.map(|facts| facts.local_pid))
}

/// The cgroup that a process was in at the failure, by its number; else the one that /proc shows later of the first of
/// two processes that can be seen.
fn cgroup(number: u64, seen: [Option<&Rc<Facts>>; 2], world: &World<'_>) -> Option<String> {
    let later = || seen.into_iter().flatten().find_map(|facts| facts.cgroup.clone());
    (world.cgroup)(number).or_else(later)
}

/// What processes say of the work they belong to, the nearest first: each of `pids`, then its ancestors. The container is
/// that of the nearest alone, for a process in none may descend from one in a container: that of `cgroup`, the first's, if
/// it is known.
fn context(pids: &[u32], cgroup: Option<&str>, world: &World<'_>) -> Option<Context> {
    let mut context = Context::default();
    let mut is_placed = cgroup.is_some();
    if let Some(cgroup) = cgroup {
        (context.container, context.pod) = of_cgroup(cgroup);
    }
    for pid in pids {
        // In a circle of pids that were used again, it ends as well.
        let mut next = world.seen.get(pid);
        for _ in 0..world.seen.len() {
            let Some(facts) = next else { break };
            let Context { test, job, container, pod } = &facts.context;
            context.test = context.test.or_else(|| test.clone());
            context.job = context.job.or_else(|| job.clone());
            if !is_placed && facts.cgroup.is_some() {
                (context.container, context.pod) = (container.clone(), pod.clone());
                is_placed = true;
            }
            next = world.seen.get(&facts.ppid);
        }
    }
    (!context.is_empty()).then_some(context)
}

pub(super) fn victim(case: &Case, world: &World<'_>) -> Victim {
    let failure = &case.failure;
    let seen = world.seen.get(&failure.tgid);
    let (comm, comm_b64) = maybe_text(comm(&failure.comm));
    let (exe, exe_b64) = maybe_text(case.text(TextOf::VictimExe).map(path_of).as_deref());
    let (cwd, cwd_b64) = maybe_text(case.text(TextOf::VictimCwd).map(path_of).as_deref());
    let (argv, argv_b64) = arguments(case.text(TextOf::VictimArgv).map(split_argv).as_deref());
    // A child that fails to exec is gone before anyone looks; it is where its parent is, as a rule.
    let cgroup = cgroup(failure.cgroup, [seen, world.seen.get(&failure.ppid)], world);
    let context = context(&[failure.tgid, failure.ppid], cgroup.as_deref(), world);
    Victim {
        pid: failure.tgid,
        tid: failure.tid,
        ppid: Some(failure.ppid),
        comm,
        comm_b64,
        exe,
        exe_b64,
        argv,
        argv_b64,
        cwd,
        cwd_b64,
        uid: Some(failure.uid),
        cgroup,
        context,
        ns_pid: pid(failure.ns_pid),
        local_pid: pid(failure.local_pid),
        ancestors: ancestors(Some(failure.tgid), failure.ppid, None, case, world),
        stack: None,
        frames_unknown: None,
    }
}

fn arguments(argv: Option<&[Vec<u8>]>) -> (Option<Vec<String>>, Option<Vec<Option<String>>>) {
    match argv.map(texts) {
        Some((lossy, exact)) => (Some(lossy), exact),
        None => (None, None),
    }
}

pub(super) fn holder(held: &Held, case: &Case, world: &World<'_>) -> Holder {
    // What was read after its end is perhaps of another that got its pid.
    let ended_ns = held.released.filter(|(how, _)| *how == How::Exit).map(|(_, time_ns)| time_ns);
    let seen = world
        .seen
        .get(&held.tgid)
        .filter(|facts| ended_ns.is_none_or(|ended_ns| facts.seen_ns <= ended_ns));
    // A child that has not exec'd is a copy of its parent.
    let origin = held.forked.filter(|_| !held.execed && held.state != State::ExecClosing).and_then(
        |forked| world.seen.get(&forked.tgid).filter(|facts| facts.is_of(forked.time_ns)),
    );
    let image = origin.or(seen.filter(|facts| facts.is_of(case.failure.exit_ns)));
    let kernel_comm = held.seen.as_ref().and_then(|seen| comm(&seen.comm));
    let (name, comm_b64) = maybe_text(
        kernel_comm
            .or_else(|| seen.map(|facts| facts.comm.as_slice()))
            .or_else(|| held.forked.as_ref().and_then(|forked| comm(&forked.comm))),
    );
    let exe = case
        .exes
        .get(&held.tgid)
        .map(|names| path_of(names))
        .or_else(|| image.and_then(|facts| facts.exe.clone()));
    let (exe, exe_b64) = maybe_text(exe.as_deref());
    let (argv, argv_b64) = arguments(image.and_then(|facts| facts.argv.as_deref()));
    let (path, path_b64) = maybe_text(
        case.files
            .get(&held.tgid)
            .map(|names| path_of(names))
            .as_deref()
            .or(case.text(TextOf::BusyFile).map(path_of).as_deref()),
    );
    let number = held.seen.map_or(0, |seen| seen.cgroup);
    let cgroup = cgroup(number, [seen, origin], world);
    let forker = held.forked.map_or(0, |forked| forked.tgid);
    let context = context(&[held.tgid, forker, held.ppid], cgroup.as_deref(), world);
    Holder {
        pid: held.tgid,
        ppid: (held.ppid != 0).then_some(held.ppid),
        comm: name,
        comm_b64,
        exe,
        exe_b64,
        argv,
        argv_b64,
        uid: held.seen.map(|seen| seen.uid),
        cgroup,
        context,
        ns_pid: held.seen.and_then(|seen| pid(seen.ns_pid)),
        local_pid: local_pid(held.seen.as_ref(), seen.map(Rc::as_ref)),
        start_ns: Some(held.start_ns),
        exec_ns: None,
        script: None,
        script_b64: None,
        fds: held
            .fds
            .iter()
            .map(|fd| Fd {
                fd: fd.fd,
                flags: flags(fd.flags, fd.cloexec),
                // An exec takes no other fds away.
                cloexec: fd
                    .cloexec
                    .or(held.released.filter(|(how, _)| *how == How::CloseOnExec).map(|_| true)),
            })
            .collect(),
        via: match held.via {
            Via::Open => event::Via::Open,
            Via::Fork => event::Via::Fork,
            Via::Dup => event::Via::Dup,
            Via::Passed => event::Via::Passed,
            Via::Mapping => event::Via::Mapping,
            Via::Unknown => event::Via::Unknown,
        },
        evidence: Some(held.evidence),
        call: held.call.map(syscall),
        state: held.state,
        opened: held.opened.map(|actor| opened(actor, held.closed_ns, path, path_b64, case, world)),
        forked: held.forked.filter(|_| held.via == Via::Fork).map(|actor| {
            let (comm, comm_b64) = maybe_text(comm(&actor.comm));
            Forked {
                pid: actor.tgid,
                tid: actor.tid,
                comm,
                comm_b64,
                time_ns: actor.time_ns,
                stack: None,
                frames_unknown: None,
            }
        }),
        ancestors: match held.forked {
            Some(forked) => ancestors(Some(held.tgid), forked.tgid, Some(forked), case, world),
            None => ancestors(None, held.ppid, None, case, world),
        },
        released: held.released.map(|(how, time_ns)| {
            let exec = case.execs.get(&held.tgid).filter(|_| how == How::CloseOnExec);
            released(how, time_ns, exec.map(Vec::as_slice), case)
        }),
    }
}

/// Who opened a file by which path.
fn opened(
    actor: Actor,
    closed_ns: Option<u64>,
    path: Option<String>,
    path_b64: Option<String>,
    case: &Case,
    world: &World<'_>,
) -> Opened {
    let seen = world.seen.get(&actor.tgid).filter(|facts| facts.is_of(actor.time_ns));
    let ended = case.runtimes.get(&actor.tgid);
    let (comm, comm_b64) = maybe_text(comm(&actor.comm));
    Opened {
        pid: actor.tgid,
        tid: actor.tid,
        comm,
        comm_b64,
        time_ns: actor.time_ns,
        closed_ns,
        runtime: seen.and_then(|facts| facts.runtime).or_else(|| ended.copied()),
        context: context(&[actor.tgid], None, world),
        path,
        path_b64,
        stack: None,
        frames_unknown: None,
    }
}

/// A description that was open and that no process held.
fn unheld(one: &Unheld, case: &Case, world: &World<'_>) -> event::Unheld {
    let (place, device) = match &one.pin {
        Pin::LoopDevice(device) => (Place::LoopDevice, Some(device.clone())),
        Pin::SocketQueue => (Place::SocketQueue, None),
        Pin::SwapFile => (Place::SwapFile, None),
        Pin::BinfmtMisc(entry) => (Place::BinfmtMisc, Some(entry.clone())),
        Pin::FileSystem(found) => (Place::FileSystem, Some(found.kind.clone())),
        Pin::Unknown => (Place::Unknown, None),
    };
    let (mount, mount_b64) = match &one.pin {
        Pin::FileSystem(found) => maybe_text(Some(&found.mount)),
        _ => (None, None),
    };
    let (path, path_b64) = maybe_text(case.text(TextOf::BusyFile).map(path_of).as_deref());
    let opener = one.hold.opened;
    let closed_ns = (one.hold.via() == Some(Via::Open))
        .then_some(one.hold.released_ns)
        .filter(|closed_ns| *closed_ns != 0);
    event::Unheld {
        place,
        device,
        mount,
        mount_b64,
        opened: (opener.time_ns != 0)
            .then(|| opened(opener, closed_ns, path, path_b64, case, world)),
    }
}

/// A process that may have held the file.
fn suspect(suspect: &Suspect) -> event::Suspect {
    let (comm, comm_b64) = maybe_text(suspect.seen.as_ref().and_then(|seen| comm(&seen.comm)));
    event::Suspect { pid: suspect.tgid, comm, comm_b64, reason: suspect.reason }
}

/// The parent of a process, as it was at the failure.
fn parent(pid: u32, case: &Case) -> Option<u32> {
    let chains = case
        .candidates
        .iter()
        .map(|candidate| (candidate.hold.tgid, candidate.hold.ppid, candidate.holder.above));
    chains
        .chain(case.named.iter().map(|runner| (runner.tgid, runner.ppid, runner.holder.above)))
        .find_map(|(tgid, ppid, above)| {
            if tgid == pid {
                return Some(ppid);
            }
            let at = above.iter().position(|other| *other == pid)?;
            above.get(at + 1).copied()
        })
        .filter(|ppid| *ppid != 0)
}

/// A process that runs the file which refused to be written.
fn running_holder(runner: &Runner, case: &Case, world: &World<'_>) -> Holder {
    // What was read after its end is perhaps of another that got its pid.
    let seen = world
        .seen
        .get(&runner.tgid)
        .filter(|facts| runner.left.is_none_or(|(_, left_ns)| facts.seen_ns <= left_ns));
    let shown = runner.shown.as_ref();
    let name = shown.and_then(|shown| comm(&shown.holder.comm));
    let (name, comm_b64) = maybe_text(name.or_else(|| seen.map(|facts| facts.comm.as_slice())));
    let exe = case.exes.get(&runner.tgid).map(|names| path_of(names));
    let (exe, exe_b64) =
        maybe_text(exe.or_else(|| seen.and_then(|facts| facts.exe.clone())).as_deref());
    let (argv, argv_b64) = arguments(seen.and_then(|facts| facts.argv.as_deref()));
    let ppid = shown.map(|shown| shown.ppid).or_else(|| seen.map(|facts| facts.ppid));
    let (script, script_b64) = maybe_text(runner.script.as_deref());
    let number = shown.map_or(0, |shown| shown.holder.cgroup);
    let cgroup = cgroup(number, [seen, None], world);
    let context = context(&[runner.tgid, ppid.unwrap_or(0)], cgroup.as_deref(), world);
    Holder {
        pid: runner.tgid,
        ppid,
        comm: name,
        comm_b64,
        exe,
        exe_b64,
        argv,
        argv_b64,
        uid: shown.map(|shown| shown.holder.uid),
        cgroup,
        context,
        ns_pid: shown.and_then(|shown| pid(shown.holder.ns_pid)),
        local_pid: local_pid(shown.map(|shown| &shown.holder), seen.map(Rc::as_ref)),
        start_ns: shown.map(|shown| shown.start_ns),
        exec_ns: shown.map(|shown| shown.exec_ns).filter(|exec_ns| *exec_ns != 0),
        script,
        script_b64,
        fds: Vec::new(),
        via: event::Via::Running,
        evidence: Some(Evidence::Running),
        call: None,
        state: match shown.and_then(etxtbsy_trace_common::Runner::stance) {
            Some(Stance::InExec) => State::InExec,
            Some(Stance::Exiting) => State::Exiting,
            Some(Stance::Forked) => State::Forked,
            Some(Stance::Runs) | None => State::Running,
        },
        opened: None,
        forked: None,
        ancestors: ancestors(None, ppid.unwrap_or(0), None, case, world),
        released: runner.left.map(|(how, time_ns)| released(how, time_ns, None, case)),
    }
}

/// How a holder dropped the file; `exec` is what it exec'd.
fn released(how: How, time_ns: u64, exec: Option<&[u8]>, case: &Case) -> Released {
    let (exec, exec_b64) = maybe_text(exec);
    Released {
        how: match how {
            How::CloseOnExec => event::How::CloseOnExec,
            How::Dup => event::How::Dup,
            How::Exit => event::How::Exit,
            How::Unmap => event::How::Unmap,
            How::Exec => event::How::Exec,
            How::Close | How::CloseRange => event::How::Close,
            How::None => event::How::Unknown,
        },
        time_ns,
        after_ns: time_ns.cast_signed() - case.failure.exit_ns.cast_signed(),
        exec,
        exec_b64,
    }
}

/// The chain upwards from a holder: by what /proc says of those that live, and by who forked them
/// for those that have ended. It begins with `pid`, which is the forker of `below` if that is
/// known.
fn ancestors(
    below: Option<u32>,
    mut pid: u32,
    mut forker: Option<Actor>,
    case: &Case,
    world: &World<'_>,
) -> Vec<Ancestor> {
    let mut list = Vec::new();
    // How the one before came to be.
    let mut link = below.and_then(|below| (world.lineage)(below));
    while pid != 0 && list.len() < ANCESTORS {
        let seen = world.seen.get(&pid);
        let name = seen
            .map(|facts| facts.comm.as_slice())
            .or_else(|| forker.as_ref().and_then(|actor| comm(&actor.comm)));
        let (comm, comm_b64) = maybe_text(name);
        let (exe, exe_b64) = maybe_text(seen.and_then(|facts| facts.exe.as_deref()));
        list.push(Ancestor { pid, comm, comm_b64, exe, exe_b64 });
        // The one that forked it, rather than the one it was given to when that ended.
        // A pid that was used again is that of a process which started after it had forked this one.
        let by = forker.map_or(u64::MAX, |actor| actor.time_ns);
        let lineage = (world.lineage)(pid).filter(|lineage| lineage.start_ns <= by);
        let above = link.filter(|link| link.forker.tgid == pid).map(|link| link.ppid);
        link = lineage;
        forker = lineage.map(|lineage| lineage.forker);
        pid = match (forker, seen) {
            (Some(forker), _) => forker.tgid,
            (None, Some(facts)) if facts.ppid != 0 => facts.ppid,
            // It has ended, or its parent cannot be seen from here; when it forked the one below, this
            // was its parent.
            (None, _) if above.is_some() => above.unwrap_or(0),
            // It was seen above a holder.
            (None, _) => parent(pid, case).unwrap_or(0),
        };
    }
    list
}

/// The names of open flags, access mode first.
fn flags(flags: u32, cloexec: Option<bool>) -> Vec<String> {
    let flags = flags.cast_signed();
    // f_flags keeps the O_CLOEXEC of the open, which F_SETFD may have changed since.
    let cloexec = cloexec.unwrap_or(flags & libc::O_CLOEXEC != 0);
    let access = match flags & libc::O_ACCMODE {
        libc::O_WRONLY => "O_WRONLY",
        libc::O_RDWR => "O_RDWR",
        _ => "O_RDONLY",
    };
    // The kernel drops O_CREAT, O_EXCL, O_NOCTTY and O_TRUNC from f_flags once the open is done
    // (do_dentry_open, fs/open.c).
    let rest = [
        (libc::O_APPEND, "O_APPEND"),
        (libc::O_NONBLOCK, "O_NONBLOCK"),
        (libc::O_SYNC, "O_SYNC"),
        (libc::O_DIRECT, "O_DIRECT"),
        (libc::O_NOATIME, "O_NOATIME"),
        (libc::O_TMPFILE, "O_TMPFILE"),
    ];
    let mut names = vec![access.to_owned()];
    names.extend(
        rest.iter().filter(|(bits, _)| flags & bits == *bits).map(|(_, name)| (*name).to_owned()),
    );
    if cloexec {
        names.push("O_CLOEXEC".to_owned());
    }
    names
}
