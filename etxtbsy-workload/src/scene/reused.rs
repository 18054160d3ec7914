//! What names a holder is used again: an fd number, an inode, an open file description, a pid.
//! Those that had it before live on, or are gone; none of them holds the file.

use super::{Busy, Named, Supported, forked};
use crate::Unsupported;
use crate::child::{Actor, Cue, Program, close, fork, timed, wait_success};
use crate::report::{Holder, Scene, Task};
use crate::stage;
use anyhow::{Result, ensure};
use etxtbsy_trace_event::{How, VerdictKind, Via};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, dup2_stdin};
use std::collections::HashSet;
use std::ffi::c_int;
use std::fs;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;

pub(super) const SCENES: &[Named] =
    &[("reused-fd", fd), ("reused-inode", inode), ("reused-description", description)];

/// How many others have the file before.
const ROUNDS: u32 = 8;

/// A process that had the file holds another by the same fd number; the opener closed the file
/// and has opened it again, by the same fd number too.
fn fd() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let another = busy.beside("another");
    drop(stage::script(&another)?);
    let mut others = Others::new("/bin/cat")?;
    let file = busy.open()?;
    let fd = file.as_raw_fd();
    others.add(None, || {
        close(fd);
        let again = open(&another, OFlag::O_WRONLY, Mode::empty())?.into_raw_fd();
        if again == fd { Ok(()) } else { Err(Errno::EBADF) }
    })?;
    drop(file);
    let file = busy.open()?;
    ensure!(file.as_raw_fd() == fd, "fd {fd} was not used again: {}", file.as_raw_fd());
    let scene = victim.held_by(file, Via::Open)?;
    others.end()?;
    Ok(scene)
}

/// The file has the inode of files that others held, and that were removed.
fn inode() -> Result<Scene> {
    let mut busy = Busy::new()?;
    stay_on_one_cpu()?;
    let others = start_others(&busy.path)?;
    let mut earlier = HashSet::new();
    for other in &others {
        let_hold(other)?;
        fs::remove_file(&busy.path)?;
        await_rcu()?;
        earlier.insert(busy.ino);
        busy.ino = Busy::at(busy.path.clone())?.ino;
    }
    if !earlier.contains(&busy.ino) {
        let dir = busy.beside("");
        let what = format!("{}: inode number {} is a new one", dir.display(), busy.ino);
        return Err(Unsupported(what).into());
    }
    let scene = forked::held_by_child(&busy, &busy.victim()?)?;
    others.into_iter().try_for_each(|other| other.end().map(drop))?;
    Ok(scene)
}

/// The open file description lies where others of the same file did, which others had opened.
fn description() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    stay_on_one_cpu()?;
    let others = start_others(&busy.path)?;
    others.iter().try_for_each(let_hold)?;
    let scene = forked::held_by_child(&busy, &victim)?;
    others.into_iter().try_for_each(|other| other.end().map(drop))?;
    Ok(scene)
}

/// Forks processes that will have the file open for a moment, and live on.
fn start_others(path: &Path) -> Result<Vec<Actor>> {
    let part = |cue: &Cue| {
        cue.wait()?;
        drop(open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?);
        cue.tell([0]);
        cue.wait().map(drop)
    };
    (0..ROUNDS).map(|_| Actor::start(part)).collect()
}

/// Lets one of them open the file and close it.
fn let_hold(other: &Actor) -> Result<()> {
    other.go(0)?;
    other.hear::<1>().map(drop)
}

/// The pid of a process that held the file is that of an unrelated one when the exec fails; that
/// of the holder, which runs a program by then, is so right after.
///
/// Begins when told to; calls `told` with what is true while the unrelated processes live, which
/// they do until stdin ends.
pub(crate) fn pid(told: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
    stage::wait_for_go()?;
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let mut unrelated = Others::new("/bin/sh")?;
    let mut holders = Others::new("/bin/cat")?;
    let file = busy.open()?;
    let fd = file.as_raw_fd();
    let earlier = fork(|| 0)?;
    wait_success(earlier)?;
    let holder =
        holders.add(None, || fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty())).map(drop))?;
    drop(file);
    unrelated.add(Some(earlier), || Ok(()))?;
    victim.exec()?;
    let (ended, span) = timed(|| holders.end());
    ended?;
    unrelated.add(Some(holder), || Ok(()))?;

    let opener = Task::current();
    let holder = Holder {
        cloexec: false,
        forked: Some(opener),
        released: How::Exit,
        released_after: Some(span),
        ..Holder::other(Task::main_of(holder.as_raw()), Via::Fork, opener, [fd])
    };
    let scene = victim.scene(VerdictKind::LeakedFd, vec![holder]);
    told(&Scene { scenario: "reused-pid".into(), ..scene })?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    unrelated.end()
}

/// Processes that do something first, and then run a program for as long as this lives.
struct Others {
    program: Program,
    pids: Vec<Pid>,
    stdin: PipeReader,
    life: PipeWriter,
}

impl Others {
    /// None yet; the program is one that ends with its stdin.
    fn new(program: &str) -> Result<Self> {
        let (stdin, life) = std::io::pipe()?;
        Ok(Self { program: Program::new(Path::new(program))?, pids: Vec::new(), stdin, life })
    }

    /// Forks one, with that pid if there is one, and returns once it runs the program.
    fn add(&mut self, pid: Option<Pid>, before: impl FnOnce() -> nix::Result<()>) -> Result<Pid> {
        // Close-on-exec ends this pipe.
        let (mut execed, writer) = std::io::pipe()?;
        let body = || match before().and_then(|()| dup2_stdin(&self.stdin)) {
            Ok(()) => self.program.exec() as c_int,
            Err(errno) => errno as c_int,
        };
        let child = match pid {
            Some(pid) => fork_as(pid, body)?,
            None => fork(body)?,
        };
        drop(writer);
        execed.read_to_end(&mut Vec::new())?;
        self.pids.push(child);
        Ok(child)
    }

    /// Ends them.
    fn end(self) -> Result<()> {
        drop(self.life);
        self.pids.into_iter().try_for_each(wait_success)
    }
}

/// Forks a child that has that pid, which must be free, and exits with what `body` returns.
fn fork_as(pid: Pid, body: impl FnOnce() -> c_int) -> Result<Pid> {
    let set_tid = [pid.as_raw()];
    // SAFETY: all zeros is a clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = set_tid.as_ptr().addr() as u64;
    arguments.set_tid_size = set_tid.len() as u64;
    // SAFETY: as fork(2): this process has one thread; what is pointed to is as long as it says.
    let child =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    match Errno::result(child).supported("clone3 with a pid")? {
        0 => {
            let status = body();
            // SAFETY: always sound.
            unsafe { libc::_exit(status) }
        }
        child => Ok(Pid::from_raw(child as i32)),
    }
}

/// Keeps this process, and those it forks, on the CPU that it is on: what is freed on a CPU is used
/// again there first.
pub(crate) fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// Waits until the kernel has freed what it frees late, such as inodes: membarrier(2) waits for an
/// RCU grace period.
fn await_rcu() -> Result<()> {
    // SAFETY: it takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    Errno::result(result).map(drop).supported("membarrier")
}
