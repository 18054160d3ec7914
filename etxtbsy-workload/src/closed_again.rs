//! A process receives a description and closes it, again and again; another holds the file all the
//! time. At every other failure only that one does.

use super::child::{self, Actor, Program, close, fork, timed, wait_busy};
use super::report::{BusyExec, HeldBy, Mixed, PossibleHolder, Race, Task};
use super::scene::{passed, reused};
use super::stage;
use anyhow::Result;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::ffi::c_int;
use std::fs::OpenOptions;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

/// Arguments of `closed-again`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// How often; two execs fail each time.
    #[arg(long, default_value_t = 40)]
    rounds: u32,
}

pub(super) fn run(args: &Args) -> Result<Mixed> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("busy");
    drop(stage::script(&path)?);
    let (ino, target) = (path.metadata()?.ino(), Program::new(&path)?);
    // What is freed on a CPU is used again there first.
    reused::stay_on_one_cpu()?;
    let (near, far) = UnixStream::pair()?;
    let receiver = Actor::start(|cue| {
        close(near.as_raw_fd());
        while cue.wait()? != 0 {
            let fd = passed::receive(&far)?;
            cue.tell([fd.into()]);
            cue.wait()?;
            close(fd);
            cue.tell([0]);
        }
        Ok(())
    })?;
    let holder = Actor::start(|cue| {
        let fd = open(&path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?.into_raw_fd();
        cue.tell([fd.into()]);
        cue.wait().map(drop)
    })?;
    let [fd] = holder.hear()?;
    let holds = |actor: &Actor, fd: i64| PossibleHolder {
        pid: actor.task().pid,
        by: HeldBy::Fd,
        sure: true,
        fds: vec![fd as u32],
        may_from_ns: 0,
        may_until_ns: u64::MAX,
    };
    let (start, mut failed) = (Instant::now(), Vec::new());
    let mut fail = |holders| -> Result<()> {
        let (victim, (enter_ns, exit_ns)) = fail(&target)?;
        let victim = Task::main_of(victim.as_raw()).pid;
        failed.push(BusyExec { victim, ino, enter_ns, exit_ns, holders });
        Ok(())
    };
    for _ in 0..args.rounds {
        let file = OpenOptions::new().write(true).open(&path)?;
        passed::send(&near, &file)?;
        drop(file);
        receiver.go(1)?;
        let [received] = receiver.hear()?;
        fail(vec![holds(&holder, fd), holds(&receiver, received)])?;
        receiver.go(1)?;
        let [_] = receiver.hear()?;
        fail(vec![holds(&holder, fd)])?;
    }
    let seconds = start.elapsed().as_secs_f64();
    holder.end()?;
    receiver.end()?;
    Ok(Mixed {
        race: Race {
            scenario: "closed-again".into(),
            pid: Task::current().pid,
            dir: dir.path().into(),
            attempts: failed.len() as u64,
            failures: failed.len() as u64,
            seconds,
            threads: Vec::new(),
        },
        seed: 0,
        refused: 0,
        failed,
    })
}

/// Forks a process whose exec fails; gives it, and when that was.
fn fail(target: &Program) -> Result<(Pid, child::Span)> {
    let (told, tell) = std::io::pipe()?;
    let victim = fork(|| {
        let (errno, (before, after)) = timed(|| target.exec());
        child::tell(&tell, [before, after].map(u64::cast_signed));
        errno as c_int
    })?;
    wait_busy(victim)?;
    let [before, after] = child::hear(&told)?.map(i64::cast_unsigned);
    Ok((victim, (before, after)))
}
