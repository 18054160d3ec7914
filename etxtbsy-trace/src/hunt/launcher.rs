//! The launcher: a process that starts the command whenever it is asked to.
//!
//! It is forked before this program has threads, and before it gives up privileges: it starts the command as its user,
//! and a filter of `--provoke` needs CAP_SYS_ADMIN. It ends when this program does, in any way, and ends the command
//! then.

use anyhow::{Context as _, anyhow};
use nix::{
    errno::Errno,
    sys::{
        prctl,
        signal::{SigHandler, signal},
        socket::{
            AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, send, shutdown, socketpair,
        },
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Seek as _},
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    panic::catch_unwind,
    time::Duration,
};
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    command::{ExecError, FORWARDED, Prepared, Started},
    event::Provoke,
    host::{memory::FAILED_TO_TRACE, user::Invoker},
    provoke::{Provocation, Provoker},
    session::trace_run::event_loop,
};

/// Its name, as ps(1) shows it.
const NAME: &std::ffi::CStr = c"etxtbsy-hunt";
/// How long a command that is to end has after SIGTERM, before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest message.
const MESSAGE: usize = 16 << 10;

/// A request for a run.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    /// How its calls are delayed.
    provoke: Option<Provoke>,
}

/// How a run ended.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunEnd {
    /// The command has ended, with this exit status.
    Ended {
        /// 128 + the signal that killed it.
        code: u8,
    },
    /// The command could not be started; not for ETXTBSY, which is an end with 126.
    NotStarted {
        /// The exit status for that.
        code: u8,
        /// Why, in one line.
        why: String,
    },
}

/// The command of a hunt.
#[derive(Clone, Copy, Debug)]
pub struct HuntedCommand<'a> {
    /// Program and arguments.
    pub argv: &'a [OsString],
    /// The user to run it as; `None` for the tracer's own user.
    pub user: Option<&'a Invoker>,
}

/// The launcher, seen from this program.
#[derive(Debug)]
pub struct Launcher {
    socket: OwnedFd,
    pid: Pid,
    output: File,
}

impl Launcher {
    /// Forks it. To be called before this program has another thread.
    pub fn start(command: HuntedCommand<'_>) -> anyhow::Result<Self> {
        let output = tempfile::tempfile().context("cannot create a file for CMD's output")?;
        let kind = SockType::SeqPacket;
        let (ours, theirs) = socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)
            .context("cannot make a socket for the process that starts CMD")?;
        // SAFETY: this program has no other thread yet, so the child may use the heap.
        match unsafe { fork() }.context("cannot fork the process that starts CMD")? {
            ForkResult::Parent { child } => Ok(Self { socket: ours, pid: child, output }),
            ForkResult::Child => {
                drop(ours);
                // An unwinding panic must not return into what the parent does.
                let _ = catch_unwind(|| launch(theirs, command, &output));
                // SAFETY: _exit(2) has no preconditions.
                unsafe { libc::_exit(0) }
            }
        }
    }

    /// Its pid, the root of all runs.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// A copy of the file that has the output of the last run.
    pub fn output(&self) -> io::Result<File> {
        self.output.try_clone()
    }

    /// Its end of the line, within a tokio runtime.
    pub fn line(&self) -> io::Result<Line> {
        Ok(Line(Channel::new(self.socket.try_clone()?)?))
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        // It ends the command, then itself.
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        let _ = waitpid(self.pid, None);
    }
}

/// The line to the launcher.
#[derive(Debug)]
pub struct Line(Channel);

impl Line {
    /// Asks for a run.
    pub async fn ask(&self, provocation: Option<Provocation>) -> io::Result<()> {
        self.0.send(&Request { provoke: provocation.map(Provoke::from) }).await
    }

    /// How the run ended; `None` if the launcher has ended. Cancel-safe.
    pub async fn end(&self) -> io::Result<Option<RunEnd>> {
        self.0.receive().await
    }

    /// Asks it to end: the command gets SIGTERM.
    pub fn stop(&self) {
        let _ = shutdown(self.0.0.as_raw_fd(), Shutdown::Write);
    }
}

/// A socket that keeps messages apart.
#[derive(Debug)]
struct Channel(AsyncFd<OwnedFd>);

impl Channel {
    fn new(socket: OwnedFd) -> io::Result<Self> {
        // SAFETY: the socket owns its fd, and closes it when it is dropped.
        let socket = unsafe {
            AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::WRITABLE)
        };
        Ok(Self(socket?))
    }

    async fn send(&self, message: &impl Serialize) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        let send = |socket: &OwnedFd| Ok(send(socket.as_raw_fd(), &bytes, flags)?);
        self.0.async_io(Interest::WRITABLE, send).await.map(|_| ())
    }

    /// `None` if the other end was closed.
    async fn receive<T: for<'a> Deserialize<'a>>(&self) -> io::Result<Option<T>> {
        let receive = |socket: &OwnedFd| {
            let mut bytes = vec![0; MESSAGE];
            let got = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT)?;
            bytes.truncate(got);
            Ok(bytes)
        };
        match self.0.async_io(Interest::READABLE, receive).await {
            Ok(bytes) if bytes.is_empty() => Ok(None),
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the launcher does, until the other end of its socket is closed.
fn launch(socket: OwnedFd, command: HuntedCommand<'_>, output: &File) -> anyhow::Result<()> {
    let _ = prctl::set_name(NAME);
    // Between runs it has no use for them; during a run they are blocked, and passed on.
    for ignored in FORWARDED {
        // SAFETY: SIG_IGN has no handler that could do anything.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    event_loop()?.block_on(async {
        let channel = Channel::new(socket)?;
        while let Some(request) = channel.receive().await? {
            match one_run(&channel, &request, command, output).await {
                Ok(None) => break,
                Ok(Some(end)) => channel.send(&end).await?,
                Err(error) => {
                    let (code, why) = (FAILED_TO_TRACE, format!("{error:#}"));
                    channel.send(&RunEnd::NotStarted { code, why }).await?;
                }
            }
            reap();
        }
        Ok(())
    })
}

/// Runs the command; `None` if the other end was closed meanwhile.
async fn one_run(
    channel: &Channel,
    request: &Request,
    command: HuntedCommand<'_>,
    mut output: &File,
) -> anyhow::Result<Option<RunEnd>> {
    output.set_len(0).and_then(|()| output.rewind()).context("cannot empty the file for output")?;
    let null = OpenOptions::new().read(true).open("/dev/null").context("/dev/null")?;
    let streams = [
        (null.as_fd(), libc::STDIN_FILENO),
        (output.as_fd(), libc::STDOUT_FILENO),
        (output.as_fd(), libc::STDERR_FILENO),
    ];
    let provocation = request.provoke.map(Provocation::from);
    let provoker = provocation.as_ref().map(Provoker::start).transpose()?;
    let prepared = Prepared::new(command.argv, command.user, &streams, provoker)?;
    let started = match prepared.start() {
        Ok(started) => started,
        // What is hunted.
        Err(error @ ExecError::Exec { errno: Errno::ETXTBSY, .. }) => {
            return Ok(Some(RunEnd::Ended { code: error.exit_code() }));
        }
        Err(error) => {
            let (code, why) = (error.exit_code(), error.to_string());
            return Ok(Some(RunEnd::NotStarted { code, why }));
        }
    };
    tokio::select! {
        code = started.wait() => {
            let code = code.context("cannot wait for the command")?;
            Ok(Some(RunEnd::Ended { code }))
        }
        request = channel.receive::<Request>() => match request? {
            None => {
                end(&started).await?;
                Ok(None)
            }
            Some(_) => Err(anyhow!("a run was asked for during another")),
        }
    }
}

/// Ends a command with its descendants.
async fn end(started: &Started) -> anyhow::Result<()> {
    started.stop_provoking();
    started.terminate_tree();
    if tokio::time::timeout(PATIENCE, started.wait()).await.is_err() {
        started.kill_tree();
        started.wait().await?;
    }
    Ok(())
}

/// Reaps the supervisors of `--provoke` that have ended.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
