//! The scenes: each makes one call fail with ETXTBSY, and reports its facts.
//!
//! Most scenes have a script ([`Busy`]), a process that is forked before anything opens the script for
//! writing and later execs it ([`Victim`]), and something that keeps the file open in between.

mod binfmt;
pub(super) mod compat;
mod core_dump;
mod elsewhere;
mod flush;
pub(super) mod fork_in_progress;
mod forked;
pub(super) mod interpreter;
mod leaked_daemon;
mod loop_device;
mod mapped;
mod named;
mod opened;
pub(super) mod passed;
mod released;
pub(super) mod reused;
mod ring;
mod running;
mod tables;
mod under_way;

use super::Unsupported;
use super::child::{Actor, Program, timed, wait_busy};
use super::report::{Holder, Scene, Task};
use super::stage;
use anyhow::{Result, anyhow, ensure};
use etxtbsy_trace_event::{How, Role, State, VerdictKind, Via};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A scene, with its name on the command line.
type Named = (&'static str, fn() -> Result<Scene>);

/// The scenes without arguments.
const SCENES: [&[Named]; 18] = [
    binfmt::SCENES,
    compat::SCENES,
    core_dump::SCENES,
    elsewhere::SCENES,
    flush::SCENES,
    forked::SCENES,
    leaked_daemon::SCENES,
    loop_device::SCENES,
    mapped::SCENES,
    named::SCENES,
    opened::SCENES,
    passed::SCENES,
    released::SCENES,
    reused::SCENES,
    ring::SCENES,
    running::SCENES,
    tables::SCENES,
    under_way::SCENES,
];

/// Plays the scene of that name.
pub(super) fn play(name: &str) -> Result<Scene> {
    let mut scenes = SCENES.iter().copied().flatten();
    let (name, run) = scenes
        .find(|(known, _)| *known == name)
        .ok_or_else(|| anyhow!("no workload is named {name}"))?;
    Ok(Scene { scenario: (*name).into(), ..run()? })
}

/// The opener still has the file open. This scene can begin before the tracer starts.
pub(super) fn still_open(wait_for_go: bool) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let file = busy.open()?;
    if wait_for_go {
        stage::wait_for_go()?;
    }
    Ok(Scene { scenario: "still-open".into(), ..victim.held_by(file, Via::Open)? })
}

/// A script that nobody has open.
struct Busy {
    /// The script's own directory, which is removed at the end.
    _dir: Option<TempDir>,
    path: PathBuf,
    ino: u64,
}

impl Busy {
    /// Creates a script in its own directory.
    fn new() -> Result<Self> {
        let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
        let busy = Self::at(dir.path().join("busy"))?;
        Ok(Self { _dir: Some(dir), ..busy })
    }

    /// Creates a script at that path.
    fn at(path: PathBuf) -> Result<Self> {
        drop(stage::script(&path)?);
        Self::existing(path)
    }

    /// Uses an existing executable.
    fn existing(path: PathBuf) -> Result<Self> {
        let ino = path.metadata()?.ino();
        Ok(Self { _dir: None, path, ino })
    }

    /// A path in the same directory.
    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    fn open(&self) -> Result<File> {
        Ok(OpenOptions::new().write(true).open(&self.path)?)
    }

    /// Opens the file without access to its data (O_PATH), for an exec by fd.
    fn reference(&self) -> Result<File> {
        Ok(OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(&self.path)?)
    }

    /// Forks a process that will exec the file.
    fn victim(&self) -> Result<Victim<'_>> {
        let program = Program::new(&self.path)?;
        self.victim_by("execve", &self.path, || program.exec())
    }

    /// Forks a process that will exec the file by another call, which names it `path`.
    fn victim_by(
        &self,
        syscall: &'static str,
        path: &Path,
        exec: impl FnOnce() -> Errno,
    ) -> Result<Victim<'_>> {
        let actor = Actor::start(|control| {
            control.wait()?;
            Err(exec())
        })?;
        Ok(Victim { busy: self, actor, syscall, path: path.into() })
    }
}

/// A process that was forked before its file was open for writing, and execs the file.
struct Victim<'a> {
    busy: &'a Busy,
    actor: Actor,
    syscall: &'static str,
    path: PathBuf,
}

impl Victim<'_> {
    /// Resumes the victim; its exec must fail.
    fn exec(&self) -> Result<()> {
        self.actor.resume(0)?;
        wait_busy(self.actor.pid())
    }

    /// Resumes the victim, whose exec must fail because this process has `fd`; then closes `fd`.
    fn held_by(&self, fd: impl Into<OwnedFd>, via: Via) -> Result<Scene> {
        let fd = fd.into();
        let number = fd.as_raw_fd();
        let cloexec = is_cloexec(&fd)?;
        self.exec()?;
        let ((), span) = timed(|| drop(fd));
        let holder = Holder::opener(Task::current(), [number]);
        let holder = Holder { via, cloexec, released_after: Some(span), ..holder };
        Ok(self.scene(VerdictKind::StillOpen, vec![holder]))
    }

    /// The facts of the failure, if one open file description had write access to the file.
    fn scene(&self, verdict: VerdictKind, holders: Vec<Holder>) -> Scene {
        Scene {
            scenario: String::new(),
            syscall: self.syscall.into(),
            path: self.path.clone(),
            busy: self.busy.path.clone(),
            ino: self.busy.ino,
            role: Some(Role::Target),
            writers: 1,
            victim: self.actor.task(),
            holders,
            unheld: Vec::new(),
            verdict,
        }
    }
}

impl Holder {
    /// A process that opened the file close-on-exec and closes it after the failure: this process or its
    /// child.
    fn opener(opener: Task, fds: impl IntoIterator<Item = RawFd>) -> Self {
        let own = Task::current().pid;
        Self {
            pid: opener.pid,
            ns_pid: None,
            fds: fds.into_iter().map(RawFd::cast_unsigned).collect(),
            cloexec: true,
            via: Via::Open,
            state: State::Running,
            opened: Some(opener),
            opened_as: None,
            forked: None,
            ancestors: if opener.pid == own { Vec::new() } else { vec![own] },
            released: How::Close,
            released_after: None,
            exec: None,
            evidence: None,
            call: None,
            names: None,
        }
    }

    /// A process that has a copy of an fd that this process or its child opened.
    fn other(holder: Task, via: Via, opened: Task, fds: impl IntoIterator<Item = RawFd>) -> Self {
        Self { via, opened: Some(opened), ..Self::opener(holder, fds) }
    }
}

/// A number that a child sent; if negative, an errno.
fn number_or_errno([number]: [i64; 1], what: &str) -> Result<i32> {
    match number as i32 {
        errno @ ..0 => Err(Errno::from_raw(-errno)).supported(what),
        number => Ok(number),
    }
}

/// Takes ownership of an fd that a system call has just returned.
fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the fd is new, so no other value owns it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn is_cloexec(fd: impl AsFd) -> Result<bool> {
    let flags = fcntl(fd, FcntlArg::F_GETFD)?;
    Ok(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC))
}

/// Waits until a condition is true, which takes only moments.
fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    const LIMIT: Duration = Duration::from_secs(10);
    let start = Instant::now();
    while !condition()? {
        ensure!(start.elapsed() < LIMIT, "timed out after {LIMIT:?}, waiting until {what}");
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// For calls that some kernels do not have, or some users may not make.
trait Supported<T> {
    /// Turns the errors of such calls into [`Unsupported`].
    fn supported(self, what: &str) -> Result<T>;
}

impl<T> Supported<T> for nix::Result<T> {
    fn supported(self, what: &str) -> Result<T> {
        self.map_err(|errno| match errno {
            Errno::ENOSYS | Errno::ENODEV | Errno::EOPNOTSUPP | Errno::EPERM | Errno::EACCES => {
                Unsupported(format!("{what}: {errno}")).into()
            }
            errno => anyhow!("{what}: {errno}"),
        })
    }
}
