//! The opener drops the file in every possible way.

use super::{Busy, Named};
use crate::child::{Actor, Program, Span, timed};
use crate::report::{Holder, Scene, Task};
use anyhow::{Result, bail};
use etxtbsy_trace_event::{How, VerdictKind};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

pub(super) const SCENES: &[Named] = &[
    ("released-by-close-range", || by_call(How::Close, close_range)),
    ("released-by-dup2", || by_call(How::Dup, dup2_over)),
    ("released-by-exit", || by_actor(How::Exit, None, Actor::end)),
    ("released-by-kill", || by_actor(How::Exit, None, |actor| end_by_kill(&actor))),
    ("released-by-exec", || by_actor(How::CloseOnExec, Some(Path::new("/bin/true")), Actor::end)),
];

/// A call of this process drops the file.
fn by_call(released: How, call: impl FnOnce(OwnedFd) -> nix::Result<Span>) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let file = OwnedFd::from(busy.open()?);
    let fd = file.as_raw_fd();
    victim.exec()?;
    let released_after = Some(call(file)?);
    let holder = Holder { released, released_after, ..Holder::opener(Task::current(), [fd]) };
    Ok(victim.scene(VerdictKind::StillOpen, vec![holder]))
}

fn close_range(file: OwnedFd) -> nix::Result<Span> {
    let fd = file.into_raw_fd();
    // SAFETY: the call closes only this fd, which no value owns any more.
    let (closed, span) = timed(|| unsafe { libc::syscall(libc::SYS_close_range, fd, fd, 0) });
    Errno::result(closed).map(|_| span)
}

fn dup2_over(mut file: OwnedFd) -> nix::Result<Span> {
    let other = open("/dev/null", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    let (outcome, span) = timed(|| nix::unistd::dup2(&other, &mut file));
    outcome.map(|()| span)
}

fn end_by_kill(actor: &Actor) -> Result<Span> {
    let (outcome, span) = timed(|| {
        kill(actor.pid(), Signal::SIGKILL)?;
        waitpid(actor.pid(), None)
    });
    match outcome? {
        WaitStatus::Signaled(..) => Ok(span),
        other => bail!("a child of the workload did not die of SIGKILL: {other:?}"),
    }
}

/// A child opens the file; its exit or exec drops it.
fn by_actor(
    released: How,
    exec: Option<&Path>,
    end: impl FnOnce(Actor) -> Result<Span>,
) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let program = exec.map(Program::new).transpose()?;
    let opener = Actor::start(|control| {
        let file = open(&busy.path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        // Leaked: the exit or the exec closes it.
        control.send([file.into_raw_fd().into()]);
        control.wait()?;
        match &program {
            Some(program) => Err(program.exec()),
            None => Ok(()),
        }
    })?;
    let [fd] = opener.receive()?;
    victim.exec()?;
    let holder = Holder {
        released,
        exec: exec.map(Into::into),
        ..Holder::opener(opener.task(), [fd as i32])
    };
    let released_after = Some(end(opener)?);
    Ok(victim.scene(VerdictKind::StillOpen, vec![Holder { released_after, ..holder }]))
}
