//! The fd was passed to another process, over a socket (SCM_RIGHTS) or by pidfd_getfd.

use super::{Busy, Named, Victim, number_or_errno, until};
use crate::child::{Actor, Control, close, fork, timed, wait, wait_success};
use crate::report::{Holder, Scene, Task, Unheld};
use anyhow::{Result, ensure};
use etxtbsy_trace_event::{Place, State, VerdictKind, Via};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::sys::stat::Mode;
use nix::unistd::getpid;
use std::fs;
use std::io::{IoSlice, IoSliceMut, Read as _};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::thread;

pub(super) const SCENES: &[Named] = &[
    ("passed-fd", passed_fd),
    ("passed-fd-opener-gone", opener_gone),
    ("passed-fd-forked-on", forked_on),
    ("pidfd-getfd", pidfd_getfd),
    ("in-flight-fd", in_flight),
    ("in-flight-fd-used-again", in_flight_used_again),
    ("one-description-two", one_description_two),
    ("born-later", born_later),
    ("nine-in-queue", nine_in_queue),
];

fn passed_fd() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    passed_before(&busy, &victim)
}

/// Passes the fd, then resumes the victim.
pub(super) fn passed_before(busy: &Busy, victim: &Victim<'_>) -> Result<Scene> {
    let (near, far) = UnixStream::pair()?;
    let receiver = Actor::start(|control| receive_and_hold(control, &near, &far))?;
    let file = busy.open()?;
    send(&near, &file)?;
    let [fd] = receiver.receive()?;
    drop(file);
    victim.exec()?;

    let holder = Holder::other(receiver.task(), Via::Passed, Task::current(), [fd as i32]);
    let released_after = Some(receiver.release()?);
    Ok(victim.scene(VerdictKind::PassedFd, vec![Holder { released_after, ..holder }]))
}

fn opener_gone() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (near, far) = UnixStream::pair()?;
    let receiver = Actor::start(|control| receive_and_hold(control, &near, &far))?;
    let opener = Actor::start(|_| {
        let file = open(&busy.path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        send(&near, &file)
    })?;
    let opened = opener.task();
    let [fd] = receiver.receive()?;
    wait_success(opener.pid())?;
    victim.exec()?;

    let holder = Holder::other(receiver.task(), Via::Passed, opened, [fd as i32]);
    let released_after = Some(receiver.release()?);
    Ok(victim.scene(VerdictKind::PassedFd, vec![Holder { released_after, ..holder }]))
}

/// The receiver forks a child, and closes its own fd.
fn forked_on() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (near, far) = UnixStream::pair()?;
    let receiver = Actor::start(|control| {
        close(near.as_raw_fd());
        let fd = receive(&far)?;
        let child = fork(|| match control.release(|| close(fd)) {
            Ok(()) => 0,
            Err(errno) => errno as i32,
        });
        let child = child.map_err(|_| Errno::EAGAIN)?;
        close(fd);
        control.send([child.as_raw().into(), fd.into()]);
        match wait(child) {
            Ok(0) => Ok(()),
            _ => Err(Errno::ECHILD),
        }
    })?;
    let file = busy.open()?;
    send(&near, &file)?;
    let [child, fd] = receiver.receive()?.map(|number| number as i32);
    drop(file);
    victim.exec()?;

    let opener = Task::current();
    let holder = Holder {
        state: State::Forked,
        forked: Some(receiver.task()),
        ancestors: vec![receiver.task().pid, opener.pid],
        ..Holder::other(Task::main_of(child), Via::Fork, opener, [fd])
    };
    let released_after = Some(receiver.release()?);
    Ok(victim.scene(VerdictKind::ForkExecRace, vec![Holder { released_after, ..holder }]))
}

fn pidfd_getfd() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let parent = getpid();
    let thief = Actor::start(|control| {
        let theirs = control.wait()?;
        // SAFETY: the calls take numbers.
        let fd = unsafe {
            let pidfd = Errno::result(libc::syscall(libc::SYS_pidfd_open, parent.as_raw(), 0))?;
            Errno::result(libc::syscall(libc::SYS_pidfd_getfd, pidfd, theirs, 0))
        };
        control.send([fd.unwrap_or_else(|errno| -i64::from(errno as i32))]);
        control.release(|| close(fd.unwrap_or(-1) as i32))
    })?;
    let file = busy.open()?;
    thief.resume(file.as_raw_fd().into())?;
    let fd = number_or_errno(thief.receive()?, "pidfd_getfd")?;
    drop(file);
    victim.exec()?;

    let holder = Holder::other(thief.task(), Via::Passed, Task::current(), [fd]);
    let released_after = Some(thief.release()?);
    Ok(victim.scene(VerdictKind::PassedFd, vec![Holder { released_after, ..holder }]))
}

/// The fd is sent, and not received yet.
fn in_flight() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (near, far) = UnixStream::pair()?;
    let file = busy.open()?;
    send(&near, &file)?;
    drop(file);
    victim.exec()?;
    close(receive(&far)?);

    let unheld = vec![Unheld { place: Place::SocketQueue, opened: Task::current() }];
    Ok(Scene { unheld, ..victim.scene(VerdictKind::PassedFd, Vec::new()) })
}

/// The same, while a thread of the opener reads from another file at the same fd number.
fn in_flight_used_again() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (near, far) = UnixStream::pair()?;
    let file = busy.open()?;
    send(&near, &file)?;
    let fd = file.as_raw_fd();
    drop(file);
    let (mut reader, writer) = std::io::pipe()?;
    ensure!(reader.as_raw_fd() == fd, "fd {fd} was not reused");
    thread::scope(|scope| -> Result<()> {
        scope.spawn(move || reader.read(&mut [0]));
        let call = format!("{} {fd:#x} ", libc::SYS_read);
        until("the thread reads", || {
            let tasks = fs::read_dir("/proc/self/task")?;
            let calls = tasks.map(|task| fs::read_to_string(task?.path().join("syscall")));
            Ok(calls.flatten().any(|made| made.starts_with(&call)))
        })?;
        let executed = victim.exec();
        drop(writer);
        executed
    })?;
    close(receive(&far)?);

    let unheld = vec![Unheld { place: Place::SocketQueue, opened: Task::current() }];
    Ok(Scene { unheld, ..victim.scene(VerdictKind::PassedFd, Vec::new()) })
}

/// The opener sent the fd and keeps it: two processes hold one description.
fn one_description_two() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (near, far) = UnixStream::pair()?;
    let receiver = Actor::start(|control| receive_and_hold(control, &near, &far))?;
    let file = busy.open()?;
    let own = file.as_raw_fd();
    send(&near, &file)?;
    let [fd] = receiver.receive()?;
    victim.exec()?;

    let ((), span) = timed(|| drop(file));
    let opener = Holder::opener(Task::current(), [own]);
    let other = Holder::other(receiver.task(), Via::Passed, Task::current(), [fd as i32]);
    let holders = vec![
        Holder { released_after: Some(span), ..opener },
        Holder { released_after: Some(receiver.release()?), ..other },
    ];
    Ok(victim.scene(VerdictKind::StillOpen, holders))
}

/// The fd is received after the failure, and a child inherits it later.
fn born_later() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (near, far) = UnixStream::pair()?;
    let file = busy.open()?;
    let before = file.as_raw_fd();
    send(&near, &file)?;
    drop(file);
    victim.exec()?;
    let fd = receive(&far)?;
    ensure!(fd == before, "fd {before} was not reused: {fd}");
    let child = Actor::start(|control| control.release(|| close(fd)))?;
    close(fd);
    child.release()?;

    let unheld = vec![Unheld { place: Place::SocketQueue, opened: Task::current() }];
    Ok(Scene { unheld, ..victim.scene(VerdictKind::PassedFd, Vec::new()) })
}

/// Nine messages in one queue, each with its own description.
fn nine_in_queue() -> Result<Scene> {
    const MESSAGES: usize = 9;
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (near, far) = UnixStream::pair()?;
    for _ in 0..MESSAGES {
        send(&near, busy.open()?)?;
    }
    victim.exec()?;
    for _ in 0..MESSAGES {
        close(receive(&far)?);
    }

    let unheld = vec![Unheld { place: Place::SocketQueue, opened: Task::current() }; MESSAGES];
    let writers = MESSAGES as i32;
    Ok(Scene { writers, unheld, ..victim.scene(VerdictKind::PassedFd, Vec::new()) })
}

pub(crate) fn send(socket: &UnixStream, file: impl AsFd) -> nix::Result<()> {
    let fds = [file.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let bytes = [IoSlice::new(b"x")];
    sendmsg::<()>(socket.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).map(drop)
}

/// In a child: receives an fd, sends its number, and closes it when the parent resumes this child.
fn receive_and_hold(control: &Control, near: &UnixStream, far: &UnixStream) -> nix::Result<()> {
    close(near.as_raw_fd());
    let fd = receive(far)?;
    control.send([fd.into()]);
    control.release(|| close(fd))
}

/// Receives the fd of the next message.
pub(crate) fn receive(socket: &UnixStream) -> nix::Result<RawFd> {
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
