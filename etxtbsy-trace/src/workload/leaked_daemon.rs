//! A daemon whose parents have ended inherited an fd that is not close-on-exec.

use super::child::{Program, fork, hear, tell, wait, wait_busy, wait_success};
use super::report::{Holder, Scene, Task};
use super::stage::{self, SCRIPT};
use crate::lines::{How, Role, State, VerdictKind, Via};
use anyhow::{Result, ensure};
use nix::fcntl::{OFlag, open};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stdin, getpid, setsid};
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn run() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("busy");
    let program = Program::new(&path)?;
    let daemon = Program::new(Path::new("/bin/cat"))?;
    // Or the daemon, whose parents end, could not be waited for.
    set_child_subreaper(true)?;
    // The daemon lives until this pipe ends, so it never outlives the workload.
    let (stdin, life) = std::io::pipe()?;
    let (mut reader, writer) = std::io::pipe()?;

    let opener = fork(|| open_and_fork(&path, &daemon, &stdin, &writer))?;
    drop(writer);
    let [parent, daemon, fd] = hear(&reader)?;
    // The pipe ends when the daemon, the last to have it, is through its exec.
    let rest = reader.read_to_end(&mut Vec::new())?;
    ensure!(rest == 0, "unexpected bytes from the daemon");
    wait_success(opener)?;
    let ino = path.metadata()?.ino();

    let victim = fork(|| program.exec())?;
    let failure = wait_busy(victim);
    drop(life);
    wait(Pid::from_raw(daemon))?;
    failure?;

    Ok(Scene {
        scenario: "leaked-daemon".into(),
        syscall: "execve".into(),
        path: path.clone(),
        busy: path,
        ino,
        role: Some(Role::Target),
        writers: 1,
        victim: Task::main_of(victim.as_raw()),
        holders: vec![Holder {
            pid: daemon.cast_unsigned(),
            fds: vec![fd.cast_unsigned()],
            cloexec: false,
            via: Via::Fork,
            state: State::Running,
            opened: Some(Task::main_of(opener.as_raw())),
            forked: Some(Task::main_of(parent)),
            ancestors: [parent, opener.as_raw(), getpid().as_raw()].map(i32::cast_unsigned).into(),
            released: How::Exit,
            exec: None,
        }],
        unheld: Vec::new(),
        verdict: VerdictKind::LeakedFd,
    })
}

/// Opens the file, starts the daemon as a grandchild, and ends as soon as its child has.
fn open_and_fork(path: &Path, daemon: &Program, stdin: &PipeReader, writer: &PipeWriter) -> i32 {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
    let file = match open(path, flags, Mode::from_bits_truncate(0o777)) {
        Ok(file) => file,
        Err(errno) => return errno as i32,
    };
    if let Err(errno) = nix::unistd::write(&file, SCRIPT) {
        return errno as i32;
    }
    // Kept: the end of the process closes it.
    let fd = file.into_raw_fd();
    let middle = fork(|| {
        let parent = getpid().as_raw();
        let started = fork(|| {
            if let Err(errno) = setsid().and(dup2_stdin(stdin)) {
                return errno as i32;
            }
            tell(writer, [parent, getpid().as_raw(), fd]);
            daemon.exec()
        });
        i32::from(started.is_err())
    });
    match middle.and_then(wait) {
        Ok(status) => status,
        Err(_) => libc::ECHILD,
    }
}
