//! A command before its exec: forked, and waiting.

use super::{
    child::Child,
    error::ExecError,
    plan::{ChildFailure, ChildPlan, Identity, Step},
    signals::CommandSignals,
    started::Started,
    strings::{CStrings, definition, environment},
};
use crate::{host::user::Invoker, provoke::Provoker};
use anyhow::{Context, Result};
use nix::{
    errno::Errno,
    sys::signal::{SigSet, SigmaskHow},
    unistd::{ForkResult, fork},
};
use std::{
    cell::Cell,
    env,
    ffi::{OsStr, OsString},
    io::{self, PipeReader, PipeWriter, Read, Write, pipe},
    os::{
        fd::{AsRawFd, BorrowedFd, RawFd},
        unix::ffi::OsStrExt,
    },
};
use tokio::io::{Interest, unix::AsyncFd};

/// A command whose process exists but waits before its exec.
///
/// Dropping it kills the process. If this program ends in any way, the process ends too.
#[derive(Debug)]
pub struct Prepared {
    pub(super) child: Child,
    pub(super) program: OsString,
    /// The command's PATH, in which the program is looked up.
    pub(super) path: Option<OsString>,
    /// A note about that PATH, for the error if the command is not found.
    pub(super) note: Option<String>,
    /// One byte makes the child exec; end of file makes it exit.
    pub(super) start_pipe: PipeWriter,
    /// The child writes a failure here; end of file means that it has exec'd.
    pub(super) failure_pipe: PipeReader,
    /// What holds up its calls. It ends the delays when it is dropped.
    pub(super) provoker: Option<Provoker>,
}

impl Prepared {
    /// Forks the process, which waits before its exec for [`Prepared::start`].
    ///
    /// `argv` has the command, which is looked up in PATH as execvp(3) does, and its arguments. With an
    /// `identity`, it will run as that user, in that user's environment.
    ///
    /// It inherits stdin, stdout and stderr, except those that `streams` replaces: pairs of an fd of
    /// this process and the fd that it becomes in the command. A `provoker` holds up calls of it and of its
    /// descendants.
    ///
    /// The child inherits the current resource limits: call this before changing any. It ignores the
    /// signals that were ignored when this program was started.
    pub fn new(
        argv: &[OsString],
        identity: Option<&Invoker>,
        streams: &[(BorrowedFd<'_>, RawFd)],
        provoker: Option<Provoker>,
    ) -> Result<Self> {
        let program = argv.first().context("no command to run; give one after run --")?.clone();
        let (start_reader, start_pipe) = pipe()?;
        let (failure_pipe, failure_writer) = pipe()?;
        let environment = environment(identity);
        let path = environment.iter().find(|(name, _)| name == "PATH");
        let path = path.map(|(_, value)| value.clone());
        let mut plan = ChildPlan {
            argv: CStrings::new(argv)?,
            environment: CStrings::new(environment.into_iter().map(definition))?,
            identity: identity.map(Identity::from),
            provocation: provoker.as_ref().map(Provoker::installation),
            signal_mask: SigSet::empty(),
            streams: streams.iter().map(|(ours, theirs)| (ours.as_raw_fd(), *theirs)).collect(),
            start_fd: start_reader.as_raw_fd(),
            failure_fd: failure_writer.as_raw_fd(),
            parent_fds: [start_pipe.as_raw_fd(), failure_pipe.as_raw_fd()],
        };
        // No signal may reach this program's handlers in the child before it resets them.
        plan.signal_mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the child calls only `ChildPlan::run`, which is async-signal-safe.
        let forked = match unsafe { fork() } {
            // SAFETY: this is the new child, and the plan's fds are open in it.
            Ok(ForkResult::Child) => unsafe { plan.run() },
            Ok(ForkResult::Parent { child }) => Ok(child.as_raw()),
            Err(errno) => Err(errno),
        };
        plan.signal_mask.thread_set_mask()?;
        let child = Child::new(forked.context("cannot fork the command")?)?;
        let note = identity.and_then(Invoker::about_path);
        Ok(Self { child, program, path, note, start_pipe, failure_pipe, provoker })
    }

    /// The pid of the process, which stays the same when the command runs in it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid.cast_unsigned()
    }

    /// Starts the command, and returns once it has been exec'd.
    ///
    /// Until [`Started`] is dropped, this thread blocks the signals that are meant for the command
    /// (see [`Started::wait`]). So start no other thread before, and drop it on this thread.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO enabled.
    pub fn start(self) -> Result<Started, ExecError> {
        let Self { child, program, path, note, mut start_pipe, mut failure_pipe, provoker } = self;
        let signals = CommandSignals::block().map_err(ExecError::Tracer)?;
        // SAFETY: the child owns its pidfd, and closes it when it is dropped.
        let mut child = unsafe { AsyncFd::register_with_interest(child, Interest::READABLE) }
            .map_err(|error| ExecError::Tracer(error.into()))?;
        match start_pipe.write_all(&[1]) {
            // It was killed while it waited; `wait` returns the signal.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(ExecError::Tracer)?,
        }
        let mut failure = Vec::new();
        failure_pipe.read_to_end(&mut failure).map_err(ExecError::Tracer)?;
        child.get_mut().awaits_start = false;
        let Some(failure) = ChildFailure::from_bytes(&failure) else {
            let (code, interrupted) = (Cell::new(None), Cell::new(false));
            return Ok(Started { child, signals, code, interrupted, provoker: provoker.into() });
        };
        child.get_ref().reap(0).map_err(ExecError::Tracer)?;
        let errno = match Errno::from_raw(failure.errno) {
            // execvp(3) also gives EACCES if the user may not search a directory in PATH.
            Errno::EACCES if !exists(&program, path.as_deref()) => Errno::ENOENT,
            errno => errno,
        };
        Err(match (failure.step, failure.step.call()) {
            (Step::Filter, _) => ExecError::Provoke(errno),
            (Step::Dup2, _) => ExecError::Tracer(errno.into()),
            (_, None) => ExecError::Exec { program, errno, note },
            (_, Some(call)) => ExecError::Identity { call, errno },
        })
    }
}

/// Whether the file exists, which is looked up in PATH unless the name has a slash.
pub(super) fn exists(program: &OsStr, path: Option<&OsStr>) -> bool {
    program.as_bytes().contains(&b'/')
        || path.is_none_or(|path| {
            env::split_paths(path).any(|directory| directory.join(program).exists())
        })
}
