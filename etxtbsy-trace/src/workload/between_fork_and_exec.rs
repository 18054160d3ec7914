//! A child held between its fork and its exec has a copy of the fd: golang/go#22315, in slow
//! motion.

use super::child::{Program, await_go, fork, wait_busy, wait_success};
use super::report::{Holder, Scene, Task};
use super::stage;
use crate::lines::{How, Role, State, VerdictKind, Via};
use anyhow::Result;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn run() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("busy");
    let bystander = Path::new("/bin/true");
    let program = Program::new(&path)?;
    let other = Program::new(bystander)?;
    let (reader, mut writer) = std::io::pipe()?;

    let file = stage::script(&path)?;
    let holder = fork(|| {
        await_go(&reader, &writer);
        other.exec()
    })?;
    let ino = file.metadata()?.ino();
    let fd = file.as_raw_fd().cast_unsigned();
    drop(file);
    let victim = fork(|| program.exec())?;
    let failure = wait_busy(victim);
    writer.write_all(b"x")?;
    wait_success(holder)?;
    failure?;

    let parent = Task::current();
    Ok(Scene {
        scenario: "between-fork-and-exec".into(),
        syscall: "execve".into(),
        path: path.clone(),
        busy: path,
        ino,
        role: Some(Role::Target),
        writers: 1,
        victim: Task::main_of(victim.as_raw()),
        holders: vec![Holder {
            pid: holder.as_raw().cast_unsigned(),
            fds: vec![fd],
            cloexec: true,
            via: Via::Fork,
            state: State::Forked,
            opened: Some(parent),
            forked: Some(parent),
            ancestors: vec![parent.pid],
            released: How::CloseOnExec,
            exec: Some(bystander.into()),
        }],
        unheld: Vec::new(),
        verdict: VerdictKind::ForkExecRace,
    })
}
