//! `check`, and starting the tracer, when something is missing.

use crate::support::{BINARY, Ended, NOBODY, Process, Trace, Turn, is_own_machine, tracer};
use etxtbsy_trace::event::check::{Checked, Fact, Line, Status};
use etxtbsy_trace::output::schema;
use etxtbsy_trace::tracer::{memlock, programs::tracepoints};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, configure_capability_in_ambient_set, set_capabilities,
    set_keep_capabilities, set_no_new_privs,
};
use std::fs::{self, File, Permissions};
use std::io::{self, pipe};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use test_support::skip;

/// Numbers of capabilities, include/uapi/linux/capability.h.
const CAP_SYS_PTRACE: libc::c_ulong = 19;
const CAP_SYS_ADMIN: libc::c_ulong = 21;
const CAP_PERFMON: libc::c_ulong = 38;
const CAP_BPF: libc::c_ulong = 39;

/// The lines of `check --json`.
struct CheckReport {
    facts: Vec<Fact>,
    checked: Checked,
}

impl CheckReport {
    /// The names of the facts that are degraded.
    fn degraded(&self) -> Vec<&str> {
        let degraded = self.facts.iter().filter(|fact| fact.status == Status::Degraded);
        degraded.map(|fact| fact.name.as_str()).collect()
    }

    fn parse(ended: &Ended) -> Self {
        let schema = jsonschema::validator_for(&schema::check()).unwrap();
        let mut facts = Vec::new();
        for text in ended.stdout.lines() {
            assert!(schema.is_valid(&serde_json::from_str(text).unwrap()), "{text}");
            match serde_json::from_str(text).expect(text) {
                Line::Fact(fact) => facts.push(fact),
                Line::Check(checked) => {
                    assert_eq!(ended.stdout.lines().last(), Some(text));
                    let report = Self { facts, checked };
                    report.assert_consistent(ended);
                    return report;
                }
            }
        }
        panic!("no last line: {}{}", ended.stdout, ended.stderr);
    }

    fn assert_consistent(&self, ended: &Ended) {
        let Checked { works, ok, degraded, missing, unknown, .. } = self.checked;
        assert_eq!(works, missing == 0, "{}", ended.stdout);
        assert_eq!(ended.code, Some(i32::from(!works)), "{}", ended.stdout);
        assert_eq!((ok + degraded + missing + unknown) as usize, self.facts.len());
        for fact in &self.facts {
            let is = |status| fact.status == status;
            assert!(fact.remedy.is_some() || !is(Status::Missing), "{fact:?}");
            assert!(fact.instead.is_some() == is(Status::Degraded), "{fact:?}");
        }
    }

    fn fact(&self, name: &str) -> &Fact {
        self.facts.iter().find(|fact| fact.name == name).expect(name)
    }
}

/// Drops capabilities in a child and all that it executes.
fn drop_capabilities(of: &mut Command, capabilities: &'static [libc::c_ulong]) {
    let give_up = move || {
        capabilities.iter().try_for_each(|capability| {
            // SAFETY: no pointers.
            let done = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, *capability, 0, 0, 0) };
            Ok(Errno::result(done).map(drop)?)
        })
    };
    // SAFETY: only a system call between fork and exec.
    unsafe { of.pre_exec(give_up) };
}

/// Mounts empty file systems over `paths`, only for a child.
fn hide(of: &mut Command, paths: &'static [&'static str]) {
    let there: Vec<_> = paths.iter().filter(|path| Path::new(path).exists()).collect();
    let hide = move || {
        let nothing = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        there.iter().try_for_each(|path| {
            Ok(mount(Some("none"), **path, Some("tmpfs"), MsFlags::empty(), nothing)?)
        })
    };
    // SAFETY: system calls, with paths that nix copies to the stack.
    unsafe { of.pre_exec(hide) };
}

/// Makes bpf(2) fail, as the seccomp profiles of container managers do.
fn forbid_bpf(of: &mut Command) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let steps = [
        // seccomp_data.nr
        step(LOAD, 0, 0, 0),
        step(IF_EQUAL, 0, 1, libc::SYS_bpf as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let forbid = move || {
        let mut steps = steps;
        let filter = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the filter is a live program of that length.
        let done = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) };
        Ok(Errno::result(done).map(drop)?)
    };
    // SAFETY: a system call, with data on the stack.
    unsafe { of.pre_exec(forbid) };
}

/// Asserts that `check` and a start, both by that kind of command, name what is missing and the remedy.
#[track_caller]
fn assert_missing(command: impl Fn() -> Command, name: &str, remedy: &str) {
    let checked = Process::start(command().args(["check", "--json"])).wait();
    let report = CheckReport::parse(&checked);
    let fact = report.fact(name);
    assert_eq!(fact.status, Status::Missing, "{}", checked.stdout);
    assert!(fact.remedy.as_ref().unwrap().contains(remedy), "{fact:?}");
    assert_eq!(report.fact("self-trace").status, Status::Unknown, "{}", checked.stdout);
    assert_eq!(report.checked.mend_first.as_deref(), Some(name), "{}", checked.stdout);

    for arguments in [&["--json", "-d", "1"][..], &["run", "--", "true"]] {
        let refused = Process::start(command().args(arguments)).wait();
        refused.assert_refused(125, &[name, remedy]);
        assert_eq!(refused.stdout, "");
    }
}

#[test]
fn every_fact_is_reported() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let ended = Process::start(tracer().args(["check", "--json"])).wait();
    let report = CheckReport::parse(&ended);
    assert!(report.checked.works, "{}{}", ended.stdout, ended.stderr);
    for tracepoint in tracepoints() {
        report.fact(tracepoint.name);
    }
    let traced = report.fact("self-trace");
    assert_eq!(traced.status, Status::Ok, "{traced:?}");
}

#[test]
fn text_has_one_line_for_each_fact_and_colours_on_request() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let output = turn.output();
    let ended =
        Process::start(tracer().args(["check", "--color", "never", "-o"]).arg(&output)).wait();
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    let (facts, end) = ended.stdout.split_once("\n\n").unwrap();
    assert_eq!(end.lines().count(), 1, "{end}");
    let json = Ended { stdout: fs::read_to_string(output).unwrap(), ..ended };
    let report = CheckReport::parse(&json);
    assert_eq!(facts.lines().count(), report.facts.len());
    for (line, fact) in facts.lines().zip(&report.facts) {
        assert!(line.contains(&fact.name), "{line}");
    }
    let coloured = Process::start(tracer().args(["check", "--color", "always"])).wait();
    assert!(coloured.stdout.lines().next().unwrap().starts_with("\x1b["), "{}", coloured.stdout);
}

#[test]
fn an_unprivileged_user_is_advised_to_use_sudo() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    // Other users may not have access to the build directory.
    fs::set_permissions(turn.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let binary = turn.dir.path().join("etxtbsy-trace");
    fs::copy(BINARY, &binary).unwrap();
    let as_nobody = || {
        let mut command = Command::new(&binary);
        command.env("RUST_BACKTRACE", "1").uid(NOBODY).gid(NOBODY).current_dir("/");
        command
    };
    assert_missing(as_nobody, "CAP_BPF", "sudo");
}

/// Those that the remedies name: four, and a fifth where maps count against RLIMIT_MEMLOCK (before 5.11).
fn least() -> CapabilitySet {
    let four = CapabilitySet::BPF
        | CapabilitySet::PERFMON
        | CapabilitySet::SYS_PTRACE
        | CapabilitySet::DAC_READ_SEARCH;
    if memlock::counts().unwrap() { four | CapabilitySet::SYS_RESOURCE } else { four }
}

/// Their names in the remedies.
fn names_of_least() -> &'static str {
    if least().contains(CapabilitySet::SYS_RESOURCE) {
        "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_sys_resource"
    } else {
        "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search"
    }
}

/// How a program gets its capabilities.
#[derive(Clone, Copy, Debug)]
enum Rights {
    /// From its parent, as with systemd's AmbientCapabilities=.
    Ambient(CapabilitySet),
    /// From the file, as with setcap(8).
    OfFile,
    /// From the file, but no_new_privs prevents it.
    OfFileInVain,
}

/// What is mounted at the place of tracefs, only for a child.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tracefs {
    Mounted,
    /// Everybody can search its directories; its files belong to root.
    Searchable,
    Absent,
}

/// A copy of the program that another user may execute, and that can have file capabilities.
fn copy_for_all(turn: &Turn) -> PathBuf {
    // Other users may not have access to the build directory.
    chown(turn.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let binary = turn.dir.path().join("etxtbsy-trace");
    fs::copy(BINARY, &binary).unwrap();
    binary
}

/// What `setcap CAPABILITIES=ep` does: struct vfs_cap_data, include/uapi/linux/capability.h.
fn set_file_capabilities(of: &Path, capabilities: CapabilitySet) {
    let bits = capabilities.bits();
    let halves = [0x0200_0001, bits as u32, 0, (bits >> 32) as u32, 0];
    let data: Vec<u8> = halves.iter().flat_map(|half| half.to_le_bytes()).collect();
    rustix::fs::setxattr(of, "security.capability", &data, rustix::fs::XattrFlags::empty())
        .unwrap();
}

/// A program that runs as another user with only those capabilities.
fn as_nobody(binary: &Path, rights: Rights, tracefs: Tracefs) -> Command {
    const AT: &str = "/sys/kernel/tracing";
    let aside = binary.with_extension("tracefs");
    fs::create_dir_all(&aside).unwrap();
    let become_nobody = move || -> io::Result<()> {
        let nothing = None::<&str>;
        let place =
            |of: &str, at: &Path| mount(Some("nodev"), at, Some(of), MsFlags::empty(), nothing);
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        place("tmpfs", Path::new("/sys/kernel/debug"))?;
        match tracefs {
            Tracefs::Mounted => {
                // Where it is mounted already, the kernel refuses to mount it there again.
                place("tmpfs", Path::new(AT))?;
                place("tracefs", Path::new(AT))?;
            }
            Tracefs::Absent => place("tmpfs", Path::new(AT))?,
            Tracefs::Searchable => {
                place("tracefs", &aside)?;
                place("tmpfs", Path::new(AT))?;
                let (from, to) = (aside.join("events"), Path::new(AT).join("events"));
                fs::create_dir(&to)?;
                mount(Some(&from), &to, nothing, MsFlags::MS_BIND, nothing)?;
            }
        }
        set_keep_capabilities(true)?;
        setgroups(&[])?;
        setgid(Gid::from_raw(NOBODY))?;
        setuid(Uid::from_raw(NOBODY))?;
        let kept = if let Rights::Ambient(kept) = rights { kept } else { CapabilitySet::empty() };
        let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
        set_capabilities(None, sets)?;
        kept.iter().try_for_each(|one| configure_capability_in_ambient_set(one, true))?;
        if let Rights::OfFileInVain = rights {
            set_no_new_privs(true)?;
        }
        Ok(())
    };
    let mut command = Command::new(binary);
    command.env("RUST_BACKTRACE", "1").current_dir("/");
    // SAFETY: system calls; the memory for a path is the child's own, and glibc and musl release the
    // allocator's lock in the child of a fork.
    unsafe { command.pre_exec(become_nobody) };
    command
}

/// `kernel.perf_event_paranoid` for a test; set back at its end.
struct Paranoid(String);

impl Paranoid {
    const AT: &str = "/proc/sys/kernel/perf_event_paranoid";

    fn set(level: &str) -> Self {
        let before = fs::read_to_string(Self::AT).unwrap();
        fs::write(Self::AT, level).unwrap();
        Self(before)
    }
}

impl Drop for Paranoid {
    fn drop(&mut self) {
        fs::write(Self::AT, &self.0).unwrap();
    }
}

#[test]
fn a_restricted_perf_event_open_is_named() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    if !is_own_machine() {
        skip!("it changes a sysctl: only in a virtual machine");
    }
    let _level = Paranoid::set("4");
    let binary = copy_for_all(&turn);
    let as_nobody = || as_nobody(&binary, Rights::Ambient(least()), Tracefs::Mounted);
    assert_missing(as_nobody, "perf_event_open(2)", "sysctl kernel.perf_event_paranoid=2");
}

/// With tracefs mounted: nothing is missing, or degraded that is not for root too, and the holder of another user is found.
#[test]
fn four_capabilities_suffice() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let binary = copy_for_all(&turn);
    let busy = turn.dir.path().join("busy");
    fs::copy("/bin/true", &busy).unwrap();
    let _writer = File::options().append(true).open(&busy).unwrap();
    let script = format!("{} 2>/dev/null; exit 7", busy.display());
    let of_root = CheckReport::parse(&Process::start(tracer().args(["check", "--json"])).wait());
    for rights in [Rights::Ambient(least()), Rights::OfFile] {
        if let Rights::OfFile = rights {
            set_file_capabilities(&binary, least());
        }
        let command = || as_nobody(&binary, rights, Tracefs::Mounted);
        let checked = Process::start(command().args(["check", "--json"])).wait();
        let report = CheckReport::parse(&checked);
        assert!(report.checked.works, "{rights:?}: {}", checked.stdout);
        // What the kernel does not have, root does not have either.
        assert_eq!(report.degraded(), of_root.degraded(), "{rights:?}: {}", checked.stdout);
        assert_eq!(report.fact("self-trace").status, Status::Ok, "{}", checked.stdout);

        let output = turn.dir.path().join(format!("{rights:?}.jsonl"));
        let mut run = command();
        run.args(["run", "-o"]).arg(&output).args(["--", "sh", "-c", &script]);
        let ended = Process::start(&mut run).wait();
        assert_eq!(ended.code, Some(7), "{rights:?}: {}", ended.stderr);
        let trace = Trace::read(&output, &ended);
        let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
        assert_eq!(incident.victim.uid, Some(NOBODY));
        let [holder] = &incident.holders[..] else { panic!("{incident:#?}") };
        assert_eq!((holder.local_pid, holder.uid), (Some(std::process::id()), Some(0)));
        let own = std::env::current_exe().unwrap();
        assert_eq!(holder.exe.as_deref(), own.to_str(), "{incident:#?}");
        assert!(incident.certain, "{incident:#?}");
    }
}

#[test]
fn the_remedy_fits_the_user_and_the_way_of_starting() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let binary = copy_for_all(&turn);
    set_file_capabilities(&binary, least());
    let no_rights = turn.dir.path().join("no-rights");
    fs::copy(BINARY, &no_rights).unwrap();
    let setcap = format!("sudo setcap {}=ep {}", names_of_least(), no_rights.display());
    let ambient = |without| Rights::Ambient(least() - without);
    for (binary, rights, tracefs, name, remedy) in [
        (&no_rights, ambient(CapabilitySet::BPF), Tracefs::Mounted, "CAP_BPF", &*setcap),
        (
            &no_rights,
            ambient(CapabilitySet::DAC_READ_SEARCH),
            Tracefs::Mounted,
            "tracefs",
            &*setcap,
        ),
        (
            &no_rights,
            ambient(CapabilitySet::DAC_READ_SEARCH),
            Tracefs::Searchable,
            "tracefs",
            &*setcap,
        ),
        (&binary, Rights::OfFileInVain, Tracefs::Mounted, "CAP_BPF", "without no_new_privs"),
        (
            &binary,
            Rights::OfFile,
            Tracefs::Absent,
            "tracefs",
            "sudo mount -t tracefs nodev /sys/kernel/tracing",
        ),
    ] {
        assert_missing(|| as_nobody(binary, rights, tracefs), name, remedy);
    }
}

#[test]
fn a_missing_capability_is_named() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    for (name, option, without) in [
        ("CAP_BPF", "--cap-add=BPF", &[CAP_BPF, CAP_SYS_ADMIN]),
        ("CAP_PERFMON", "--cap-add=PERFMON", &[CAP_PERFMON, CAP_SYS_ADMIN]),
    ] {
        let command = || {
            let mut command = tracer();
            drop_capabilities(&mut command, without);
            command
        };
        assert_missing(command, name, option);
    }
}

/// CAP_SYS_PTRACE is not essential.
#[test]
fn without_cap_sys_ptrace_the_tracer_warns_and_traces() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let without = |arguments: &[&str]| {
        let mut command = tracer();
        drop_capabilities(&mut command, &[CAP_SYS_PTRACE]);
        Process::start(command.args(arguments)).wait()
    };
    let checked = without(&["check", "--json"]);
    let report = CheckReport::parse(&checked);
    assert_eq!(report.fact("CAP_SYS_PTRACE").status, Status::Degraded, "{}", checked.stdout);
    assert_eq!(report.fact("self-trace").status, Status::Ok, "{}", checked.stdout);

    let output = turn.output();
    let file = output.to_str().unwrap();
    let ended = without(&["run", "-o", file, "--", BINARY, "workload", "still-open"]);
    assert!(ended.stderr.contains("CAP_SYS_PTRACE"), "{}", ended.stderr);
    let trace = Trace::read(&output, &ended);
    assert!(trace.incidents[0].complete, "{:#?}", trace.incidents);
}

#[test]
fn without_btf_check_names_the_remedy() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let command = || {
        let mut command = tracer();
        hide(&mut command, &["/sys/kernel/btf"]);
        command
    };
    assert_missing(command, "BTF", "CONFIG_DEBUG_INFO_BTF");
}

#[test]
fn missing_mounts_are_named() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    for (path, remedy) in [("/proc", "mount -t proc"), ("/sys", "mount -t sysfs")] {
        let command = || {
            let mut command = tracer();
            hide(&mut command, if path == "/proc" { &["/proc"] } else { &["/sys"] });
            command
        };
        assert_missing(command, path, remedy);
    }
}

/// tracefs is not mounted, and a process without CAP_SYS_ADMIN cannot mount it.
#[test]
fn without_tracefs_check_names_the_remedy() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let command = || {
        let mut command = tracer();
        hide(&mut command, &["/sys/kernel/tracing", "/sys/kernel/debug"]);
        drop_capabilities(&mut command, &[CAP_SYS_ADMIN]);
        command
    };
    assert_missing(command, "tracefs", "mount -t tracefs");
}

/// As in a container without `--privileged`.
#[test]
fn a_forbidden_bpf_call_is_not_reported_as_a_missing_capability() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let command = || {
        let mut command = tracer();
        forbid_bpf(&mut command);
        command
    };
    assert_missing(command, "bpf(2)", "seccomp=unconfined");
}

#[test]
fn a_user_namespace_is_named() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let in_user_namespace = || -> io::Result<()> { Ok(unshare(CloneFlags::CLONE_NEWUSER)?) };
    let command = || {
        let mut command = tracer();
        // SAFETY: a system call.
        unsafe { command.pre_exec(in_user_namespace) };
        command
    };
    if command().arg("--version").output().is_err() {
        skip!("user namespaces are not allowed here");
    }
    assert_missing(command, "user namespace", "outside the container");
}

/// As with `etxtbsy-trace check | head -1`.
#[test]
fn a_closed_stdout_ends_check_quietly() {
    let _turn = Turn::take();
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let ended = Process::start_with_stdout(tracer().arg("check"), writer).wait();
    assert_eq!((ended.signal, ended.stderr.as_str()), (Some(Signal::SIGPIPE as i32), ""));
}
