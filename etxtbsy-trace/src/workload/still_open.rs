//! The opener itself still has the file open.

use super::child::{Program, close, fork, wait_busy};
use super::report::{Holder, Scene, Task};
use super::stage;
use crate::lines::{How, Role, State, VerdictKind, Via};
use anyhow::Result;
use nix::unistd::Pid;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn run(wait_for_go: bool) -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("busy");
    let file = stage::script(&path)?;
    if wait_for_go {
        stage::wait_for_go()?;
    }
    let program = Program::new(&path)?;
    let fd = file.as_raw_fd();
    let victim = fork(|| {
        close(fd);
        program.exec()
    })?;
    wait_busy(victim)?;
    scene("still-open", &path, &path, file, victim)
}

/// What is true when this process had `busy` open until after the failure; closes it.
pub(super) fn scene(
    name: &str,
    path: &Path,
    busy: &Path,
    file: File,
    victim: Pid,
) -> Result<Scene> {
    let ino = file.metadata()?.ino();
    let opener = Task::current();
    let fd = file.as_raw_fd().cast_unsigned();
    drop(file);
    Ok(Scene {
        scenario: name.into(),
        syscall: "execve".into(),
        path: path.into(),
        busy: busy.into(),
        ino,
        role: Some(Role::Target),
        writers: 1,
        victim: Task::main_of(victim.as_raw()),
        holders: vec![Holder {
            pid: opener.pid,
            fds: vec![fd],
            cloexec: true,
            via: Via::Open,
            state: State::Running,
            opened: Some(opener),
            forked: None,
            ancestors: Vec::new(),
            released: How::Close,
            exec: None,
        }],
        unheld: Vec::new(),
        verdict: VerdictKind::StillOpen,
    })
}
