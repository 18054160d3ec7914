//! The fd was sent over a socket (SCM_RIGHTS), and the opener has closed its own.

use super::child::{Program, await_go, close, fork, hear, tell, wait_busy, wait_success};
use super::report::{Holder, Scene, Task};
use super::stage;
use crate::lines::{How, Role, State, VerdictKind, Via};
use anyhow::Result;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;

pub(super) fn run() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("busy");
    let program = Program::new(&path)?;
    let (gate, mut go) = std::io::pipe()?;
    let (reader, writer) = std::io::pipe()?;
    let (near, far) = UnixStream::pair()?;

    let holder = fork(|| {
        close(near.as_raw_fd());
        match receive(&far) {
            Ok(fd) => {
                tell(&writer, [fd]);
                await_go(&gate, &go);
                close(fd);
                0
            }
            Err(errno) => errno as i32,
        }
    })?;
    drop((writer, far));
    let file = stage::script(&path)?;
    let ino = file.metadata()?.ino();
    sendmsg::<()>(
        near.as_raw_fd(),
        &[IoSlice::new(b"x")],
        &[ControlMessage::ScmRights(&[file.as_raw_fd()])],
        MsgFlags::empty(),
        None,
    )?;
    let [fd] = hear(&reader)?;
    drop(file);
    let victim = fork(|| program.exec())?;
    let failure = wait_busy(victim);
    go.write_all(b"x")?;
    wait_success(holder)?;
    failure?;

    let opener = Task::current();
    Ok(Scene {
        scenario: "passed-fd".into(),
        syscall: "execve".into(),
        path: path.clone(),
        busy: path,
        ino,
        role: Some(Role::Target),
        writers: 1,
        victim: Task::main_of(victim.as_raw()),
        holders: vec![Holder {
            pid: holder.as_raw().cast_unsigned(),
            fds: vec![fd.cast_unsigned()],
            cloexec: true,
            via: Via::Passed,
            state: State::Running,
            opened: Some(opener),
            forked: None,
            ancestors: vec![opener.pid],
            released: How::Close,
            exec: None,
        }],
        unheld: Vec::new(),
        verdict: VerdictKind::PassedFd,
    })
}

/// The one fd that comes with the next message.
fn receive(socket: &UnixStream) -> Result<RawFd, Errno> {
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    let mut space = cmsg_space!(RawFd);
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut buffers,
        Some(&mut space),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    match message.cmsgs()?.next() {
        Some(ControlMessageOwned::ScmRights(fds)) => fds.first().copied().ok_or(Errno::ENOMSG),
        _ => Err(Errno::ENOMSG),
    }
}
