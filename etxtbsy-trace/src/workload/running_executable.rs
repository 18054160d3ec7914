//! The other direction: a program that runs refuses to be written.

use super::child::{Program, fork, wait_success};
use super::report::{Holder, Scene, Task};
use super::stage;
use crate::lines::{How, State, VerdictKind, Via};
use anyhow::{Result, bail};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::dup2_stdin;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn open() -> Result<Scene> {
    scene("open-running", "openat", |path| {
        nix::fcntl::open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).map(drop)
    })
}

pub(super) fn truncate() -> Result<Scene> {
    scene("truncate-running", "truncate", |path| nix::unistd::truncate(path, 0))
}

fn scene(name: &str, syscall: &str, call: impl FnOnce(&Path) -> nix::Result<()>) -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("running");
    stage::copy_program("/bin/cat", &path)?;
    let program = Program::new(&path)?;
    let (stdin, life) = std::io::pipe()?;
    let (mut started, writer) = std::io::pipe()?;
    // It runs until its stdin ends, so it never outlives the workload.
    let runner = fork(|| match dup2_stdin(&stdin) {
        Ok(()) => program.exec(),
        Err(errno) => errno as i32,
    })?;
    drop(writer);
    // Close-on-exec ends this pipe.
    started.read_to_end(&mut Vec::new())?;
    let ino = path.metadata()?.ino();

    let outcome = call(&path);
    drop(life);
    wait_success(runner)?;
    match outcome {
        Err(nix::errno::Errno::ETXTBSY) => {}
        Err(errno) => bail!("the {syscall} failed with {errno} instead of ETXTBSY"),
        Ok(()) => bail!(
            "the {syscall} of a running program passed: \
             this kernel does not deny it (see: etxtbsy-trace check)"
        ),
    }

    let caller = Task::current();
    Ok(Scene {
        scenario: name.into(),
        syscall: syscall.into(),
        path: path.clone(),
        busy: path,
        ino,
        role: None,
        writers: 0,
        victim: caller,
        holders: vec![Holder {
            pid: runner.as_raw().cast_unsigned(),
            fds: Vec::new(),
            cloexec: false,
            via: Via::Running,
            state: State::Running,
            opened: None,
            forked: None,
            ancestors: vec![caller.pid],
            released: How::Exit,
            exec: None,
        }],
        unheld: Vec::new(),
        verdict: VerdictKind::RunningExecutable,
    })
}
