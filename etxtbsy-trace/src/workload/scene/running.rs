//! The other direction: a program that runs refuses to be written.

use super::opened::call_creat;
use super::{Busy, Named, Supported};
use crate::lines::{How, VerdictKind, Via};
use crate::workload::child::{Program, fork, timed, wait_success};
use crate::workload::report::{Holder, Scene, Task};
use crate::workload::stage;
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stdin, dup2_stdout};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, PipeWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
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
];

fn open(path: &Path, flags: OFlag) -> nix::Result<()> {
    openat(AT_FDCWD, path, flags | OFlag::O_CLOEXEC, Mode::empty()).map(drop)
}

/// One process runs the program that `call` would write to.
pub(super) fn one_runs(
    syscall: &str,
    call: impl FnOnce(&Path) -> nix::Result<()>,
) -> Result<Scene> {
    let busy = program("/bin/cat")?;
    let runner = Runner::start(&busy.path, &[])?;
    refused(syscall, || call(&busy.path))?;
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
    refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    let holders = runners.into_iter().map(Runner::end).collect::<Result<_>>()?;
    Ok(Scene { writers: -2, ..scene(&busy, "openat", holders) })
}

/// A process that runs it has forked a child, which runs it as well.
fn forked() -> Result<Scene> {
    let busy = program("/bin/sh")?;
    // The child is a shell that execs nothing, and says its own pid through its parent.
    let commands = "read a; exec 3<&0; (read b <&3) & echo $!; wait";
    let runner = Runner::start(&busy.path, &["-c", commands])?;
    let child: i32 = runner.said.trim().parse().context("the pid that the shell said")?;
    refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;

    let parent = runner.pid.as_raw().cast_unsigned();
    let one = runner.end()?;
    let mut two = Holder { pid: child.cast_unsigned(), ..one.clone() };
    two.ancestors.insert(0, parent);
    Ok(Scene { writers: -2, ..scene(&busy, "openat", vec![one, two]) })
}

/// Of a script that runs it is the interpreter that cannot be written.
fn interpreter() -> Result<Scene> {
    let busy = program("/bin/sh")?;
    let script = busy.beside("script");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o777).open(&script)?;
    write!(file, "#!{}\nread a\necho $a\nread b\nexit 0\n", busy.path.display())?;
    drop(file);
    let runner = Runner::start(&script, &[])?;
    refused("openat", || open(&busy.path, OFlag::O_WRONLY))?;
    Ok(scene(&busy, "openat", vec![runner.end()?]))
}

/// A copy of a program, for this scene to run.
fn program(from: &str) -> Result<Busy> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("running");
    stage::copy_program(from, &path)?;
    Ok(Busy { _dir: Some(dir), ..Busy::existing(path)? })
}

/// A process that runs a program until its stdin ends, so it never outlives the workload.
struct Runner {
    pid: Pid,
    stdin: PipeWriter,
    /// A line that it said after it had read one: so it runs.
    said: String,
}

impl Runner {
    fn start(path: &Path, arguments: &[&str]) -> Result<Self> {
        let program = Program::with_arguments(path, arguments)?;
        let (input, mut stdin) = std::io::pipe()?;
        let (output, stdout) = std::io::pipe()?;
        let pid = fork(|| match dup2_stdin(&input).and(dup2_stdout(&stdout)) {
            Ok(()) => program.exec() as i32,
            Err(errno) => errno as i32,
        })?;
        drop((input, stdout));
        // It may have ended already, which shows below.
        let _ = stdin.write_all(b"x\n");
        let mut said = String::new();
        if BufReader::new(output).read_line(&mut said)? == 0 {
            wait_success(pid)?;
            bail!("{} ended too early", path.display());
        }
        Ok(Self { pid, stdin, said })
    }

    fn end(self) -> Result<Holder> {
        let (outcome, span) = timed(|| {
            drop(self.stdin);
            wait_success(self.pid)
        });
        outcome?;
        Ok(Holder {
            cloexec: false,
            via: Via::Running,
            opened: None,
            released: How::Exit,
            released_after: Some(span),
            ..Holder::opener(Task::main_of(self.pid.as_raw()), [])
        })
    }
}

/// That a call of this process fails as it should.
fn refused(syscall: &str, call: impl FnOnce() -> nix::Result<()>) -> Result<()> {
    match call() {
        Err(Errno::ETXTBSY) => Ok(()),
        Err(errno) => Err(errno).supported(&format!("{syscall}, which should fail with ETXTBSY")),
        Ok(()) => bail!(
            "the {syscall} of a running program passed: \
             this kernel does not deny it (see: etxtbsy-trace check)"
        ),
    }
}

/// What is true when this process made the call, and one process ran the program.
fn scene(busy: &Busy, syscall: &str, holders: Vec<Holder>) -> Scene {
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
