//! What identifies a holder is reused: an fd number, an inode, an open file description, a pid. The
//! earlier users live on or have ended; none of them holds the file.

use super::{Busy, Named, Supported, forked};
use crate::Unsupported;
use crate::child::{Actor, Control, Program, close, fork, timed, wait_success};
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

/// How many other processes have the file open before.
const ROUNDS: u32 = 8;

/// A process that had the file now has another file at the same fd number. The opener has closed the
/// file and opened it again, also at the same fd number.
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
    ensure!(file.as_raw_fd() == fd, "fd {fd} was not reused: {}", file.as_raw_fd());
    let scene = victim.held_by(file, Via::Open)?;
    others.end()?;
    Ok(scene)
}

/// The file has the inode of removed files that other processes held.
fn inode() -> Result<Scene> {
    let mut busy = Busy::new()?;
    stay_on_one_cpu()?;
    let others = start_others(&busy.path)?;
    let mut earlier = HashSet::new();
    for other in &others {
        open_and_close(other)?;
        fs::remove_file(&busy.path)?;
        await_rcu()?;
        earlier.insert(busy.ino);
        busy.ino = Busy::at(busy.path.clone())?.ino;
    }
    if !earlier.contains(&busy.ino) {
        let dir = busy.beside("");
        let what = format!("{}: inode number {} was not reused", dir.display(), busy.ino);
        return Err(Unsupported(what).into());
    }
    let scene = forked::held_by_child(&busy, &busy.victim()?)?;
    others.into_iter().try_for_each(|other| other.end().map(drop))?;
    Ok(scene)
}

/// The open file description has the address of earlier ones of the same file, which other processes
/// opened.
fn description() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    stay_on_one_cpu()?;
    let others = start_others(&busy.path)?;
    others.iter().try_for_each(open_and_close)?;
    let scene = forked::held_by_child(&busy, &victim)?;
    others.into_iter().try_for_each(|other| other.end().map(drop))?;
    Ok(scene)
}

/// Forks processes that will open the file for a moment, and live on.
fn start_others(path: &Path) -> Result<Vec<Actor>> {
    let part = |control: &Control| {
        control.wait()?;
        drop(open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?);
        control.send([0]);
        control.wait().map(drop)
    };
    (0..ROUNDS).map(|_| Actor::start(part)).collect()
}

/// Makes one of them open and close the file.
fn open_and_close(other: &Actor) -> Result<()> {
    other.resume(0)?;
    other.receive::<1>().map(drop)
}

/// When the exec fails, an unrelated process has the pid of an earlier holder. Right after, another one
/// has the pid of the holder.
///
/// Waits for a line on stdin first. Calls `report` while the unrelated processes live, until stdin ends.
pub(crate) fn pid(report: impl FnOnce(&Scene) -> Result<()>) -> Result<()> {
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
    report(&Scene { scenario: "reused-pid".into(), ..scene })?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    unrelated.end()
}

/// Processes that do something, then run a program until this is dropped.
struct Others {
    program: Program,
    pids: Vec<Pid>,
    stdin: PipeReader,
    life: PipeWriter,
}

impl Others {
    /// Starts with no process; the program must end with its stdin.
    fn new(program: &str) -> Result<Self> {
        let (stdin, life) = std::io::pipe()?;
        Ok(Self { program: Program::new(Path::new(program))?, pids: Vec::new(), stdin, life })
    }

    /// Forks a process, with `pid` if given, and returns when it runs the program.
    fn add(&mut self, pid: Option<Pid>, before: impl FnOnce() -> nix::Result<()>) -> Result<Pid> {
        // The exec closes the write end of this pipe.
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

    /// Ends all of them.
    fn end(self) -> Result<()> {
        drop(self.life);
        self.pids.into_iter().try_for_each(wait_success)
    }
}

/// Forks a child with that pid, which must be free; the child exits with the status that `body` returns.
fn fork_as(pid: Pid, body: impl FnOnce() -> c_int) -> Result<Pid> {
    let set_tid = [pid.as_raw()];
    // SAFETY: all zeros is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD as u64;
    arguments.set_tid = set_tid.as_ptr().addr() as u64;
    arguments.set_tid_size = set_tid.len() as u64;
    // SAFETY: as for fork(2), this process has one thread; the pointers and sizes are those of live values.
    let child =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of_val(&arguments)) };
    match Errno::result(child).supported("clone3 with a pid")? {
        0 => {
            let status = body();
            // SAFETY: _exit(2) has no preconditions.
            unsafe { libc::_exit(status) }
        }
        child => Ok(Pid::from_raw(child as i32)),
    }
}

/// Pins this process and its children to the current CPU, because memory that was freed on a CPU is
/// reused there first.
pub(crate) fn stay_on_one_cpu() -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(sched_getcpu()?)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// Waits for an RCU grace period by membarrier(2), after which the kernel has freed inodes.
fn await_rcu() -> Result<()> {
    // SAFETY: the call takes numbers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    Errno::result(result).map(drop).supported("membarrier")
}
