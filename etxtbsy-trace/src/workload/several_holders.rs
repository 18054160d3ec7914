//! Two processes opened the file, one of them has two fds of it.

use super::child::{Program, await_go, close, fork, hear, tell, wait_busy, wait_success};
use super::report::{Holder, Scene, Task};
use super::stage;
use crate::lines::{How, Role, State, VerdictKind, Via};
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid};
use std::io::{PipeWriter, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn run() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("busy");
    drop(stage::script(&path)?);
    let ino = path.metadata()?.ino();
    let program = Program::new(&path)?;

    let closes = Opener::start(&path, true)?;
    let exits = Opener::start(&path, false)?;
    let victim = fork(|| program.exec())?;
    let failure = wait_busy(victim);
    let holders = vec![closes.end(How::Close)?, exits.end(How::Exit)?];
    failure?;

    Ok(Scene {
        scenario: "several-holders".into(),
        syscall: "execve".into(),
        path: path.clone(),
        busy: path,
        ino,
        role: Some(Role::Target),
        writers: 2,
        victim: Task::main_of(victim.as_raw()),
        holders,
        unheld: Vec::new(),
        verdict: VerdictKind::StillOpen,
    })
}

/// A process that has the file open until it is told to let go.
struct Opener {
    pid: Pid,
    fds: Vec<u32>,
    go: PipeWriter,
}

impl Opener {
    /// With `twice` it has two fds of it, and closes both; without, it leaves that to its exit.
    fn start(path: &Path, twice: bool) -> Result<Self> {
        let (gate, go) = std::io::pipe()?;
        let (reader, writer) = std::io::pipe()?;
        let pid = fork(|| {
            let opened = open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty());
            let Ok(file) = opened.map(IntoRawFd::into_raw_fd) else {
                return Errno::last_raw();
            };
            // SAFETY: fcntl(2) on an fd that is this child's own.
            let copy = twice.then(|| unsafe { libc::fcntl(file, libc::F_DUPFD_CLOEXEC, 0) });
            tell(&writer, [file, copy.unwrap_or(-1)]);
            await_go(&gate, &go);
            if let Some(copy) = copy {
                close(file);
                close(copy);
            }
            0
        })?;
        drop(writer);
        let fds = hear::<2>(&reader)?.into_iter().filter_map(|fd| u32::try_from(fd).ok()).collect();
        Ok(Self { pid, fds, go })
    }

    fn end(mut self, released: How) -> Result<Holder> {
        self.go.write_all(b"x")?;
        wait_success(self.pid)?;
        let task = Task::main_of(self.pid.as_raw());
        Ok(Holder {
            pid: task.pid,
            fds: self.fds,
            cloexec: true,
            via: Via::Open,
            state: State::Running,
            opened: Some(task),
            forked: None,
            ancestors: vec![getpid().as_raw().cast_unsigned()],
            released,
            exec: None,
        })
    }
}
