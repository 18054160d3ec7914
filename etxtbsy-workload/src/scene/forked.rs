//! Children that were forked while the file was open, and several holders at once.

use super::{Busy, Named, Victim};
use crate::child::{self, Actor, Program, close, fork, wait_success};
use crate::report::{Holder, Scene, Task};
use anyhow::Result;
use etxtbsy_trace_event::{How, State, VerdictKind, Via};
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;

pub(super) const SCENES: &[Named] = &[
    ("between-fork-and-exec", between_fork_and_exec),
    ("several-holders", several_holders),
    ("many-holders", many_holders),
];

/// A child that waits between its fork and its exec has a copy of the fd: golang/go#22315 in slow motion.
fn between_fork_and_exec() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    held_by_child(&busy, &victim)
}

/// The same with an existing file and victim.
pub(super) fn held_by_child(busy: &Busy, victim: &Victim<'_>) -> Result<Scene> {
    let bystander = Path::new("/bin/true");
    let program = Program::new(bystander)?;
    let file = busy.open()?;
    let child = Actor::start(|control| {
        control.wait()?;
        Err(program.exec())
    })?;
    let fd = file.as_raw_fd();
    drop(file);
    victim.exec()?;

    let opener = Task::current();
    let holder = Holder {
        state: State::Forked,
        forked: Some(opener),
        released: How::CloseOnExec,
        exec: Some(bystander.into()),
        ..Holder::other(child.task(), Via::Fork, opener, [fd])
    };
    let released_after = Some(child.end()?);
    Ok(victim.scene(VerdictKind::ForkExecRace, vec![Holder { released_after, ..holder }]))
}

/// Many processes opened the file, each by itself.
fn many_holders() -> Result<Scene> {
    const HOLDERS: usize = 200;
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (life_reader, life_writer) = std::io::pipe()?;
    let (report_reader, report_writer) = std::io::pipe()?;
    let start = || {
        fork(|| {
            // Otherwise the pipe would not end with the workload.
            close(life_writer.as_raw_fd());
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            match open(&busy.path, flags, Mode::empty()) {
                Ok(file) => {
                    child::send_numbers(
                        &report_writer,
                        [std::process::id().into(), file.into_raw_fd().into()],
                    );
                }
                Err(errno) => return errno as i32,
            }
            nix::unistd::read(&life_reader, &mut [0]).map_or_else(|errno| errno as i32, |_| 0)
        })
    };
    let pids = (0..HOLDERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let holder = |[pid, fd]: [i64; 2]| Holder {
        released: How::Exit,
        ..Holder::opener(Task::main_of(pid as i32), [fd as i32])
    };
    let holders = pids
        .iter()
        .map(|_| child::receive_numbers(&report_reader).map(holder))
        .collect::<Result<_>>()?;
    victim.exec()?;
    drop(life_writer);
    pids.into_iter().try_for_each(wait_success)?;
    Ok(Scene { writers: HOLDERS as i32, ..victim.scene(VerdictKind::StillOpen, holders) })
}

/// Two processes opened the file: one has two fds and closes both, the other exits with its fd open.
fn several_holders() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let start = |twice: bool| {
        Actor::start(|control| {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file = open(&busy.path, flags, Mode::empty())?;
            let copy = if twice { fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(0))? } else { -1 };
            let file = file.into_raw_fd();
            control.send([file, copy].map(i64::from));
            if !twice {
                return control.wait().map(drop);
            }
            control.release(|| {
                close(file);
                close(copy);
            })
        })
    };
    let (closes, exits) = (start(true)?, start(false)?);
    let fds = closes.receive::<2>()?.map(|fd| fd as i32);
    let [fd, _] = exits.receive()?;
    victim.exec()?;

    let first = Holder::opener(closes.task(), fds);
    let second = Holder::opener(exits.task(), [fd as i32]);
    let ended = exits.end()?;
    let holders = vec![
        Holder { released_after: Some(closes.release()?), ..first },
        Holder { released: How::Exit, released_after: Some(ended), ..second },
    ];
    Ok(Scene { writers: 2, ..victim.scene(VerdictKind::StillOpen, holders) })
}
