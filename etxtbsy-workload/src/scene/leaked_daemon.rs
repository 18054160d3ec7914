//! A daemon inherited an fd that is not close-on-exec; its parents have ended.

use super::{Busy, Named};
use crate::child::{Actor, Control, Program, fork, timed, wait, wait_success};
use crate::report::{Holder, Scene, Task};
use anyhow::Result;
use etxtbsy_trace_event::{How, VerdictKind, Via};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stdin, dup2_stdout, getpid, setsid};
use std::io::{PipeReader, PipeWriter, Read as _, Write as _};
use std::os::fd::IntoRawFd;
use std::path::Path;

pub(super) const SCENES: &[Named] = &[("leaked-daemon", run)];

fn run() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let program = Program::new(Path::new("/bin/cat"))?;
    // Otherwise this process could not wait for the daemon, whose parents end.
    set_child_subreaper(true)?;
    // The daemon lives until this pipe ends, so that it never outlives the workload.
    let (stdin, mut life) = std::io::pipe()?;
    let (mut echo, stdout) = std::io::pipe()?;

    let opener =
        Actor::start(|control| open_and_fork(control, &busy.path, &program, &stdin, &stdout))?;
    let [parent, daemon, fd] = opener.receive()?.map(|number| number as i32);
    wait_success(opener.pid())?;
    // When the daemon echoes the byte, its exec has succeeded.
    life.write_all(b"x")?;
    echo.read_exact(&mut [0])?;
    victim.exec()?;
    let (outcome, span) = timed(|| {
        drop(life);
        wait(Pid::from_raw(daemon))
    });
    outcome?;

    let opened = opener.task();
    let holder = Holder {
        cloexec: false,
        forked: Some(Task::main_of(parent)),
        ancestors: [parent, opener.pid().as_raw(), getpid().as_raw()]
            .map(i32::cast_unsigned)
            .into(),
        released: How::Exit,
        released_after: Some(span),
        ..Holder::other(Task::main_of(daemon), Via::Fork, opened, [fd])
    };
    Ok(victim.scene(VerdictKind::LeakedFd, vec![holder]))
}

/// Opens the file, starts the daemon as a grandchild, and ends when its child has ended.
fn open_and_fork(
    control: &Control,
    path: &Path,
    daemon: &Program,
    stdin: &PipeReader,
    stdout: &PipeWriter,
) -> nix::Result<()> {
    // Leaked: the end of the process closes it.
    let fd = open(path, OFlag::O_WRONLY | OFlag::O_TRUNC, Mode::empty())?.into_raw_fd();
    let middle = fork(|| {
        let parent = getpid().as_raw();
        let started = fork(|| {
            if let Err(errno) = setsid().and(dup2_stdin(stdin)).and(dup2_stdout(stdout)) {
                return errno as i32;
            }
            control.send([parent, getpid().as_raw(), fd].map(i64::from));
            daemon.exec() as i32
        });
        i32::from(started.is_err())
    });
    match middle.and_then(wait) {
        Ok(0) => Ok(()),
        _ => Err(Errno::ECHILD),
    }
}
