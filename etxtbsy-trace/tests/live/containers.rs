//! Tracing in and around a container: pid, mount and cgroup namespaces that the test makes.

use crate::support::mounted::Mounted;
use crate::support::{
    BINARY, Ended, Process, Trace, Turn, WaitingRace, assert_complete, has_too_few, race_course,
    tracer,
};
use etxtbsy_trace::event::check;
use etxtbsy_trace::event::{Incident, Line, VerdictKind};
use etxtbsy_workload::GroundTruth;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, chroot, fork};
use rustix::thread::{CapabilitySet, remove_capability_from_bounding_set};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use test_support::skip;

/// Namespaces with their own /proc and no cgroup file system; they end with their first process.
struct Container {
    /// It is not in the namespaces, but its children are.
    parent: Child,
    /// The mount point of cgroup v2 in the container.
    cgroup: Option<PathBuf>,
}

impl Container {
    /// `decoy` is the pid of an idle process in the container. At `cgroup`, cgroup v2 is mounted, and the
    /// container is in a cgroup of it.
    fn start(decoy: Option<u32>, cgroup: Option<PathBuf>) -> Self {
        let mut command = Command::new(BINARY);
        // It waits for the end of its stdin.
        command.args(["replay", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
        let mounted = cgroup.clone();
        let enter = move || -> io::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount_new("none", "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
            if let Some(cgroup) = &cgroup {
                mount_new("none", cgroup, Some("cgroup2"), MsFlags::empty())?;
                fs::create_dir(own_cgroup(cgroup))?;
                move_to(&own_cgroup(cgroup))?;
            }
            unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWCGROUP)?;
            continue_in_child(|| {
                let Some(cgroup) = &cgroup else { return };
                let _ = move_to(cgroup);
                let _ = fs::remove_dir(own_cgroup(cgroup));
            })?;
            mount_new("proc", "/proc", Some("proc"), MsFlags::empty())?;
            match mount_new("none", "/sys/fs/cgroup", Some("tmpfs"), MsFlags::empty()) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            decoy.map_or(Ok(()), start_decoy)
        };
        // SAFETY: system calls, and memory, which the C library allows after its own fork().
        unsafe { command.pre_exec(enter) };
        Self { parent: command.spawn().unwrap(), cgroup: mounted }
    }

    /// Lets a command run in the container.
    fn enter(&self, command: &mut Command) {
        let ns = |name| File::open(format!("/proc/{}/ns/{name}", self.parent.id())).unwrap();
        let all = ["pid_for_children", "cgroup", "mnt"].map(ns);
        let cgroup = self.cgroup.as_deref().map(own_cgroup);
        let enter = move || -> io::Result<()> {
            for ns in &all {
                setns(ns, CloneFlags::empty())?;
            }
            cgroup.as_deref().map_or(Ok(()), move_to)?;
            continue_in_child(|| {})
        };
        // SAFETY: system calls.
        unsafe { command.pre_exec(enter) };
    }

    fn process(&self, command: &mut Command) -> Process {
        self.enter(command);
        Process::start(command)
    }

    /// `run -o FILE --overwrite -- COMMAND` in the container.
    fn run(&self, turn: &Turn, command: &[&str]) -> (Ended, Trace) {
        let output = turn.output();
        let mut tracer = tracer();
        tracer.args(["run", "--overwrite", "-o"]).arg(&output).arg("--").args(command);
        let ended = self.process(&mut tracer).wait();
        let trace = Trace::read(&output, &ended);
        (ended, trace)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        drop(self.parent.stdin.take());
        self.parent.wait().unwrap();
    }
}

fn own_cgroup(mounted: &Path) -> PathBuf {
    mounted.join("etxtbsy-trace-test")
}

/// Moves this process to a cgroup.
fn move_to(cgroup: &Path) -> io::Result<()> {
    fs::write(cgroup.join("cgroup.procs"), "0")
}

fn mount_new(
    source: &str,
    target: impl AsRef<Path>,
    kind: Option<&str>,
    flags: MsFlags,
) -> nix::Result<()> {
    mount(Some(source), target.as_ref(), kind, flags, None::<&str>)
}

/// Forks and returns in the child; the parent exits with its status after `last`.
fn continue_in_child(last: impl Fn()) -> io::Result<()> {
    // SAFETY: called between fork and exec, where there is one thread.
    let ForkResult::Parent { child } = (unsafe { fork() })? else { return Ok(()) };
    // They include the pipe that shows the caller that the exec has succeeded.
    // SAFETY: nothing here uses them.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    let code = match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, code)) => code,
        _ => 1,
    };
    last();
    // SAFETY: always sound.
    unsafe { libc::_exit(code) }
}

/// An idle process with that pid.
fn start_decoy(pid: u32) -> io::Result<()> {
    let wanted = [pid.cast_signed()];
    // SAFETY: integers, for which zeros are a value.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = wanted.as_ptr() as u64;
    arguments.set_tid_size = 1;
    // SAFETY: as fork(), in a process of one thread.
    let made =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    match made {
        0 => {
            // SAFETY: it uses nothing, and ends with the namespace.
            unsafe {
                libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
                loop {
                    libc::pause();
                }
            }
        }
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The pids of the initial namespace for those of another, as the incidents have them. Each must
/// always be the same.
#[derive(Default)]
struct PidMap(BTreeMap<u32, u32>);

impl PidMap {
    fn assert(&mut self, known: u32, reported: u32) {
        assert_ne!(known, reported, "this is the pid in the container");
        let first = *self.0.entry(known).or_insert(reported);
        assert_eq!(first, reported, "{known} is reported as two pids");
    }
}

impl Drop for PidMap {
    fn drop(&mut self) {
        let reported: BTreeSet<u32> = self.0.values().copied().collect();
        if !std::thread::panicking() {
            assert_eq!(reported.len(), self.0.len(), "one pid for two processes: {:?}", self.0);
        }
    }
}

/// The tracer and all traced processes are in the container.
#[test]
fn a_race_in_a_container_with_the_tracer() {
    let Some(turn) = Turn::take_as_root() else { return };
    let container = Container::start(None, None);
    let course = race_course(50);
    let command: Vec<&str> = [BINARY, "workload", "ground-truth"]
        .into_iter()
        .chain(course.iter().map(String::as_str))
        .collect();
    let (ended, trace) = container.run(&turn, &command);
    let truth: GroundTruth = ended.report();
    if has_too_few(&truth.race) {
        return;
    }
    assert_eq!(truth.failed.len(), trace.incidents.len());
    assert!(trace.lost().is_empty(), "{:?}", trace.lost);

    let mut reported: HashMap<(u32, u64), &Incident> = HashMap::new();
    for incident in &trace.incidents {
        let local = incident.victim.local_pid.unwrap_or_else(|| panic!("{incident:#?}"));
        assert_eq!(incident.victim.ns_pid, Some(local));
        // `None` if the victim exited before the tracer read it.
        let argv = incident.victim.argv.as_ref();
        assert!(argv.is_none_or(|argv| argv[1] == "workload"), "{incident:#?}");
        reported.insert((local, incident.file.ino.unwrap()), incident);
    }
    let mut same = PidMap::default();
    let (mut named, mut described, mut sure, mut incomplete) = (0, 0, 0, 0);
    for failed in &truth.failed {
        let incident = reported[&(failed.victim, failed.ino)];
        if !incident.complete {
            // An incomplete incident claims nothing that could be wrong.
            incomplete += 1;
            continue;
        }
        assert_eq!(incident.verdict.kind, VerdictKind::ForkExecRace, "{incident:#?}");
        same.assert(truth.race.pid, incident.victim.ppid.unwrap());
        for holder in &incident.holders {
            if let Some(opened) = trace.opener(holder) {
                same.assert(truth.race.pid, opened.pid);
                same.assert(failed.writer, opened.tid);
                assert_eq!(holder.ancestors[0].pid, opened.pid, "{holder:#?}");
            }
            // The task can be gone before the failure is reported.
            let Some(local) = holder.local_pid else { continue };
            let known = failed.inheritors.iter().find(|known| known.pid == local);
            let known = known
                .unwrap_or_else(|| panic!("{local} did not hold it: {failed:?}: {incident:#?}"));
            named += 1;
            // /proc has it under the pid of the container.
            described += usize::from(holder.argv.is_some());
            same.assert(known.forked_by, holder.forked.as_ref().unwrap().tid);
        }
        for known in failed.inheritors.iter().filter(|known| known.sure) {
            sure += 1;
            let is_it = |pid: Option<u32>| pid.is_none_or(|local| local == known.pid);
            assert!(
                incident.holders.iter().any(|holder| is_it(holder.local_pid)),
                "{known:?}: {incident:#?}"
            );
        }
    }
    assert!(incomplete * 25 <= truth.failed.len(), "{incomplete} of {}", truth.failed.len());
    assert!(named * 10 >= sure * 9, "{named} of {sure} have a pid of their namespace");
    // Not all, because some exited before the tracer read /proc.
    assert!(described > 0, "none of {named} has arguments");
}

/// The holder is outside of the container and not visible there; a process in the container has the same
/// pid.
#[test]
fn a_culprit_outside_of_the_container_with_the_tracer() {
    let Some(turn) = Turn::take_as_root() else { return };
    let own = std::process::id();
    let container = Container::start(Some(own), None);
    let path = turn.dir.path().join("busy");
    let mut busy = File::options().write(true).create_new(true).mode(0o755).open(&path).unwrap();
    busy.write_all(b"#!/bin/sh\n").unwrap();
    let script = format!("{}; exit 0", path.display());
    let (ended, trace) = container.run(&turn, &["/bin/sh", "-c", &script]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    drop(busy);

    let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
    assert!(incident.complete, "{incident:#?}");
    assert!(incident.victim.local_pid.is_some());
    assert_ne!(incident.victim.local_pid, Some(incident.victim.pid));
    let [holder] = &incident.holders[..] else { panic!("{incident:#?}") };
    assert_eq!((holder.pid, holder.local_pid, holder.ns_pid), (own, None, Some(own)));
    let binary = std::env::current_exe().unwrap();
    assert_eq!(holder.exe.as_deref().map(Path::new), Some(binary.as_path()), "{holder:#?}");
    // In the container, /proc has those of the decoy.
    assert_eq!((&holder.argv, &holder.cgroup), (&None, &None));
}

/// Tracing works, and `check` reports what is not visible.
#[test]
fn check_in_a_container_reports_the_pid_namespace_as_degraded() {
    let Some(_turn) = Turn::take_as_root() else { return };
    let container = Container::start(None, None);
    let ended = container.process(tracer().args(["check", "--json"])).wait();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let facts = ended.stdout.lines().filter_map(|line| match serde_json::from_str(line).unwrap() {
        check::Line::Fact(fact) => Some(fact),
        check::Line::Check(_) => None,
    });
    let fact = facts.into_iter().find(|fact| fact.name == "pid namespace").unwrap();
    assert_eq!(fact.status, check::Status::Degraded);
    assert!(fact.remedy.as_ref().unwrap().contains("--pid=host"), "{fact:?}");
}

/// `--pid` takes the pid of the container's namespace; the tree includes older children.
#[test]
fn a_process_tree_by_its_pid_in_the_container() {
    let Some(_turn) = Turn::take_as_root() else { return };
    let container = Container::start(None, None);
    let race = WaitingRace::start(|command| container.process(command));
    let (pid, _) = numbers_of_child(&race.0);
    let mut tracer = tracer();
    tracer.args(["--json", "--pid", &pid.to_string()]);
    let (race, shown) = race.traced_by(container.process(&mut tracer));
    let trace = Trace::parse(&shown);
    assert_eq!(trace.meta.filter.pids, [race.pid]);
    assert_eq!(trace.incidents.len() as u64, race.failures);
    assert_complete(&trace.incidents, |incident| incident.complete);
}

/// The tracer as in the image (packaging/Containerfile): a root with nothing but the program, /proc and /sys of
/// the machine, tracefs, and four capabilities. What is tested is not static, so its libraries are there too.
fn in_image(root: &Path) -> Command {
    let program = root.join("usr/bin/etxtbsy-trace");
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy(BINARY, &program).unwrap();
    let shared = ["/lib", "/lib64", "/usr/lib", "/proc", "/sys"].map(PathBuf::from);
    let at = |path: &Path| root.join(path.strip_prefix("/").unwrap());
    let shared: Vec<_> =
        shared.into_iter().filter(|path| path.exists()).map(|path| (at(&path), path)).collect();
    for (at, _) in &shared {
        fs::create_dir_all(at).unwrap();
    }
    let (root, tracefs) = (root.to_owned(), root.join("sys/kernel/tracing"));
    let enter = move || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount_new("none", "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
        for (at, path) in &shared {
            mount(Some(path), at, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
        }
        // Where it is mounted already, the kernel refuses to mount it there again.
        mount_new("none", &tracefs, Some("tmpfs"), MsFlags::empty())?;
        mount_new("nodev", &tracefs, Some("tracefs"), MsFlags::empty())?;
        chroot(&root)?;
        std::env::set_current_dir("/")?;
        let kept = CapabilitySet::BPF
            | CapabilitySet::PERFMON
            | CapabilitySet::SYS_PTRACE
            | CapabilitySet::DAC_READ_SEARCH;
        for (_, capability) in (CapabilitySet::all() - kept).iter_names() {
            match remove_capability_from_bounding_set(capability) {
                // An older kernel does not have all.
                Err(rustix::io::Errno::INVAL) => {}
                done => done?,
            }
        }
        Ok(())
    };
    let mut command = Command::new("/usr/bin/etxtbsy-trace");
    // SAFETY: system calls, and memory, which the C library allows after its own fork().
    unsafe { command.pre_exec(enter) };
    command
}

#[test]
fn the_image_has_all_that_tracing_needs() {
    let Some(turn) = Turn::take_as_root() else { return };
    let image = turn.dir.path().join("image");
    let checked = Process::start(in_image(&image).arg("check")).wait();
    assert_eq!(checked.code, Some(0), "{}{}", checked.stdout, checked.stderr);

    let busy = turn.dir.path().join("busy").display().to_string();
    let script = format!("echo ready; read go; exec 3>{busy}; chmod +x {busy}; {busy}; read end");
    // It lives until the incident is reported.
    let mut holder = Process::start(Command::new("sh").args(["-c", &script]));
    assert_eq!(holder.line(), "ready");
    let pid = holder.pid();
    let tracer = Process::start(in_image(&image).args(["--json", "--pid", &pid.to_string()]));
    tracer.line();
    holder.say_go();
    let Ok(Line::Incident(incident)) = serde_json::from_str(&tracer.line()) else {
        panic!("not an incident");
    };
    holder.wait();
    assert_eq!(tracer.wait().code, Some(0));
    assert!(incident.complete, "{incident:#?}");
    assert_eq!(incident.file.path.as_deref(), Some(&*busy));
    let shell = fs::canonicalize("/bin/sh").unwrap();
    // The victim has inherited the fd.
    let holder = incident.holders.iter().find(|it| it.pid == pid.as_raw().cast_unsigned());
    let holder = holder.unwrap_or_else(|| panic!("{incident:#?}"));
    assert_eq!(holder.exe.as_deref(), shell.to_str(), "{incident:#?}");
    assert_eq!(holder.argv.as_ref().unwrap()[2], script);
}

/// The tracer is outside, so it reports the pids of the initial namespace.
#[test]
fn a_race_in_a_container_without_the_tracer() {
    let Some(turn) = Turn::take_as_root() else { return };
    let cgroups = turn.dir.path().join("cgroups");
    fs::create_dir(&cgroups).unwrap();
    let container = Container::start(None, Some(cgroups.clone()));
    let race = WaitingRace::start(|command| container.process(command));
    let (_, outside) = numbers_of_child(&race.0);
    let threads: BTreeMap<u32, u32> = fs::read_dir(format!("/proc/{outside}/task"))
        .unwrap()
        .map(|task| numbers(&task.unwrap().path()))
        .collect();
    let pid = race.0.pid().to_string();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid]));
    let (race, shown) = race.traced_by(tracer);
    let trace = Trace::parse(&shown);
    assert_eq!(trace.incidents.len() as u64, race.failures);
    assert_complete(&trace.incidents, |incident| incident.complete);
    for incident in &trace.incidents {
        let index = incident.path.as_deref().unwrap().rsplit('-').next().unwrap();
        let writer = race.threads[index.parse::<usize>().unwrap()];
        let victim = &incident.victim;
        assert_eq!((victim.ppid, victim.local_pid), (Some(outside), Some(victim.pid)));
        assert_ne!(victim.ns_pid, Some(victim.pid));
        assert_eq!(victim.cgroup.as_deref(), Some("/etxtbsy-trace-test"), "{incident:#?}");
        for holder in &incident.holders {
            if let Some(opened) = trace.opener(holder) {
                assert_eq!((opened.pid, opened.tid), (outside, threads[&writer]), "{incident:#?}");
            }
        }
    }
}

/// With cgroup v1, the v2 hierarchy has all processes in its root.
#[test]
fn with_cgroup_v1_the_cgroup_is_that_of_systemds_hierarchy() {
    let Some(turn) = Turn::take_as_root() else { return };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    if own.lines().any(|line| line.starts_with("0::") && line != "0::/") {
        skip!("processes are in groups of cgroup v2 here, not of v1 (run: cargo xtask vm)");
    }
    let hierarchy = SystemdHierarchy::mount(turn.dir.path());
    let group = own_cgroup(&hierarchy.0.0);
    fs::create_dir(&group).unwrap();
    let (group, busy) = (group.display(), turn.dir.path().join("busy"));
    let script = format!(
        "echo 0 >{group}/cgroup.procs; echo ready; read go; exec 3>{0}; chmod +x {0}; {0}; read end",
        busy.display()
    );
    // It lives until the incident is reported.
    let mut root = Process::start(Command::new("sh").args(["-c", &script]));
    assert_eq!(root.line(), "ready");
    let pid = root.pid();
    let tracer = Process::start(tracer().args(["--json", "--pid", &pid.to_string()]));
    tracer.line();
    root.say_go();
    let Ok(Line::Incident(incident)) = serde_json::from_str(&tracer.line()) else {
        panic!("not an incident");
    };
    root.wait();
    assert_eq!(tracer.wait().code, Some(0));
    let holder = incident.holders.iter().find(|holder| holder.pid == pid.as_raw().cast_unsigned());
    let cgroup = holder.unwrap_or_else(|| panic!("{incident:#?}")).cgroup.as_deref();
    assert_eq!(cgroup, Some("/etxtbsy-trace-test"), "{incident:#?}");
}

/// Systemd's hierarchy of cgroup v1, created if there is none; unmounted at the end.
struct SystemdHierarchy(Mounted);

impl SystemdHierarchy {
    fn mount(dir: &Path) -> Self {
        Self(Mounted::new(dir, "systemd", "cgroup", Some("none,name=systemd")))
    }
}

impl Drop for SystemdHierarchy {
    fn drop(&mut self) {
        let _ = fs::remove_dir(own_cgroup(&self.0.0));
    }
}

/// The pids of a process's child: in its own namespace, and in ours.
fn numbers_of_child(process: &Process) -> (u32, u32) {
    let pid = process.pid();
    let children = fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        fs::read_to_string(entry.path().join("status"))
            .is_ok_and(|status| status.contains(&format!("\nPPid:\t{pid}\n")))
    });
    let [child] = &children.map(|entry| entry.path()).collect::<Vec<_>>()[..] else {
        panic!("not one child")
    };
    numbers(child)
}

/// The pids of a task, by its directory in /proc: in its own namespace, and in ours.
fn numbers(task: &Path) -> (u32, u32) {
    let status = fs::read_to_string(task.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    let all: Vec<u32> = line.split_whitespace().map(|word| word.parse().unwrap()).collect();
    (*all.last().unwrap(), all[0])
}
