//! Hostile names, paths and file systems of other processes.

use crate::fuse::{LINK, Server};
use crate::support::{NOBODY, Process, Trace, Turn, spawn_scoped, tracer};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use nix::libc;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::ffi::{CString, OsString};
use std::fs::{self, Permissions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use test_support::skip;

/// The victim writes to a running program through a link in its cwd, on a FUSE file system that answers
/// only the victim.
#[test]
fn the_tracer_makes_no_request_to_a_file_system_that_never_answers() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let [mount, program] = ["mount", "program"].map(|name| turn.dir.path().join(name));
    fs::create_dir(&mount).unwrap();
    fs::copy("/bin/cat", &program).unwrap();
    let mut running = Process::start(&mut Command::new(&program));
    // It runs once it answers.
    running.say_go();
    assert_eq!(running.line(), "go");
    let script = format!("read go; cd {}; echo x 2>/dev/null >{LINK}; echo $?", mount.display());
    // On a thread, whose mount namespace ends with it.
    let asked = thread::scope(|scope| {
        let thread = spawn_scoped(scope, || {
            let (sender, victim_pid) = mpsc::channel::<u32>();
            let victim_pid = Mutex::new(victim_pid);
            let pid = OnceLock::new();
            let server = Server::start(&mount, &program, move |asking| {
                asking == *pid.get_or_init(|| victim_pid.lock().unwrap().recv().unwrap())
            });
            let Some(server) = server else {
                skip!("this kernel has no FUSE");
            };
            let mut victim = Process::start(Command::new("sh").args(["-c", &script]));
            let victim_pid = victim.pid().as_raw();
            sender.send(victim_pid.cast_unsigned()).unwrap();
            let tracer =
                Process::start(tracer().args(["--json", "--pid", &victim_pid.to_string()]));
            let meta = tracer.line();
            victim.say_go();
            assert_ne!(victim.line(), "0");
            assert_eq!(victim.wait().code, Some(0));
            let ended = tracer.wait();
            assert_eq!(ended.code, Some(0), "{}", ended.stderr);
            let trace = Trace::parse(&format!("{meta}\n{}", ended.stdout));
            let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
            assert_eq!(incident.path.as_deref(), Some(LINK));
            assert_eq!(incident.victim.cwd.as_deref(), mount.to_str());
            umount2(&mount, MntFlags::MNT_DETACH).unwrap();
            server.end()
        });
        thread.join().unwrap()
    });
    assert_eq!(asked, []);
    running.wait();
}

/// Another user swaps two names in a directory of theirs, until it is dropped.
struct Swapping(Pid);

impl Swapping {
    fn start(uid: u32, names: [&Path; 2]) -> Self {
        let [a, b] = names.map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
        // SAFETY: the child makes system calls only.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self(child),
            // SAFETY: plain values, and strings that live.
            ForkResult::Child => unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                let groups = libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<u32>());
                let gid = libc::syscall(libc::SYS_setresgid, uid, uid, uid);
                let uid = libc::syscall(libc::SYS_setresuid, uid, uid, uid);
                if [groups, gid, uid] == [0; 3] {
                    let (at, flags) = (libc::AT_FDCWD, libc::RENAME_EXCHANGE);
                    let (a, b) = (a.as_ptr(), b.as_ptr());
                    while libc::syscall(libc::SYS_renameat2, at, a, at, b, flags) == 0 {}
                }
                libc::_exit(1)
            },
        }
    }
}

impl Drop for Swapping {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let ended = waitpid(self.0, None);
        let killed = matches!(ended, Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)));
        assert!(killed || thread::panicking(), "it could not swap: {ended:?}");
    }
}

/// Root writes into a directory of another user, who swaps what is there with a link to a file of root's.
#[test]
fn a_link_swapped_in_while_the_output_is_opened_is_not_followed() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let at = |name: &str| turn.dir.path().join(name);
    fs::set_permissions(turn.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let (theirs, private) = (at("theirs"), at("private"));
    for directory in [&theirs, &private, &theirs.join("directory")] {
        fs::create_dir(directory).unwrap();
    }
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    let precious = private.join("out");
    fs::write(&precious, "precious").unwrap();
    fs::set_permissions(&precious, Permissions::from_mode(0o600)).unwrap();
    fs::write(theirs.join("out"), "").unwrap();
    symlink(&precious, theirs.join("link")).unwrap();
    symlink(&private, theirs.join("directory-link")).unwrap();
    for name in ["", "directory", "out", "link", "directory-link"] {
        lchown(theirs.join(name), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let recording = at("recording.jsonl");
    fs::write(&recording, "{\"type\":\"lost\",\"what\":\"x\",\"count\":1}\n").unwrap();

    for (names, output) in
        [(["out", "link"], "out"), (["directory", "directory-link"], "directory/out")]
    {
        let names = names.map(|name| theirs.join(name));
        let swapping = Swapping::start(NOBODY, [&names[0], &names[1]]);
        let (mut written, mut refused) = (0, 0);
        let begun = Instant::now();
        // Until both have happened, so that the swap was hit.
        while begun.elapsed() < Duration::from_secs(3) || written == 0 || refused == 0 {
            let ended = tracer()
                .args(["replay", "--overwrite", "--format", "text"])
                .arg(&recording)
                .arg("-o")
                .arg(theirs.join(output))
                .output()
                .unwrap();
            match ended.status.code() {
                Some(0) => written += 1,
                Some(125) => {
                    refused += 1;
                    let error = String::from_utf8_lossy(&ended.stderr);
                    assert!(error.contains("is a link that uid 65534 made"), "{error}");
                }
                _ => panic!("{ended:?}"),
            }
            assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{written} {refused}");
        }
        drop(swapping);
        eprintln!("{output}: {written} times written, {refused} times refused");
    }
}

/// Terminal escapes, bidi characters, a fake line of ours, and invalid UTF-8.
const NASTY: &[u8] = b"\x1b]0;title\x07\x1b[2J\n{\"type\":\"lost\"}\r\xe2\x80\xae\xff\xc3 \\ ' \"";

/// The longest possible path below a directory, of hostile names.
fn longest(directory: &Path) -> PathBuf {
    let mut path = directory.as_os_str().as_bytes().to_vec();
    while path.len() < LONGEST {
        // No name of one byte is left over.
        let room = (LONGEST - path.len() - 1).min(255);
        let room = if LONGEST - path.len() - 1 == 256 { 250 } else { room };
        path.push(b'/');
        path.extend(NASTY.iter().cycle().take(room));
    }
    PathBuf::from(OsString::from_vec(path))
}

/// PATH_MAX, without the NUL.
const LONGEST: usize = 4095;

#[test]
fn hostile_names_are_recorded_and_escaped() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let path = longest(turn.dir.path());
    assert_eq!(path.as_os_str().len(), LONGEST);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::copy("/bin/true", &path).unwrap();
    let own = std::process::id().to_string();
    let output = turn.output();
    let tracer = Process::start(
        tracer()
            .args(["--format", "text", "-v", "--color", "never"])
            .args(["--stop-after", "1", "--pid", &own, "-o"])
            .arg(&output),
    );
    // When it prints what it watches, it traces.
    tracer.line();
    // This process and the victim change their names all the time.
    let comm = format!("/proc/{own}/comm");
    let name = fs::read(&comm).unwrap();
    let over = AtomicBool::new(false);
    let argument = OsString::from_vec(NASTY.iter().copied().cycle().take(4096).collect());
    thread::scope(|scope| {
        scope.spawn(|| {
            for part in NASTY.windows(15).cycle() {
                // The kernel accepts a newline in a name.
                fs::write(&comm, part).unwrap();
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let held = fs::OpenOptions::new().append(true).open(&path).unwrap();
        let failed = Command::new(&path).arg0(&argument).arg(&argument).spawn().unwrap_err();
        assert_eq!(failed.raw_os_error(), Some(libc::ETXTBSY));
        drop(held);
        while tracer.line().is_empty() {}
        over.store(true, Ordering::Relaxed);
    });
    fs::write(comm, name.trim_ascii_end()).unwrap();
    let ended = tracer.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let trace = Trace::read(&output, &ended);
    let [incident] = &trace.incidents[..] else { panic!("{:#?}", trace.incidents) };
    assert!(incident.complete, "{incident:#?}");
    let exact = incident.path_b64.as_ref().unwrap();
    assert_eq!(BASE64_STANDARD.decode(exact).unwrap(), path.as_os_str().as_bytes());
    // From its end, up to some 3,840 bytes.
    let file = BASE64_STANDARD.decode(incident.file.path_b64.as_ref().unwrap()).unwrap();
    let end = file.strip_prefix("/…".as_bytes()).unwrap();
    assert!(end.len() > 3500 && path.as_os_str().as_bytes().ends_with(end), "{incident:#?}");
    assert_eq!(incident.holders[0].pid.to_string(), own);

    let json = fs::read_to_string(output).unwrap();
    for text in [&json, &ended.stdout, &ended.stderr] {
        let seen = |c: char| c == '\n' || !(c.is_control() || c == '\u{202e}' || c == '\u{fffe}');
        assert!(text.chars().all(seen), "{text}");
    }
    // No name adds a line.
    assert!(!ended.stdout.lines().any(|line| line.starts_with("{\"type\"")), "{}", ended.stdout);
}

/// A process with all the arguments that the kernel allows, of nothing but control characters, and 60 copies of
/// it hold the file.
#[test]
fn two_mebibytes_of_arguments_in_sixty_holders_are_a_short_line() {
    const HOLDERS: usize = 60;
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let program = turn.dir.path().join("program");
    fs::copy("/bin/true", &program).unwrap();
    let script = format!(
        "read go; exec 3<&0 9>>\"$0\"; i=0; \
         while [ $i -lt {HOLDERS} ]; do (read end) <&3 & i=$((i+1)); done; \
         \"$0\" 2>/dev/null; echo $?; read end"
    );
    let argument = "\u{1}".repeat(120 << 10);
    let mut root = Process::start(
        Command::new("sh").args(["-c", &script]).arg(&program).args(vec![&argument; 15]),
    );
    let output = turn.output();
    let tracer = Process::start(
        tracer().args(["--json", "--pid", &root.pid().to_string(), "-o"]).arg(&output),
    );
    let meta = tracer.line();
    root.say_go();
    assert_eq!(root.line(), "126");
    let line = tracer.line();
    assert!(line.len() <= 1 << 20, "{} bytes", line.len());
    let status = fs::read_to_string(format!("/proc/{}/status", tracer.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(peak < 200 << 10, "{peak} kB");
    root.wait();
    let ended = tracer.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);

    let trace = Trace::parse(&format!("{meta}\n{line}\n{}", ended.stdout));
    let [incident] = &trace.incidents[..] else { panic!("{} incidents", trace.incidents.len()) };
    assert!(incident.complete, "{:?}", incident.verdict);
    assert!(incident.holders.len() >= HOLDERS, "{}", incident.holders.len());
    for holder in &incident.holders {
        let argv = holder.argv.as_ref().unwrap();
        assert!(argv.last().unwrap().ends_with('…'), "{argv:?}");
    }
    // It is read back.
    let read =
        Process::start(crate::support::tracer().args(["replay", "--json"]).arg(&output)).wait();
    assert_eq!(read.code, Some(0), "{}", read.stderr);
    assert_eq!(read.stdout, fs::read_to_string(&output).unwrap());
}

/// The same for the command line of the tracer itself.
#[test]
fn a_command_line_of_two_mebibytes_is_read_back() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let argument = "\u{1}".repeat(120 << 10);
    let (ended, trace) = turn.run(&[], &[&["true"][..], &[argument.as_str(); 15]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let command = trace.meta.filter.command.unwrap();
    assert_eq!(command[0], "true");
    assert!(command.last().unwrap().ends_with('…'));
    let output = turn.output();
    assert!(fs::metadata(&output).unwrap().len() < 3 << 20);
    let read = Process::start(tracer().args(["replay", "--json"]).arg(output)).wait();
    assert_eq!(read.code, Some(0), "{}", read.stderr);
}
