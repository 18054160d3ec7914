//! Processes that were forked while the file was open, and processes that have it open at once.

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

/// A child held between its fork and its exec has a copy of the fd: golang/go#22315, in slow
/// motion.
fn between_fork_and_exec() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    held_by_child(&busy, &victim)
}

/// The same of a file and a victim that are there.
pub(super) fn held_by_child(busy: &Busy, victim: &Victim<'_>) -> Result<Scene> {
    let bystander = Path::new("/bin/true");
    let program = Program::new(bystander)?;
    let file = busy.open()?;
    let child = Actor::start(|cue| {
        cue.wait()?;
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

/// As many processes opened it, each for itself.
fn many_holders() -> Result<Scene> {
    const HOLDERS: usize = 200;
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (gate, life) = std::io::pipe()?;
    let (told, tell) = std::io::pipe()?;
    let start = || {
        fork(|| {
            // Or the end of the workload would not end the pipe.
            close(life.as_raw_fd());
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            match open(&busy.path, flags, Mode::empty()) {
                Ok(file) => {
                    child::tell(&tell, [std::process::id().into(), file.into_raw_fd().into()]);
                }
                Err(errno) => return errno as i32,
            }
            nix::unistd::read(&gate, &mut [0]).map_or_else(|errno| errno as i32, |_| 0)
        })
    };
    let pids = (0..HOLDERS).map(|_| start()).collect::<Result<Vec<_>>>()?;
    let holder = |[pid, fd]: [i64; 2]| Holder {
        released: How::Exit,
        ..Holder::opener(Task::main_of(pid as i32), [fd as i32])
    };
    let holders = pids.iter().map(|_| child::hear(&told).map(holder)).collect::<Result<_>>()?;
    victim.exec()?;
    drop(life);
    pids.into_iter().try_for_each(wait_success)?;
    Ok(Scene { writers: HOLDERS as i32, ..victim.scene(VerdictKind::StillOpen, holders) })
}

/// Two processes opened the file; one of them has two fds of it and closes both, the other leaves
/// that to its exit.
fn several_holders() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let start = |twice: bool| {
        Actor::start(|cue| {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let file = open(&busy.path, flags, Mode::empty())?;
            let copy = if twice { fcntl(&file, FcntlArg::F_DUPFD_CLOEXEC(0))? } else { -1 };
            let file = file.into_raw_fd();
            cue.tell([file, copy].map(i64::from));
            if !twice {
                return cue.wait().map(drop);
            }
            cue.let_go(|| {
                close(file);
                close(copy);
            })
        })
    };
    let (closes, exits) = (start(true)?, start(false)?);
    let fds = closes.hear::<2>()?.map(|fd| fd as i32);
    let [fd, _] = exits.hear()?;
    victim.exec()?;

    let first = Holder::opener(closes.task(), fds);
    let second = Holder::opener(exits.task(), [fd as i32]);
    let ended = exits.end()?;
    let holders = vec![
        Holder { released_after: Some(closes.let_go()?), ..first },
        Holder { released: How::Exit, released_after: Some(ended), ..second },
    ];
    Ok(Scene { writers: 2, ..victim.scene(VerdictKind::StillOpen, holders) })
}
