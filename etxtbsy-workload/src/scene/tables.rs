//! Fd tables that threads or processes share or do not share, and files that are in no table.

use super::{Busy, Named, until};
use crate::child::{self, Actor, Program, close, timed, wait_success};
use crate::report::{Holder, Scene, Task};
use anyhow::{Result, anyhow, ensure};
use etxtbsy_trace_event::{Evidence, How, State, VerdictKind, Via};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::{set_child_subreaper, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Pid, gettid};
use std::ffi::{CStr, CString};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::{mem, ptr};

pub(super) const SCENES: &[Named] = &[
    ("unshared-table", || unshared(How::Close)),
    ("unshared-table-thread-ends", || unshared(How::Exit)),
    ("shared-table", shared),
    ("shared-table-opener-gone", opener_gone),
    ("shared-table-opener-dead", opener_dead),
    ("thread-names", thread_names),
    ("leader-gone", leader_gone),
    ("blocked-in-syscall", blocked_in_syscall),
    ("vfork-child", vfork_child),
    ("posix-spawn-child", posix_spawn_child),
];

/// A thread has its own fd table, in which an fd is open that the others closed.
fn unshared(released: How) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let file = busy.open()?;
    let fd = file.as_raw_fd();
    thread::scope(|scope| {
        let (ready, is_ready) = channel();
        // The thread continues when the sender is dropped, also if the scene failed.
        let (hold, released_by): (Sender<()>, Receiver<()>) = channel();
        let thread = spawn(scope, move || {
            unshare(CloneFlags::CLONE_FILES)?;
            ready.send(gettid())?;
            let _ = released_by.recv();
            let ((), span) = timed(|| {
                if released == How::Close {
                    close(fd);
                }
            });
            Ok(span)
        })?;
        let tid = is_ready.recv()?;
        drop(file);
        victim.exec()?;

        let task = Path::new("/proc/self/task").join(tid.to_string());
        let (outcome, ending) = timed(|| {
            drop(hold);
            let span = join(thread)?;
            // A join can return while the thread still has its fds.
            until("a thread has ended", || Ok(!task.exists()))?;
            Ok::<_, anyhow::Error>(span)
        });
        let closing = outcome?;
        // No tracepoint shows when a thread drops its table. The next one shows that the task is freed, after
        // every CPU has run the scheduler.
        let ending = (ending.0, u64::MAX);
        let released_after = Some(if released == How::Close { closing } else { ending });
        let holder = Holder { released, released_after, ..Holder::opener(Task::current(), [fd]) };
        Ok(victim.scene(VerdictKind::StillOpen, vec![holder]))
    })
}

/// Parent and child share an fd table.
fn shared() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (start_reader, start_writer) = std::io::pipe()?;
    let file = busy.open()?;
    let fd = file.as_raw_fd();
    let child = fork_with_table(|| {
        // The child has the write end of the pipe too, so the pipe does not end with the parent.
        set_pdeathsig(Signal::SIGKILL)?;
        nix::unistd::read(&start_reader, &mut [0]).map(drop)
    })?;
    victim.exec()?;
    let ((), span) = timed(|| drop(file));
    nix::unistd::write(&start_writer, b"x")?;
    wait_success(child)?;

    let opener = Task::current();
    let child = Holder::other(Task::main_of(child.as_raw()), Via::Fork, opener, [fd]);
    let child = Holder { state: State::Forked, forked: Some(opener), ..child };
    let holders = [Holder::opener(opener, [fd]), child]
        .map(|holder| Holder { released_after: Some(span), ..holder });
    Ok(victim.scene(VerdictKind::StillOpen, holders.into()))
}

/// The opener has ended; the child that shared its fd table lives on.
fn opener_gone() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    // Otherwise this process could not wait for the child, whose parent ends.
    set_child_subreaper(true)?;
    let opener = Actor::start(|control| {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let fd = open(&busy.path, flags, Mode::empty())?.into_raw_fd();
        let child = fork_with_table(|| control.release(|| close(fd)))?;
        control.send([child.as_raw(), fd].map(i64::from));
        Ok(())
    })?;
    let [child, fd] = opener.receive()?.map(|number| number as i32);
    wait_success(opener.pid())?;
    victim.exec()?;
    opener.resume(0)?;
    let [before, after] = opener.receive()?.map(i64::cast_unsigned);
    wait_success(Pid::from_raw(child))?;

    let opened = opener.task();
    let holder = Holder {
        state: State::Forked,
        forked: Some(opened),
        ancestors: vec![opened.pid, Task::current().pid],
        released_after: Some((before, after)),
        ..Holder::other(Task::main_of(child), Via::Fork, opened, [fd])
    };
    Ok(victim.scene(VerdictKind::ForkExecRace, vec![holder]))
}

/// The opener has ended; its parent, which shared its fd table, lives on. No process that had the file
/// forked it.
fn opener_dead() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let (report_reader, report_writer) = std::io::pipe()?;
    let opener = fork_with_table(|| {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let fd = open(&busy.path, flags, Mode::empty())?.into_raw_fd();
        child::send_numbers(&report_writer, [fd.into()]);
        Ok(())
    })?;
    let [fd] = child::receive_numbers(&report_reader)?.map(|number: i64| number as i32);
    wait_success(opener)?;
    victim.exec()?;
    let ((), span) = timed(|| close(fd));

    let opened = Task::main_of(opener.as_raw());
    let holder = Holder::other(Task::current(), Via::Unknown, opened, [fd]);
    let holder = Holder { released_after: Some(span), ancestors: Vec::new(), ..holder };
    Ok(victim.scene(VerdictKind::StillOpen, vec![holder]))
}

/// A thread with its own name opened the file; the holder is the process.
fn thread_names() -> Result<Scene> {
    const PROCESS: &CStr = c"builder";
    const THREAD: &str = "extractor-7";
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let holder = Actor::start(|control| {
        nix::sys::prctl::set_name(PROCESS)?;
        let opens = || {
            let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
            let fd = open(&busy.path, flags, Mode::empty())?.into_raw_fd();
            control.send([fd, gettid().as_raw()].map(i64::from));
            control.release(|| close(fd))
        };
        thread::scope(|scope| {
            let named = thread::Builder::new().name(THREAD.into());
            let thread = named.spawn_scoped(scope, opens).map_err(|_| Errno::EAGAIN)?;
            thread.join().map_err(|_| Errno::ECHILD)?
        })
    })?;
    let [fd, tid] = holder.receive()?.map(|number| number as i32);
    victim.exec()?;

    let opened = Task { tid: tid.cast_unsigned(), ..holder.task() };
    let known = Holder {
        opened: Some(opened),
        names: Some((PROCESS.to_string_lossy().into_owned(), THREAD.into())),
        ..Holder::opener(holder.task(), [fd])
    };
    let released_after = Some(holder.release()?);
    Ok(victim.scene(VerdictKind::StillOpen, vec![Holder { released_after, ..known }]))
}

/// Forks a child that shares this process's fd table.
fn fork_with_table(part: impl FnOnce() -> nix::Result<()>) -> nix::Result<Pid> {
    let flags = (CloneFlags::CLONE_FILES.bits() | libc::SIGCHLD) as libc::c_ulong;
    // SAFETY: as for fork(2), this process has one thread; the child only makes system calls.
    match Errno::result(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })? {
        0 => {
            let status = part().map_or_else(|errno| errno as i32, |()| 0);
            // SAFETY: _exit(2) has no preconditions.
            unsafe { libc::_exit(status) }
        }
        child => Ok(Pid::from_raw(child as i32)),
    }
}

/// A process whose first thread has ended while another has the file open.
fn leader_gone() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let actor = Actor::start(|control| {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let fd = open(&busy.path, flags, Mode::empty())?.into_raw_fd();
        thread::scope(|scope| {
            scope.spawn(|| {
                control.send([fd.into()]);
                let outcome = control.release(|| close(fd));
                let status = outcome.map_or_else(|errno| errno as i32, |()| 0);
                // SAFETY: _exit(2) has no preconditions.
                unsafe { libc::_exit(status) }
            });
            // SAFETY: exit(2) ends only this thread and frees nothing, so the other thread can use its stack.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
        Err(Errno::ENOTSUP)
    })?;
    let [fd] = actor.receive()?;
    let stat = Path::new("/proc").join(actor.pid().to_string()).join("stat");
    until("the first thread of a process has ended", || {
        Ok(fs::read_to_string(&stat)?.contains(") Z "))
    })?;
    victim.exec()?;
    let holder = Holder::opener(actor.task(), [fd as i32]);
    let released_after = Some(actor.release()?);
    Ok(victim.scene(VerdictKind::StillOpen, vec![Holder { released_after, ..holder }]))
}

/// A thread is in a call on an fd that another thread has closed.
fn blocked_in_syscall() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let lock = File::open(&busy.path)?;
    lock.lock()?;
    let fd = busy.open()?.into_raw_fd();
    thread::scope(|scope| {
        // Dropped in any case, so that the other thread's call returns.
        let lock = lock;
        let (ready, is_ready) = channel();
        let thread = spawn(scope, move || {
            ready.send(gettid())?;
            // SAFETY: flock(2) takes numbers.
            let (outcome, span) =
                timed(|| Errno::result(unsafe { libc::flock(fd, libc::LOCK_EX) }));
            outcome?;
            Ok(span)
        })?;
        let call = format!("/proc/self/task/{}/syscall", is_ready.recv()?);
        let blocked = format!("{} ", libc::SYS_flock);
        until(
            "a thread waits for a lock",
            || Ok(fs::read_to_string(&call)?.starts_with(&blocked)),
        )?;
        close(fd);
        victim.exec()?;
        let (outcome, (before, _)) = timed(|| {
            drop(lock);
            join(thread)
        });
        let (_, after) = outcome?;
        let released_after = Some((before, after));
        let holder = Holder {
            released_after,
            evidence: Some(Evidence::KernelObject),
            call: Some("flock".to_owned()),
            // Its fd is closed.
            ..Holder::opener(Task::current(), [])
        };
        Ok(victim.scene(VerdictKind::StillOpen, vec![holder]))
    })
}

/// A child shares its parent's memory until its exec, for which the forking thread waits. Another thread of
/// the parent closes the file.
fn vfork_child() -> Result<Scene> {
    let (start_reader, start_writer) = std::io::pipe()?;
    let (report_reader, report_writer) = std::io::pipe()?;
    let bystander = Program::new(Path::new("/bin/true"))?;
    let busy = Busy::new()?;
    vforked(
        &busy,
        || {
            let mut stack = vec![0; 64 * 1024];
            let child = Box::new(|| {
                // Otherwise the pipe would not end with the workload.
                close(start_writer.as_raw_fd());
                let _ = nix::unistd::write(&report_writer, b"x");
                match nix::unistd::read(&start_reader, &mut [0]) {
                    Ok(1) => bystander.exec() as isize,
                    _ => 1,
                }
            });
            let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
            // SAFETY: the child only makes system calls, on its own stack.
            Ok(unsafe { nix::sched::clone(child, &mut stack, flags, Some(libc::SIGCHLD)) }?)
        },
        || Ok(nix::unistd::read(&report_reader, &mut [0]).map(drop)?),
        || Ok(nix::unistd::write(&start_writer, b"x").map(drop)?),
    )
}

/// The same with posix_spawn: the child waits because it opens two FIFOs before its exec.
fn posix_spawn_child() -> Result<Scene> {
    let busy = Busy::new()?;
    let [ready, gate] = ["ready", "gate"].map(|name| busy.beside(name));
    for fifo in [&ready, &gate] {
        nix::unistd::mkfifo(fifo, Mode::S_IRUSR | Mode::S_IWUSR)?;
    }
    // The reader makes the child's open return at once; the child's close appears as a hang-up.
    let is_ready =
        open(&ready, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC, Mode::empty())?;
    let paths = [&ready, &gate].map(|path| CString::new(path.as_os_str().as_bytes()));
    let [ready_path, gate_path] = paths;
    let (ready_path, gate_path) = (ready_path?, gate_path?);
    vforked(
        &busy,
        || spawn_through(&ready_path, &gate_path),
        || {
            let mut fds = [PollFd::new(is_ready.as_fd(), PollFlags::POLLIN)];
            ensure!(poll(&mut fds, 10_000_u16)? == 1, "posix_spawn created no child in 10 s");
            Ok(())
        },
        // This open does not wait for the child's open, and stays until that has returned.
        || Ok(OpenOptions::new().read(true).write(true).open(&gate)?),
    )
}

/// posix_spawn(3) of /bin/true, which opens and closes one path as stdin, then opens the other.
fn spawn_through(ready: &CStr, gate: &CStr) -> Result<Pid> {
    let mut pid = 0;
    // SAFETY: all pointers are valid until posix_spawn(3) returns; `actions` is initialized first and
    // destroyed last.
    let error = unsafe {
        let mut actions = mem::zeroed();
        let mut error = libc::posix_spawn_file_actions_init(&raw mut actions);
        for (path, flags) in [(ready, libc::O_WRONLY), (gate, libc::O_RDONLY)] {
            error |= libc::posix_spawn_file_actions_addclose(&raw mut actions, 0);
            error |= libc::posix_spawn_file_actions_addopen(
                &raw mut actions,
                0,
                path.as_ptr(),
                flags,
                0,
            );
        }
        let argv = [c"true".as_ptr().cast_mut(), ptr::null_mut()];
        let envp = [ptr::null_mut()];
        if error == 0 {
            error = libc::posix_spawn(
                &raw mut pid,
                c"/bin/true".as_ptr(),
                &raw const actions,
                ptr::null(),
                argv.as_ptr(),
                envp.as_ptr(),
            );
        }
        libc::posix_spawn_file_actions_destroy(&raw mut actions);
        error
    };
    ensure!(error == 0, "posix_spawn: {}", Errno::from_raw(error));
    Ok(Pid::from_raw(pid))
}

/// Common part of the vfork scenes: `make` returns in its thread when the child has exec'd /bin/true.
/// Before that, the child waits for `release`.
fn vforked<T>(
    busy: &Busy,
    make: impl FnOnce() -> Result<Pid> + Send,
    is_made: impl FnOnce() -> Result<()>,
    release: impl FnOnce() -> Result<T>,
) -> Result<Scene> {
    let victim = busy.victim()?;
    let file = busy.open()?;
    let fd = file.as_raw_fd();
    thread::scope(|scope| {
        let thread = spawn(scope, || Ok((make()?, gettid())))?;
        let outcome = is_made().and_then(|()| {
            drop(file);
            victim.exec()
        });
        let (ended, span) = timed(|| {
            let _open = release()?;
            let (child, tid) = join(thread)?;
            wait_success(child)?;
            Ok::<_, anyhow::Error>((child, tid))
        });
        outcome?;
        let (child, tid) = ended?;

        let opener = Task::current();
        let holder = Holder {
            state: State::Forked,
            forked: Some(Task { tid: tid.as_raw().cast_unsigned(), ..opener }),
            released: How::CloseOnExec,
            released_after: Some(span),
            exec: Some("/bin/true".into()),
            ..Holder::other(Task::main_of(child.as_raw()), Via::Fork, opener, [fd])
        };
        Ok(victim.scene(VerdictKind::ForkExecRace, vec![holder]))
    })
}

fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    body: impl FnOnce() -> Result<T> + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, Result<T>>> {
    Ok(thread::Builder::new().name("other".into()).spawn_scoped(scope, body)?)
}

fn join<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a thread panicked"))?
}
