//! One process repeatedly receives a description and closes it; another holds the file all the time. At
//! every second failure only the other process holds it.

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
    /// Number of rounds; two execs fail in each.
    #[arg(long, default_value_t = 40)]
    rounds: u32,
}

pub(super) fn run(args: &Args) -> Result<Mixed> {
    let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let path = dir.path().join("busy");
    drop(stage::script(&path)?);
    let (ino, target) = (path.metadata()?.ino(), Program::new(&path)?);
    // Memory that was freed on a CPU is reused there first.
    reused::stay_on_one_cpu()?;
    let (sender, receiver_socket) = UnixStream::pair()?;
    let receiver = Actor::start(|control| {
        close(sender.as_raw_fd());
        while control.wait()? != 0 {
            let fd = passed::receive(&receiver_socket)?;
            control.send([fd.into()]);
            control.wait()?;
            close(fd);
            control.send([0]);
        }
        Ok(())
    })?;
    let holder = Actor::start(|control| {
        let fd = open(&path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?.into_raw_fd();
        control.send([fd.into()]);
        control.wait().map(drop)
    })?;
    let [fd] = holder.receive()?;
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
        passed::send(&sender, &file)?;
        drop(file);
        receiver.resume(1)?;
        let [received] = receiver.receive()?;
        fail(vec![holds(&holder, fd), holds(&receiver, received)])?;
        receiver.resume(1)?;
        let [_] = receiver.receive()?;
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

/// Forks a process whose exec fails; returns its pid and the times of the exec.
fn fail(target: &Program) -> Result<(Pid, child::Span)> {
    let (report_reader, report_writer) = std::io::pipe()?;
    let victim = fork(|| {
        let (errno, (before, after)) = timed(|| target.exec());
        child::send_numbers(&report_writer, [before, after].map(u64::cast_signed));
        errno as c_int
    })?;
    wait_busy(victim)?;
    let [before, after] = child::receive_numbers(&report_reader)?.map(i64::cast_unsigned);
    Ok((victim, (before, after)))
}
