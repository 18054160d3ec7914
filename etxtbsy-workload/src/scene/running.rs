//! The other direction: writing to a running program fails.

use super::opened::call_creat;
use super::{Busy, Named, Supported, until};
use crate::child::{Actor, Program, Span, fork, timed, wait, wait_success};
use crate::report::{Holder, Scene, Task};
use crate::stage;
use anyhow::{Context, Result, bail};
use etxtbsy_trace_event::{How, State, VerdictKind, Via};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, dup2_stdin, dup2_stdout};
use std::ffi::{CString, c_void};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

pub(super) const SCENES: &[Named] = &[
    ("open-running", || one_runs("openat", |path| open(path, OFlag::O_WRONLY))),
    ("open-trunc-running", || {
        one_runs("openat", |path| open(path, OFlag::O_RDONLY | OFlag::O_TRUNC))
    }),
    ("open-running-at", open_at),
    ("creat-running", creat),
    ("truncate-running", || one_runs("truncate", |path| nix::unistd::truncate(path, 0))),
    ("running-twice", twice),
    ("running-forked", forked),
    ("running-interpreter", interpreter),
    ("running-in-exec", in_exec),
    ("running-before-exec", before_exec),
    ("running-exiting", exiting),
    ("running-execs", execs),
    ("running-late", late),
    ("running-link-moved", link_moved),
    ("running-replaced", replaced),
];

fn open(path: &Path, flags: OFlag) -> nix::Result<()> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty()).map(drop)
}

/// One process runs the program to which `call` tries to write.
pub(super) fn one_runs(
    syscall: &str,
    call: impl FnOnce(&Path) -> nix::Result<()>,
) -> Result<Scene> {
    let busy = program("/bin/cat")?;
    let runner = Runner::start(&busy.path, &[])?;
    expect_refused(syscall, || call(&busy.path))?;
    Ok(scene(&busy, syscall, vec![runner.end()?]))
}

/// The path is relative to an fd.
fn open_at() -> Result<Scene> {
    let mut path = PathBuf::new();
    let scene = one_runs("openat", |running| {
        path = running.file_name().unwrap_or_default().into();
        let dir = File::open(running.with_file_name("")).map_err(|_| Errno::ENOTDIR)?;
        openat(&dir, &path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).map(drop)
    })?;
    Ok(Scene { path, ..scene })
}

fn creat() -> Result<Scene> {
    one_runs("creat", |path| call_creat(path).map(drop))
}

fn twice() -> Result<Scene> {
    let busy = program("/bin/cat")?;
    let runners = [Runner::start(&busy.path, &[])?, Runner::start(&busy.path, &[])?];
    expect_refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    let holders = runners.into_iter().map(Runner::end).collect::<Result<_>>()?;
    Ok(Scene { writers: -2, ..scene(&busy, "openat", holders) })
}

/// A process that runs the program has forked a child, which runs it too.
fn forked() -> Result<Scene> {
    let busy = program("/bin/sh")?;
    // The child is a shell that does not exec; its parent prints its pid.
    let commands = "read a; exec 3<&0; (read b <&3) & echo $!; wait";
    let runner = Runner::start(&busy.path, &["-c", commands])?;
    let child: i32 =
        runner.first_line.trim().parse().context("cannot parse the pid that the shell printed")?;
    expect_refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;

    let parent = runner.pid.as_raw().cast_unsigned();
    let one = runner.end()?;
    let mut two = Holder { pid: child.cast_unsigned(), state: State::Forked, ..one.clone() };
    two.ancestors.insert(0, parent);
    Ok(Scene { writers: -2, ..scene(&busy, "openat", vec![one, two]) })
}

/// A script is running, so its interpreter cannot be written.
fn interpreter() -> Result<Scene> {
    let busy = program("/bin/sh")?;
    let script = busy.beside("script");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o777).open(&script)?;
    write!(file, "#!{}\nread a\necho $a\nread b\nexit 0\n", busy.path.display())?;
    drop(file);
    let runner = Runner::start(&script, &[])?;
    expect_refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    Ok(scene(&busy, "openat", vec![runner.end()?]))
}

/// One process is stopped in its exec of the program, and counts twice.
fn in_exec() -> Result<Scene> {
    let (busy, runner) = traced(libc::PTRACE_O_TRACEEXEC)?;
    expect_refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    let holder = Holder { state: State::InExec, ..runner.end()? };
    Ok(Scene { writers: -2, ..scene(&busy, "openat", vec![holder]) })
}

/// One process that runs the program is stopped at the beginning of its exit.
fn exiting() -> Result<Scene> {
    let (busy, runner) = traced(libc::PTRACE_O_TRACEEXIT)?;
    runner.continue_to_next_stop()?;
    expect_refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    let holder = Holder { state: State::Exiting, ..runner.end()? };
    Ok(scene(&busy, "openat", vec![holder]))
}

/// A traced process that is stopped at the event of `option`, in or after its exec of the program.
fn traced(option: i32) -> Result<(Busy, Traced)> {
    let busy = program("/bin/true")?;
    let program = Program::new(&busy.path)?;
    let pid = fork(|| {
        // SAFETY: the calls take numbers.
        unsafe {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
        }
        program.exec() as i32
    })?;
    let traced = Traced(pid);
    traced.wait_stopped()?;
    // SAFETY: the call takes numbers.
    let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid.as_raw(), 0, option) };
    Errno::result(set).context("PTRACE_SETOPTIONS")?;
    traced.continue_to_next_stop()?;
    Ok((busy, traced))
}

/// A stopped child that this process traces.
struct Traced(Pid);

impl Traced {
    fn wait_stopped(&self) -> Result<()> {
        match waitpid(self.0, None)? {
            WaitStatus::Stopped(..) | WaitStatus::PtraceEvent(..) => Ok(()),
            other => bail!("the traced process is not stopped: {other:?}"),
        }
    }

    fn cont(&self) -> nix::Result<()> {
        // SAFETY: the call takes numbers.
        Errno::result(unsafe { libc::ptrace(libc::PTRACE_CONT, self.0.as_raw(), 0, 0) }).map(drop)
    }

    /// Continues the child until it stops again.
    fn continue_to_next_stop(&self) -> Result<()> {
        self.cont().context("PTRACE_CONT")?;
        self.wait_stopped()
    }

    fn end(self) -> Result<Holder> {
        let (outcome, span) = timed(|| {
            self.cont().context("PTRACE_CONT")?;
            wait_success(self.0)
        });
        outcome?;
        Ok(runner(self.0, span))
    }
}

/// One process waits in its exec of the program for its arguments: userfaultfd(2) never provides their
/// page.
fn before_exec() -> Result<Scene> {
    let busy = program("/bin/true")?;
    let path = CString::new(busy.path.as_os_str().as_bytes())?;
    let child = Actor::start(|control| {
        let page = page_that_never_arrives()?;
        control.send([0]);
        let argv = [path.as_ptr(), page.cast_const().cast(), std::ptr::null()];
        // SAFETY: a C string and a null-terminated list. One pointer refers to memory for which the kernel
        // waits.
        unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
        Err(Errno::last())
    })?;
    let pid = child.pid();
    if child.receive::<1>().is_err() {
        let status = wait(pid)?;
        return Err(Errno::from_raw(status)).supported("userfaultfd");
    }
    let waits = || {
        let where_ = std::fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
        Ok(where_.contains("userfault"))
    };
    until("the exec waits for its arguments", waits)?;
    expect_refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    let (outcome, span) = timed(|| -> Result<()> {
        kill(pid, Signal::SIGKILL)?;
        waitpid(pid, None)?;
        Ok(())
    });
    outcome?;
    let holder = Holder { state: State::InExec, ..runner(pid, span) };
    Ok(scene(&busy, "openat", vec![holder]))
}

/// A page whose access blocks, because no one answers the page fault.
fn page_that_never_arrives() -> nix::Result<*mut c_void> {
    /// `struct uffdio_api` and `struct uffdio_register`, include/uapi/linux/userfaultfd.h.
    const API: libc::c_ulong = 0xc018_aa3f;
    const REGISTER: libc::c_ulong = 0xc020_aa00;
    const VERSION: u64 = 0xaa;
    const MISSING: u64 = 1;
    const PAGE: usize = 4096;
    // SAFETY: the structures have the sizes that the ioctl numbers encode, and the new mapping replaces no
    // other.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC))?;
        let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        let mut api = [VERSION, 0, 0];
        Errno::result(libc::ioctl(fd, API as _, api.as_mut_ptr()))?;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let page = libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let mut register = [page as u64, PAGE as u64, MISSING, 0];
        Errno::result(libc::ioctl(fd, REGISTER as _, register.as_mut_ptr()))?;
        Ok(page)
    }
}

/// The runner execs another program after the failure.
fn execs() -> Result<Scene> {
    let busy = program("/bin/sh")?;
    let runner = Runner::start(&busy.path, &["-c", "read a; echo $a; read b; exec /bin/true"])?;
    expect_refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    let holder = Holder { released: How::Exec, ..runner.end()? };
    Ok(scene(&busy, "openat", vec![holder]))
}

/// Another process starts the program just after the call.
fn late() -> Result<Scene> {
    let busy = program("/bin/cat")?;
    let runner = Runner::start(&busy.path, &[])?;
    expect_refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    let other = Runner::start(&busy.path, &[])?;
    let holder = runner.end()?;
    other.end()?;
    Ok(scene(&busy, "openat", vec![holder]))
}

/// The path is a link; just after the call it leads to another running program.
fn link_moved() -> Result<Scene> {
    let busy = program("/bin/cat")?;
    let (other, link) = (busy.beside("other"), busy.beside("link"));
    stage::copy_program("/bin/cat", &other)?;
    symlink(&busy.path, &link)?;
    let runners = [Runner::start(&busy.path, &[])?, Runner::start(&other, &[])?];
    expect_refused("openat", || {
        let outcome = open(&link, OFlag::O_WRONLY);
        std::fs::remove_file(&link)
            .and_then(|()| symlink(&other, &link))
            .map_err(|_| Errno::EIO)?;
        outcome
    })?;
    let [one, two] = runners;
    let holder = one.end()?;
    two.end()?;
    Ok(Scene { path: link, ..scene(&busy, "openat", vec![holder]) })
}

/// The file is removed and created again just after the call, as by `cp -f`.
fn replaced() -> Result<Scene> {
    let busy = program("/bin/cat")?;
    let runner = Runner::start(&busy.path, &[])?;
    expect_refused("openat", || {
        let outcome = open(&busy.path, OFlag::O_WRONLY | OFlag::O_TRUNC);
        std::fs::remove_file(&busy.path).map_err(|_| Errno::EIO)?;
        open(&busy.path, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL)?;
        outcome
    })?;
    Ok(scene(&busy, "openat", vec![runner.end()?]))
}

/// Copies a program for the scene to run.
pub(super) fn program(from: &str) -> Result<Busy> {
    let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let path = dir.path().join("running");
    stage::copy_program(from, &path)?;
    Ok(Busy { _dir: Some(dir), ..Busy::existing(path)? })
}

/// A process that runs a program until its stdin ends, so that it never outlives the workload.
pub(super) struct Runner {
    pid: Pid,
    stdin: PipeWriter,
    /// The line that it printed after reading one, which shows that it runs.
    first_line: String,
}

impl Runner {
    pub(super) fn start(path: &Path, arguments: &[&str]) -> Result<Self> {
        let program = Program::with_arguments(path, arguments)?;
        let (input, mut stdin) = std::io::pipe()?;
        let (output, stdout) = std::io::pipe()?;
        let pid = fork(|| match dup2_stdin(&input).and(dup2_stdout(&stdout)) {
            Ok(()) => program.exec() as i32,
            Err(errno) => errno as i32,
        })?;
        drop((input, stdout));
        // Fails if the process has ended, which the read below shows.
        let _ = stdin.write_all(b"x\n");
        let mut first_line = String::new();
        if BufReader::new(output).read_line(&mut first_line)? == 0 {
            wait_success(pid)?;
            bail!("{} ended too early", path.display());
        }
        Ok(Self { pid, stdin, first_line })
    }

    pub(super) fn end(self) -> Result<Holder> {
        let (outcome, span) = timed(|| {
            drop(self.stdin);
            wait_success(self.pid)
        });
        outcome?;
        Ok(runner(self.pid, span))
    }
}

/// A process that ran the program until it ended.
fn runner(pid: Pid, ended: Span) -> Holder {
    Holder {
        cloexec: false,
        via: Via::Running,
        opened: None,
        released: How::Exit,
        released_after: Some(ended),
        ..Holder::opener(Task::main_of(pid.as_raw()), [])
    }
}

/// Makes a call, which must fail with ETXTBSY.
fn expect_refused(syscall: &str, call: impl FnOnce() -> nix::Result<()>) -> Result<()> {
    match call() {
        Err(Errno::ETXTBSY) => Ok(()),
        Err(errno) => Err(errno).supported(&format!("{syscall}, which should fail with ETXTBSY")),
        Ok(()) => bail!(
            "the {syscall} of a running program succeeded: \
             this kernel does not refuse it (see: etxtbsy-trace check)"
        ),
    }
}

/// The facts, if this process made the call and one process ran the program.
pub(super) fn scene(busy: &Busy, syscall: &str, holders: Vec<Holder>) -> Scene {
    Scene {
        scenario: String::new(),
        syscall: syscall.into(),
        path: busy.path.clone(),
        busy: busy.path.clone(),
        ino: busy.ino,
        role: None,
        writers: -1,
        victim: Task::current(),
        holders,
        unheld: Vec::new(),
        verdict: VerdictKind::RunningExecutable,
    }
}
