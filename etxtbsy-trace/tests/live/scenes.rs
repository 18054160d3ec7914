//! The scenes: one failure each, with known pids, threads and fds.

use crate::support::{Attached, BINARY, Ended, Process, Trace, Turn};
use etxtbsy_trace::event::{
    self, Direction, Fd, Incident, LossKind, Opened, Place, State, VerdictKind, Via,
};
use etxtbsy_trace::tracer::{
    features::{self, RingCompletion},
    layout::{Kernel, running_kernel},
};
use etxtbsy_workload::{Holder, Scene, Storm, Task, UNSUPPORTED};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use test_support::{skip, skipped};

macro_rules! scenes {
    ($($test:ident: $name:literal,)*) => {$(
        #[test]
        fn $test() {
            run_scene($name);
        }
    )*};
}

scenes! {
    still_open: "still-open",
    between_fork_and_exec: "between-fork-and-exec",
    fork_in_progress: "fork-in-progress",
    leaked_daemon: "leaked-daemon",
    several_holders: "several-holders",
    by_symlink: "by-symlink",
    by_relative_path: "by-relative-path",
    execveat_empty_path: "execveat-empty-path",
    proc_self_fd: "proc-self-fd",
    passed_fd_forked_on: "passed-fd-forked-on",
    dup: "dup",
    dup2: "dup2",
    dup3: "dup3",
    fcntl_dupfd: "fcntl-dupfd",
    openat2: "openat2",
    creat: "creat",
    open_by_handle_at: "open-by-handle-at",
    tmpfs: "tmpfs",
    overlay: "overlay",
    unlinked: "unlinked",
    hard_link: "hard-link",
    memfd: "memfd",
    leader_gone: "leader-gone",
    vfork_child: "vfork-child",
    posix_spawn_child: "posix-spawn-child",
    released_by_close_range: "released-by-close-range",
    released_by_dup2: "released-by-dup2",
    released_by_exit: "released-by-exit",
    released_by_kill: "released-by-kill",
    released_by_exec: "released-by-exec",
    passed_fd: "passed-fd",
    passed_fd_opener_gone: "passed-fd-opener-gone",
    pidfd_getfd: "pidfd-getfd",
    in_flight_fd: "in-flight-fd",
    in_flight_fd_used_again: "in-flight-fd-used-again",
    io_uring_open: "io-uring-open",
    io_uring_open_worker: "io-uring-open-worker",
    io_uring_registered: "io-uring-registered",
    shared_mapping: "shared-mapping",
    private_mapping: "private-mapping",
    mapping_until_exit: "mapping-until-exit",
    overlay_upper: "overlay-upper",
    unshared_table: "unshared-table",
    unshared_table_thread_ends: "unshared-table-thread-ends",
    shared_table: "shared-table",
    shared_table_opener_gone: "shared-table-opener-gone",
    blocked_in_syscall: "blocked-in-syscall",
    other_namespaces: "other-namespaces",
    open_running: "open-running",
    open_trunc_running: "open-trunc-running",
    open_running_at: "open-running-at",
    creat_running: "creat-running",
    truncate_running: "truncate-running",
    running_twice: "running-twice",
    running_forked: "running-forked",
    running_in_exec: "running-in-exec",
    running_before_exec: "running-before-exec",
    running_exiting: "running-exiting",
    running_execs: "running-execs",
    running_late: "running-late",
    running_link_moved: "running-link-moved",
    io_uring_open_running: "io-uring-open-running",
    reused_fd: "reused-fd",
    reused_inode: "reused-inode",
    reused_description: "reused-description",
    one_description_two: "one-description-two",
    born_later: "born-later",
    nine_in_queue: "nine-in-queue",
    thread_names: "thread-names",
    io_uring_direct: "io-uring-direct",
    dumping_core: "dumping-core",
    binfmt_script: "binfmt-script",
    binfmt_elf: "binfmt-elf",
    closing_flushes: "closing-flushes",
    loop_device: "loop-device",
}

/// Traces a scene, and asserts that only its holders are named; `None` if the scene is not possible
/// here.
fn named_only(name: &str) -> Option<(Scene, Incident)> {
    let turn = Turn::take_as_root()?;
    let (ended, mut trace) = turn.run(&[], &[BINARY, "workload", name]);
    if is_unsupported(&ended) {
        return None;
    }
    let scene: Scene = ended.report();
    let [incident] = &trace.incidents[..] else { panic!("not one: {:#?}", trace.incidents) };
    assert_eq!(incident.file.ino, Some(scene.ino));
    assert_eq!(incident.file.writers, Some(scene.writers), "{incident:#?}");
    let known = |pid| scene.holders.iter().find(|known| known.pid == pid);
    for holder in &incident.holders {
        let known = known(holder.pid).unwrap_or_else(|| panic!("{}: {incident:#?}", holder.pid));
        assert_how_known(known, holder);
        assert_eq!(numbers(&holder.fds), known.fds, "{holder:#?}");
    }
    Some((scene, trace.incidents.remove(0)))
}

/// Asserts that only the process that waits in a call is named, or none; never one that exec'd before.
fn names_only_the_waiting_process(name: &str) {
    let Some((_, incident)) = named_only(name) else { return };
    if incident.holders.is_empty() {
        assert!(!incident.complete && !incident.certain, "{incident:#?}");
        assert_eq!(incident.verdict.kind, VerdictKind::Unexplained, "{incident:#?}");
    }
}

/// All holders are named, or the incident is not complete.
#[test]
fn many_holders() {
    let Some((scene, incident)) = named_only("many-holders") else { return };
    let named = incident.holders.len();
    assert_eq!(incident.complete, named == scene.holders.len(), "{named}: {incident:#?}");
}

#[test]
fn open_under_way() {
    names_only_the_waiting_process("open-under-way");
}

#[test]
fn truncate_under_way() {
    names_only_the_waiting_process("truncate-under-way");
}

/// The release by the end of the request has no word of its own.
#[test]
fn io_uring_request() {
    let Some((_, incident)) = named_only("io-uring-request") else { return };
    let [holder] = &incident.holders[..] else { panic!("{incident:#?}") };
    assert!(holder.released.is_some() && incident.complete, "{incident:#?}");
}

/// The holder shares an fd table with an opener that has exited. Its parent does not have that table.
#[test]
fn shared_table_opener_dead() {
    let Some((scene, incident)) = named_only("shared-table-opener-dead") else { return };
    let [holder] = &incident.holders[..] else { panic!("{incident:#?}") };
    assert!(holder.via != Via::Fork && holder.forked.is_none(), "{holder:#?}");
    assert_eq!(task(holder.opened.as_ref()), scene.holders[0].opened, "{holder:#?}");
    assert!(incident.complete, "{incident:#?}");
}

/// A waiting 32-bit program, so that the tracer follows 32-bit system calls from the start; `None` if
/// 32-bit programs are not possible here.
fn waiting_in_32_bits() -> Option<Process> {
    let waiting = Process::start(Command::new(BINARY).args(["workload", "wait-in-32-bits"]));
    if waiting.says("ready") {
        return Some(waiting);
    }
    let ended = waiting.wait();
    assert_eq!(ended.code, Some(UNSUPPORTED.into()), "{}", ended.stderr);
    skip!("{}", ended.stderr)
}

/// These scenes make 32-bit system calls by `int $0x80`, which the tracer follows while a 32-bit program
/// runs.
#[test]
fn compat() {
    let Some(turn) = Turn::take_as_root() else { return };
    for name in [
        "compat-open",
        "compat-exec",
        "compat-exec-passed",
        "compat-open-running",
        "compat-openat-running",
        "compat-creat-running",
        "compat-truncate-running",
        "compat-truncate64-running",
    ] {
        // A new program for each scene, because test processes have a time limit.
        let Some(mut waiting) = waiting_in_32_bits() else { return };
        let (scene, trace) = turn.workload(&[name]);
        assert_reported(&scene, &trace);
        waiting.say_go();
        assert_eq!(waiting.wait().code, Some(0));
    }
}

/// Each failure of a 32-bit program is reported, or its program is counted as one that was not
/// followed from its start.
#[test]
fn compat_failures_before_the_tracer_follows_are_counted() {
    let Some(turn) = Turn::take_as_root() else { return };
    for call in ["exec", "open", "int80"] {
        let (ended, trace) = turn.run(&[], &[BINARY, "workload", "fail-in-32-bits", call]);
        if is_unsupported(&ended) {
            return;
        }
        // The eBPF programs for 32-bit calls are loaded only when needed.
        assert!(!ended.stderr.contains("WARN"), "{}", ended.stderr);
        let storm: Storm = ended.report();
        // The kernel can skip programs, and counts them.
        let unfollowed =
            trace.lost_of(LossKind::CompatUnfollowed) + trace.lost_of(LossKind::ProgramsSkipped);
        let reported = trace.incidents.len() as u64;
        eprintln!("{call}: {reported} reported, {unfollowed} not followed in {} s", storm.seconds);
        assert!(reported + unfollowed >= storm.failures, "{reported} + {unfollowed}: {storm:?}");
        assert_kept_up(&storm, &trace);
    }
}

/// Once the tracer follows 32-bit calls, each failure is reported with its holder.
#[test]
fn compat_failures_are_reported_once_the_tracer_follows() {
    let Some(turn) = Turn::take_as_root() else { return };
    for call in ["exec", "open", "int80"] {
        let Some(mut waiting) = waiting_in_32_bits() else { return };
        let (storm, trace): (Storm, _) = turn.workload(&["fail-in-32-bits", call]);
        assert_eq!(trace.lost_of(LossKind::CompatUnfollowed), 0, "{:?}", trace.lost);
        // The kernel can skip programs, and counts them.
        let (reported, skipped) =
            (trace.incidents.len() as u64, trace.lost_of(LossKind::ProgramsSkipped));
        let least = storm.failures.saturating_sub(skipped);
        assert!((least..=storm.failures).contains(&reported), "{reported}: {:?}", trace.lost);
        assert_kept_up(&storm, &trace);
        for incident in &trace.incidents {
            let holders: Vec<_> = incident.holders.iter().map(|holder| holder.pid).collect();
            if call == "open" {
                assert_eq!(incident.syscall, "open");
                // The file and the runner can be gone before user space looks.
                assert!(
                    incident.file.path.is_none() || holders.contains(&incident.victim.pid),
                    "{incident:#?}"
                );
            } else {
                assert_eq!(incident.syscall, "execve");
                assert_eq!(incident.path.as_deref(), storm.path.to_str());
                // Incidents that need the search for 32-bit calls are incomplete until it is loaded.
                assert!(holders.contains(&storm.pid), "{incident:#?}");
            }
        }
        waiting.say_go();
        assert_eq!(waiting.wait().code, Some(0));
    }
}

/// Asserts that reports about 32-bit calls name the busy file, if it still existed.
fn assert_kept_up(storm: &Storm, trace: &Trace) {
    let dir = storm.path.parent().unwrap();
    for incident in &trace.incidents {
        let file = incident.file.path.as_deref().map(Path::new);
        assert!(file.is_none_or(|file| file.parent() == Some(dir)), "{incident:#?}");
    }
}

/// Whether the scene is not possible here; the test is then skipped.
fn is_unsupported(ended: &Ended) -> bool {
    let is = ended.code == Some(UNSUPPORTED.into());
    if is {
        // The tracer also writes to stderr.
        let why = ended.stderr.lines().find_map(|line| line.split_once("not possible here: "));
        skipped(why.map_or(&*ended.stderr, |(_, why)| why));
    }
    is
}

/// A process that runs a script's interpreter is named with the script.
#[test]
fn running_interpreter() {
    let Some(turn) = Turn::take_as_root() else { return };
    let (scene, trace): (Scene, _) = turn.workload(&["running-interpreter"]);
    assert_reported(&scene, &trace);
    let script = scene.busy.with_file_name("script");
    let said = trace.incidents[0].holders[0].script.as_deref().map(Path::new);
    assert_eq!(said, Some(script.as_path()));
}

/// The file that the same process creates again is reported, and the refused file is the old one.
#[test]
fn running_replaced() {
    let Some(turn) = Turn::take_as_root() else { return };
    let (scene, trace): (Scene, _) = turn.workload(&["running-replaced"]);
    assert_reported(&scene, &trace);
    let repaired = trace.incidents[0].repaired.expect("repaired");
    assert!(repaired.after_ns > 0 && repaired.ino != scene.ino, "{repaired:?}");
    assert_eq!(trace.summary.repaired, 1);
}

/// Runs commands in a shell while a copy of sleep runs as `svc`.
fn while_svc_runs(turn: &Turn, commands: &str) -> (Ended, Trace) {
    let dir = turn.dir.path().display();
    // The shell waits until its exec is complete.
    let script = format!(
        "cd {dir} && rm -f svc && cp /bin/sleep svc && {{ ./svc 60 & p=$!; }} && \
         until [ \"$(readlink /proc/$p/exe)\" = \"$PWD/svc\" ]; do :; done; \
         {commands}; r=$?; kill $p; wait $p; exit $r"
    );
    turn.run(&["--error-exitcode", "9"], &["/bin/sh", "-c", &script])
}

/// `cp -f` replaces the file after the failure, so there is nothing to fix; plain `cp` does not.
#[test]
fn a_repaired_incident_does_not_count_for_the_error_exitcode() {
    let Some(turn) = Turn::take_as_root() else { return };
    let (ended, trace) = while_svc_runs(&turn, "cp -f /bin/true svc");
    let [incident] = &trace.incidents[..] else { panic!("not one: {:#?}", trace.incidents) };
    assert!(incident.complete && incident.repaired.is_some(), "{incident:#?}");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let (ended, trace) = while_svc_runs(&turn, "cp /bin/true svc || true");
    let [incident] = &trace.incidents[..] else { panic!("not one: {:#?}", trace.incidents) };
    assert!(incident.complete && incident.repaired.is_none(), "{incident:#?}");
    assert_eq!(ended.code, Some(9), "{}", ended.stderr);
}

/// /proc/self and similar paths lead to the victim's own program, not to the tracer's.
#[test]
fn procfs_links_are_followed_as_the_victim_would() {
    let Some(turn) = Turn::take_as_root() else { return };
    let shell = turn.dir.path().join("shell");
    fs::copy("/bin/sh", &shell).unwrap();
    let ino = fs::metadata(&shell).unwrap().ino();
    for path in ["/proc/self/exe", "/proc/thread-self/exe", "/proc/$$/exe", "/dev/fd/7"] {
        let script = format!("exec 7< {}; : >> {path}", shell.display());
        let (_, trace) = turn.run(&[], &[shell.to_str().unwrap(), "-c", &script]);
        let [incident] = &trace.incidents[..] else { panic!("{path}: {:#?}", trace.incidents) };
        assert_eq!(incident.file.path.as_deref(), shell.to_str(), "{path}: {incident:#?}");
        assert_eq!(incident.file.ino, Some(ino));
        let pids: Vec<u32> = incident.holders.iter().map(|holder| holder.pid).collect();
        assert_eq!(pids, [incident.victim.pid], "{path}: {incident:#?}");
        assert!(incident.complete, "{path}: {incident:#?}");
    }
}

/// Traces a scene, and asserts what it knows; skipped if the scene is not possible here.
fn run_scene(name: &str) {
    let Some(turn) = Turn::take_as_root() else { return };
    let (ended, trace) = turn.run(&[], &[BINARY, "workload", name]);
    if is_unsupported(&ended) {
        return;
    }
    let scene = without_unreported(ended.report(), &running_kernel().unwrap());
    assert_reported(&scene, &trace);
}

/// The scene without what this kernel does not show (docs/limitations.md).
fn without_unreported(mut scene: Scene, kernel: &Kernel) -> Scene {
    match scene.scenario.as_str() {
        // The tracepoint shows no request, and so no opener; the search finds the holder.
        "io-uring-open" | "io-uring-open-worker" | "io-uring-direct"
            if features::ring_completion(kernel) == RingCompletion::Unknown =>
        {
            for holder in &mut scene.holders {
                (holder.via, holder.opened) = (Via::Unknown, None);
            }
        }
        _ => {}
    }
    scene
}

/// The file that names the interpreter shows its kind, so the tests keep that file.
#[test]
fn busy_interpreters() {
    let Some(turn) = Turn::take_as_root() else { return };
    for name in ["busy-script-interpreter", "busy-elf-interpreter"] {
        let dir = turn.dir.path().join(name);
        fs::create_dir(&dir).unwrap();
        let (scene, trace) = turn.workload(&[name, "--dir", dir.to_str().unwrap()]);
        assert_reported(&scene, &trace);
    }
}

/// The file was opened before the tracer started: the holder is found, and no history is invented.
#[test]
fn still_open_since_before_the_tracer() {
    let Some(_turn) = Turn::take_as_root() else { return };
    let mut attached = Attached::start(&["still-open", "--wait-for-go"]);
    attached.workload.say_go();
    let scene: Scene = serde_json::from_str(&attached.workload.line()).unwrap();
    let trace = attached.end();

    let incident = the_incident(&scene, &trace);
    let [known] = &scene.holders[..] else { panic!("{scene:?}") };
    let [holder] = &incident.holders[..] else { panic!("{incident:#?}") };
    assert_eq!((holder.pid, numbers(&holder.fds)), (known.pid, known.fds.clone()));
    assert_eq!(holder.via, Via::Unknown);
    assert_eq!(holder.opened, None);
    assert_eq!(holder.forked, None);
    assert_eq!(holder.released.as_ref().map(|released| released.how), Some(known.released));
}

/// Asserts that the trace has all that the scene knows.
pub(crate) fn assert_reported(scene: &Scene, trace: &Trace) {
    let incident = the_incident(scene, trace);
    assert_eq!(incident.verdict.kind, scene.verdict, "{incident:#?}");
    let unheld: Vec<_> =
        incident.unheld.iter().map(|one| (one.place, task(one.opened.as_ref()))).collect();
    let known: Vec<_> = scene.unheld.iter().map(|one| (one.place, Some(one.opened))).collect();
    assert_eq!(unheld, known, "{incident:#?}");
    for one in &incident.unheld {
        assert_eq!(one.device.is_some(), one.place == Place::LoopDevice, "{incident:#?}");
    }
    let mut pids: Vec<u32> = incident.holders.iter().map(|holder| holder.pid).collect();
    let mut known: Vec<u32> = scene.holders.iter().map(|holder| holder.pid).collect();
    pids.sort_unstable();
    known.sort_unstable();
    assert_eq!(pids, known, "{incident:#?}");
    for known in &scene.holders {
        let holder = incident.holders.iter().find(|holder| holder.pid == known.pid).unwrap();
        assert_holder(scene, known, holder);
    }
}

/// The only incident, with call, victim and busy file checked; it must be complete if processes held all
/// descriptions.
fn the_incident<'a>(scene: &Scene, trace: &'a Trace) -> &'a Incident {
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);
    let [incident] = &trace.incidents[..] else { panic!("not one: {:#?}", trace.incidents) };
    // A known place explains a writer, as a process does.
    let unknown = scene.unheld.iter().filter(|one| one.place == Place::Unknown).count() as u32;
    assert_eq!(incident.syscall, scene.syscall);
    assert_eq!(incident.path.as_deref().map(Path::new), Some(scene.path.as_path()));
    assert_eq!(incident.file.path.as_deref().map(Path::new), Some(scene.busy.as_path()));
    assert_eq!(incident.file.ino, Some(scene.ino));
    assert_eq!(incident.file.role, scene.role);
    assert_eq!((incident.victim.pid, incident.victim.tid), (scene.victim.pid, scene.victim.tid));
    let own = Some(scene.victim.pid);
    assert_eq!((incident.victim.ns_pid, incident.victim.local_pid), (own, own));
    assert_eq!(incident.victim.comm.as_deref(), Some("etxtbsy-trace"));
    let binary = Path::new(BINARY).canonicalize().unwrap();
    assert_eq!(incident.victim.exe.as_deref().map(Path::new), Some(binary.as_path()));
    if scene.role.is_some() {
        assert_eq!(incident.direction, Direction::Exec);
        assert_eq!(incident.file.writers, Some(scene.writers), "{incident:#?}");
        let known = scene.writers.cast_unsigned() - unknown;
        assert_eq!(incident.explained, known, "{incident:#?}");
    } else {
        assert_eq!(incident.direction, Direction::Write);
        let count = incident.file.writers.unwrap_or_else(|| panic!("{incident:#?}"));
        if features::mappings_deny(&running_kernel().unwrap()) {
            // A program has one mapping or more.
            assert!(count <= scene.writers, "{incident:#?}");
        } else {
            assert_eq!(count, scene.writers, "{incident:#?}");
        }
        assert_eq!(incident.explained, count.unsigned_abs(), "{incident:#?}");
    }
    assert_eq!(incident.complete, unknown == 0, "{incident:#?}");
    incident
}

fn assert_holder(scene: &Scene, known: &Holder, holder: &event::Holder) {
    assert_eq!(numbers(&holder.fds), known.fds, "{holder:#?}");
    for fd in &holder.fds {
        assert!(fd.flags.iter().any(|flag| flag == "O_WRONLY" || flag == "O_RDWR"), "{holder:#?}");
        // `null`: the fd was gone before the tracer looked, or the fork was not complete.
        assert!(fd.cloexec.is_none_or(|cloexec| cloexec == known.cloexec), "{holder:#?}");
    }
    assert_eq!(holder.via, known.via, "{holder:#?}");
    assert_how_known(known, holder);
    // For the opener itself, both states are right.
    if matches!(known.via, Via::Fork | Via::Running) || known.state == State::Exiting {
        assert_eq!(holder.state, known.state, "{holder:#?}");
    }
    assert_eq!(task(holder.opened.as_ref()), known.opened, "{holder:#?}");
    if let Some(opened) = &holder.opened {
        let path = known.opened_as.as_ref().unwrap_or(&scene.busy);
        assert_eq!(opened.path.as_deref().map(Path::new), Some(path.as_path()));
    }
    let forked = holder.forked.as_ref().map(|by| Task { pid: by.pid, tid: by.tid });
    assert_eq!(forked, known.forked, "{holder:#?}");
    // `null`: the task was gone before the tracer looked.
    assert!(holder.local_pid.is_none_or(|pid| pid == known.pid), "{holder:#?}");
    match known.ns_pid {
        Some(pid) => assert_eq!(holder.ns_pid, Some(pid), "{holder:#?}"),
        // It is in the tracer's pid namespace.
        None => assert!(holder.ns_pid.is_none_or(|pid| pid == known.pid), "{holder:#?}"),
    }
    let ancestors: Vec<u32> = holder.ancestors.iter().map(|ancestor| ancestor.pid).collect();
    assert!(ancestors.starts_with(&known.ancestors), "{:?}: {holder:#?}", known.ancestors);
    let released = holder.released.as_ref().unwrap_or_else(|| panic!("{holder:#?}"));
    assert_eq!(released.how, known.released, "{holder:#?}");
    if let Some((before, after)) = known.released_after {
        assert!((before..=after).contains(&released.time_ns), "{before}..={after}: {holder:#?}");
    }
    // Otherwise the exec would not have failed.
    assert!(released.after_ns > 0 || scene.role.is_none(), "{holder:#?}");
    // Only the name, because /bin can be a link to /usr/bin.
    let exec = released.exec.as_deref().map(Path::new).and_then(Path::file_name);
    assert_eq!(exec, known.exec.as_deref().and_then(Path::file_name), "{holder:#?}");
}

/// Asserts evidence, call and names, if the scene knows them.
fn assert_how_known(known: &Holder, holder: &event::Holder) {
    if known.evidence.is_some() {
        assert_eq!(holder.evidence, known.evidence, "{holder:#?}");
    }
    if known.call.is_some() {
        assert_eq!(holder.call, known.call, "{holder:#?}");
    }
    if let Some((own, thread)) = &known.names {
        assert_eq!(holder.comm.as_ref(), Some(own), "{holder:#?}");
        let opened = holder.opened.as_ref().and_then(|opened| opened.comm.as_ref());
        assert!(opened.is_none_or(|opened| opened == thread), "{holder:#?}");
    }
}

fn task(opened: Option<&Opened>) -> Option<Task> {
    opened.map(|by| Task { pid: by.pid, tid: by.tid })
}

fn numbers(fds: &[Fd]) -> Vec<u32> {
    let mut numbers: Vec<u32> = fds.iter().map(|fd| fd.fd).collect();
    numbers.sort_unstable();
    numbers
}

/// The kernel gives a child its own memory long before its own pid.
#[test]
fn a_child_in_the_making_is_not_mistaken_for_its_parent() {
    let Some(turn) = Turn::take_as_root() else { return };
    let (ended, trace) = turn.run(&[], &[BINARY, "workload", "mapped-by-child-in-making"]);
    if ended.code == Some(UNSUPPORTED.into()) {
        skip!("{}", ended.stderr);
    }
    let scene: Scene = serde_json::from_str(&ended.stdout).unwrap();
    let path = scene.busy.to_str().unwrap();
    let incident = trace.incidents.iter().find(|it| it.path.as_deref() == Some(path)).unwrap();
    assert_eq!(incident.file.writers, Some(1));
    let child = scene.holders[0].pid;
    assert!(incident.holders.iter().all(|holder| holder.pid == child), "{incident:#?}");
}
