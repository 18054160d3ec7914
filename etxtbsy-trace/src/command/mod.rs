//! The traced command of `run`. It waits before its exec until tracing is live; otherwise it runs as
//! if the shell had started it. It has the tracer's process group and terminal, and the fds that the
//! tracer's caller passed. The tracer's own fds are all close-on-exec.

use crate::{
    host::{identity::Invoker, pidfd, process_tree},
    text::shown,
};
use anyhow::{Context, Result};
use libc::{c_char, c_int, gid_t, uid_t};
use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal},
        signalfd::{SfdFlags, SignalFd, siginfo},
    },
    unistd::{ForkResult, fork},
};
use std::{
    cell::Cell,
    env,
    ffi::{CString, OsStr, OsString},
    fmt,
    io::{self, PipeReader, PipeWriter, Read, Write, pipe},
    mem,
    os::{
        fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    ptr,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::io::{Interest, unix::AsyncFd};

/// A command whose process exists but waits before its exec.
///
/// Dropping it kills the process. If this program ends in any way, the process ends too.
#[derive(Debug)]
pub struct Prepared {
    child: Child,
    program: OsString,
    /// The command's PATH, in which the program is looked up.
    path: Option<OsString>,
    /// A note about that PATH, for the error if the command is not found.
    note: Option<String>,
    /// One byte makes the child exec; end of file makes it exit.
    start_pipe: PipeWriter,
    /// The child writes a failure here; end of file means that it has exec'd.
    failure_pipe: PipeReader,
}

/// A command that has been exec'd.
#[derive(Debug)]
pub struct Started {
    child: AsyncFd<Child>,
    signals: CommandSignals,
    code: Cell<Option<u8>>,
    /// Whether this program got SIGINT as well.
    interrupted: Cell<bool>,
}

/// Why a command could not be started. The text is one line.
#[derive(Debug)]
pub enum ExecError {
    /// The exec failed.
    Exec {
        /// The first word of the command.
        program: OsString,
        /// The errno of execvp(3).
        errno: Errno,
        /// A note about the PATH in which it was not found.
        note: Option<String>,
    },
    /// The child could not take the user's identity.
    Identity {
        /// The system call that failed.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// A call of the tracer itself failed.
    Tracer(io::Error),
}

impl ExecError {
    /// The exit status: as in shells, 127 for a command that was not found and 126 for one that cannot
    /// be executed; as in env(1), 125 for failures that are not the command's.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exec { errno: Errno::ENOENT, .. } => 127,
            Self::Exec { .. } => 126,
            Self::Identity { .. } | Self::Tracer(_) => 125,
        }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec { program, errno, note } => {
                let is_path = program.as_bytes().contains(&b'/');
                let cause = match errno {
                    Errno::ENOENT if !is_path => "command not found",
                    Errno::ENOENT if Path::new(program).exists() => {
                        "cannot execute: its interpreter was not found"
                    }
                    Errno::ENOENT => errno.desc(),
                    _ => return write!(f, "{}: cannot execute: {}", shown(program), errno.desc()),
                };
                write!(f, "{}: {cause}", shown(program))?;
                match note {
                    Some(note) if !is_path => write!(f, "; {note}"),
                    _ => Ok(()),
                }
            }
            Self::Identity { call, errno } => write!(
                f,
                "cannot run the command as another user: {call}: {}; to run it as root: run --user root",
                errno.desc()
            ),
            Self::Tracer(error) => write!(f, "cannot start the command: {error}"),
        }
    }
}

impl std::error::Error for ExecError {}

impl Prepared {
    /// Forks the process, which waits before its exec for [`Prepared::start`].
    ///
    /// `argv` has the command, which is looked up in PATH as execvp(3) does, and its arguments. With an
    /// `identity`, it will run as that user, in that user's environment.
    ///
    /// It inherits stdin, stdout and stderr, except those that `streams` replaces: pairs of an fd of
    /// this process and the fd that it becomes in the command.
    ///
    /// The child inherits the current resource limits: call this before changing any. It ignores the
    /// signals that were ignored when this program was started.
    pub fn new(
        argv: &[OsString],
        identity: Option<&Invoker>,
        streams: &[(BorrowedFd<'_>, RawFd)],
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
        Ok(Self { child, program, path, note, start_pipe, failure_pipe })
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
        let Self { child, program, path, note, mut start_pipe, mut failure_pipe } = self;
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
            return Ok(Started { child, signals, code, interrupted });
        };
        child.get_ref().reap(0).map_err(ExecError::Tracer)?;
        let errno = match Errno::from_raw(failure.errno) {
            // execvp(3) also gives EACCES if the user may not search a directory in PATH.
            Errno::EACCES if !exists(&program, path.as_deref()) => Errno::ENOENT,
            errno => errno,
        };
        Err(match (failure.step, failure.step.call()) {
            (Step::Dup2, _) => ExecError::Tracer(errno.into()),
            (_, None) => ExecError::Exec { program, errno, note },
            (_, Some(call)) => ExecError::Identity { call, errno },
        })
    }
}

/// Whether the file exists, which is looked up in PATH unless the name has a slash.
fn exists(program: &OsStr, path: Option<&OsStr>) -> bool {
    program.as_bytes().contains(&b'/')
        || path.is_none_or(|path| {
            env::split_paths(path).any(|directory| directory.join(program).exists())
        })
}

impl Started {
    /// The pid of the command.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.get_ref().pid.cast_unsigned()
    }

    /// Waits for the command to end; returns its exit status, or 128 + the signal that killed it.
    ///
    /// Meanwhile, SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 do not end this program. They
    /// are forwarded to the command, which decides what to do. Cancel-safe.
    pub async fn wait(&self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.code.get() {
                return Ok(code);
            }
            tokio::select! {
                ended = self.child.readable() => {
                    ended?.clear_ready();
                    self.code.set(self.child.get_ref().reap(libc::WNOHANG)?);
                    // A signal that killed the command may have been sent to this program too.
                    self.forward_signals()?;
                }
                readable = self.signals.fd.readable() => {
                    readable?.clear_ready();
                    self.forward_signals()?;
                }
            }
        }
    }

    /// Forwards the signals that have arrived, unless the command got them itself.
    fn forward_signals(&self) -> io::Result<()> {
        while let Some(signal) = self.signals.fd.get_ref().read_signal()? {
            if signal.ssi_signo.cast_signed() == libc::SIGINT {
                self.interrupted.set(true);
            }
            if !self.command_got_it(&signal) {
                self.forward(signal.ssi_signo.cast_signed())?;
            }
        }
        Ok(())
    }

    /// Whether SIGINT killed the command and was sent to this program too. A shell then ends its script
    /// only if this program also dies of SIGINT (<https://www.cons.org/cracauer/sigint.html>).
    #[must_use]
    pub fn died_of_interrupt(&self) -> bool {
        self.interrupted.get() && self.child.get_ref().killed_by.get() == Some(libc::SIGINT)
    }

    /// Sends a signal to the command; does nothing if it has ended.
    pub fn forward(&self, signal: c_int) -> io::Result<()> {
        match self.child.get_ref().send(signal) {
            Err(Errno::ESRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Sends SIGTERM to the command and to its descendants in /proc.
    ///
    /// All are stopped until all are found. A fork fails while a signal is pending (`copy_process`), so
    /// no descendant can fork a child that is not found.
    pub fn terminate_tree(&self) {
        // Errors are ignored: a process may have ended, or belong to another user.
        let _ = self.forward(libc::SIGSTOP);
        let descendants = process_tree::descendants(self.pid(), |pidfd| {
            let _ = pidfd::send(pidfd, libc::SIGSTOP);
        });
        for signal in [libc::SIGTERM, libc::SIGCONT] {
            for pidfd in &descendants {
                let _ = pidfd::send(pidfd, signal);
            }
            let _ = self.forward(signal);
        }
    }

    /// Ctrl-C and Ctrl-\ reach the whole foreground process group. A signal that the command itself sent
    /// is meant for this program.
    fn command_got_it(&self, signal: &siginfo) -> bool {
        const KEYS: [c_int; 2] = [libc::SIGINT, libc::SIGQUIT];
        // From the terminal, or from the view, which reads the key and sends the signal to the group.
        let by_key = signal.ssi_code == libc::SI_KERNEL
            || (signal.ssi_code == libc::SI_USER && signal.ssi_pid == std::process::id());
        let is_key = by_key && KEYS.contains(&signal.ssi_signo.cast_signed());
        is_key || signal.ssi_pid == self.pid()
    }
}

/// The child process. It is not reaped before `reap`, so its pid is not reused.
#[derive(Debug)]
struct Child {
    pid: c_int,
    pidfd: OwnedFd,
    /// Whether it still waits before its exec.
    awaits_start: bool,
    /// The signal that killed it, once it is reaped.
    killed_by: Cell<Option<c_int>>,
}

impl Child {
    fn new(pid: c_int) -> Result<Self> {
        let pidfd = pidfd::open(pid).context("pidfd_open (needs Linux 5.3 or newer)")?;
        Ok(Self { pid, pidfd, awaits_start: true, killed_by: Cell::new(None) })
    }

    fn send(&self, signal: c_int) -> nix::Result<()> {
        pidfd::send(&self.pidfd, signal)
    }

    /// Reaps it; returns `None` if `flags` has WNOHANG and it has not ended.
    ///
    /// Uses libc, because nix has no value for real-time signals.
    fn reap(&self, flags: c_int) -> io::Result<Option<u8>> {
        // SAFETY: all zeroes is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let id = self.pidfd.as_raw_fd().cast_unsigned();
        loop {
            // SAFETY: the pointer refers to `info`, which outlives the call.
            let done =
                unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | flags) };
            match Errno::result(done) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        // SAFETY: waitid fills in the SIGCHLD fields or leaves them zero; both are valid.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        Ok(match info.si_code {
            _ if pid == 0 => None,
            libc::CLD_EXITED => Some(status as u8),
            _ => {
                self.killed_by.set(Some(status));
                Some((128 + status) as u8)
            }
        })
    }
}

impl AsRawFd for Child {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // End of file on the pipe is not enough: the process may be stopped.
        if self.awaits_start && self.send(libc::SIGKILL).is_ok() {
            let _ = self.reap(0);
        }
    }
}

/// Signals for the command, which this thread blocks and reads while the command runs.
#[derive(Debug)]
struct CommandSignals {
    fd: AsyncFd<SignalFd>,
    mask_before: SigSet,
}

impl CommandSignals {
    fn block() -> io::Result<Self> {
        use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        let blocked: SigSet =
            [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2].into_iter().collect();
        let fd = SignalFd::with_flags(&blocked, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // SAFETY: the SignalFd owns its fd.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        let mask_before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { fd, mask_before })
    }
}

impl Drop for CommandSignals {
    fn drop(&mut self) {
        // Signals that arrive after the command has ended are discarded.
        while let Ok(Some(_)) = self.fd.get_ref().read_signal() {}
        let _ = self.mask_before.thread_set_mask();
    }
}

/// Strings for execvp(3), allocated before the fork because the child must not allocate.
struct CStrings {
    _strings: Vec<CString>,
    pointers: Vec<*const c_char>,
}

impl CStrings {
    fn new<S: AsRef<OsStr>>(strings: impl IntoIterator<Item = S>) -> Result<Self> {
        let c_string = |text: S| {
            CString::new(text.as_ref().as_bytes())
                .with_context(|| format!("{} has a NUL byte", shown(text.as_ref())))
        };
        let strings = strings.into_iter().map(c_string).collect::<Result<Vec<_>>>()?;
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { _strings: strings, pointers })
    }
}

/// The command's environment.
fn environment(identity: Option<&Invoker>) -> Vec<(OsString, OsString)> {
    match identity {
        Some(user) => user.environment(env::vars_os()),
        None => env::vars_os().collect(),
    }
}

/// `NAME=value`.
fn definition((mut name, value): (OsString, OsString)) -> OsString {
    name.push("=");
    name.push(value);
    name
}

/// The signals that were ignored when this program was started: bit N - 1 is signal N.
static IGNORED_AT_START: AtomicU64 = AtomicU64::new(0);

/// Records them before `main`, because the Rust runtime ignores SIGPIPE before it calls `main`.
#[used]
// SAFETY: before `main`, glibc and musl call the functions of this section with (argc, argv, envp). This
// one ignores the arguments, calls only sigaction(2), and does not use Rust's runtime.
#[unsafe(link_section = ".init_array")]
static RECORD_IGNORED: extern "C" fn() = {
    extern "C" fn record() {
        let ignored = (1..=64).filter(|signal| is_ignored(*signal)).map(|signal| 1 << (signal - 1));
        IGNORED_AT_START.store(ignored.fold(0, |all: u64, one: u64| all | one), Ordering::Relaxed);
    }
    record
};

/// Whether this process ignores a signal now.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: all zeroes is a valid sigaction, and `found` outlives the call. The call fails for signals
    // that the C library reserves.
    unsafe {
        let mut found: libc::sigaction = mem::zeroed();
        libc::sigaction(signal, ptr::null(), &raw mut found) == 0
            && found.sa_sigaction == libc::SIG_IGN
    }
}

unsafe extern "C" {
    /// environ(7).
    static mut environ: *const *const c_char;
}

/// The ids that the child changes to.
struct Identity {
    uid: uid_t,
    gid: gid_t,
    groups: Vec<gid_t>,
}

impl From<&Invoker> for Identity {
    fn from(user: &Invoker) -> Self {
        Self {
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: user.groups.iter().map(|group| group.as_raw()).collect(),
        }
    }
}

/// What the child does after the fork, with all data that it needs.
struct ChildPlan {
    argv: CStrings,
    environment: CStrings,
    identity: Option<Identity>,
    /// The command's signal mask.
    signal_mask: SigSet,
    /// Pairs of an fd of this process and the fd that it becomes in the command.
    streams: Vec<(RawFd, RawFd)>,
    start_fd: RawFd,
    failure_fd: RawFd,
    /// The parent's ends of the pipes.
    parent_fds: [RawFd; 2],
}

impl ChildPlan {
    /// Waits for the start, then execs the command. Exits if the exec fails or the parent has ended.
    ///
    /// # Safety
    ///
    /// Call this only in a process just forked, in which the plan's fds are open. It calls only
    /// async-signal-safe functions, and execvp(3), which in glibc (since 2.24) and musl uses no heap
    /// memory and no locks.
    unsafe fn run(&self) -> ! {
        // SAFETY: the C library gets numbers, and pointers to data that `self` and this frame keep alive;
        // the argument lists end with null.
        unsafe {
            for fd in self.parent_fds {
                libc::close(fd);
            }
            // A stopped process (Ctrl-Z) does not notice the end of the pipe.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            reset_signal_handlers();
            libc::pthread_sigmask(libc::SIG_SETMASK, self.signal_mask.as_ref(), ptr::null_mut());

            let mut byte = 0_u8;
            let got = loop {
                let got = libc::read(self.start_fd, (&raw mut byte).cast(), 1);
                if got >= 0 || Errno::last() != Errno::EINTR {
                    break got;
                }
            };
            if got != 1 {
                libc::_exit(1);
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);

            let mut step = Step::Exec;
            let dup_fails = |(ours, theirs): &(RawFd, RawFd)| libc::dup2(*ours, *theirs) < 0;
            if self.streams.iter().any(dup_fails) {
                step = Step::Dup2;
            } else if let Some(identity) = &self.identity
                && let Err(failed) = identity.assume()
            {
                step = failed;
            } else {
                let argv = &self.argv.pointers;
                // Not execvpe(3): it would look up the command in this process's PATH.
                environ = self.environment.pointers.as_ptr();
                libc::execvp(argv[0], argv.as_ptr());
            }
            let failure = ChildFailure { step, errno: Errno::last_raw() }.to_bytes();
            libc::write(self.failure_fd, failure.as_ptr().cast(), failure.len());
            libc::_exit(126);
        }
    }
}

/// Resets signals to their default before the wait, because this program's handlers would write to the
/// parent. Signals that were ignored when this program was started stay ignored, as nohup(1) and
/// systemd (SIGPIPE) expect.
///
/// # Safety
///
/// Call this only in a process just forked.
unsafe fn reset_signal_handlers() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: all zeroes is a valid sigaction with SIG_DFL, and it outlives the call.
        unsafe {
            let default: libc::sigaction = mem::zeroed();
            let ignored = IGNORED_AT_START.load(Ordering::Relaxed) >> (signal - 1) & 1 == 1;
            if !(ignored && is_ignored(signal)) {
                // Fails for signals that the C library reserves.
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
}

impl Identity {
    /// Changes to the ids, the user last because the others need root; sets errno on failure.
    ///
    /// # Safety
    ///
    /// Call this only in a process just forked.
    unsafe fn assume(&self) -> Result<(), Step> {
        // SAFETY: the calls get numbers, and the pointer and length of a vector in `self`.
        unsafe {
            if libc::setgroups(self.groups.len(), self.groups.as_ptr()) != 0 {
                return Err(Step::SetGroups);
            }
            if libc::setgid(self.gid) != 0 {
                return Err(Step::SetGid);
            }
            if libc::setuid(self.uid) != 0 {
                return Err(Step::SetUid);
            }
            // It must not be possible to become root again.
            if self.uid != 0 && libc::setuid(0) == 0 {
                Errno::EPERM.set();
                return Err(Step::StayUser);
            }
        }
        Ok(())
    }
}

/// The step at which the child failed.
#[derive(Clone, Copy)]
enum Step {
    Exec,
    SetGroups,
    SetGid,
    SetUid,
    StayUser,
    Dup2,
}

impl Step {
    const ALL: [Self; 6] =
        [Self::Exec, Self::SetGroups, Self::SetGid, Self::SetUid, Self::StayUser, Self::Dup2];

    /// The call that failed, if the step changes the identity.
    fn call(self) -> Option<&'static str> {
        match self {
            Self::Exec | Self::Dup2 => None,
            Self::SetGroups => Some("setgroups"),
            Self::SetGid => Some("setgid"),
            Self::SetUid => Some("setuid"),
            Self::StayUser => Some("setuid can be undone"),
        }
    }
}

/// The failure that the child writes to its pipe.
struct ChildFailure {
    step: Step,
    errno: c_int,
}

impl ChildFailure {
    fn to_bytes(&self) -> [u8; 5] {
        let [a, b, c, d] = self.errno.to_ne_bytes();
        [self.step as u8, a, b, c, d]
    }

    /// `None` if the child wrote nothing.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (&step, errno) = bytes.split_first()?;
        Some(Self {
            step: *Step::ALL.get(usize::from(step))?,
            errno: c_int::from_ne_bytes(errno.try_into().ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::raise;
    use nix::unistd::Uid;
    use std::time::Duration;
    use std::{
        collections::BTreeSet,
        fs::{self, OpenOptions, Permissions},
        io::{BufRead, BufReader},
        os::unix::fs::PermissionsExt,
        path::PathBuf,
        process,
    };
    use tempfile::TempDir;
    use test_support::{as_ordinary_user, skip};

    fn prepared(argv: &[&str]) -> Prepared {
        let argv: Vec<_> = argv.iter().map(OsString::from).collect();
        Prepared::new(&argv, None, &[]).unwrap()
    }

    async fn code(argv: &[&str]) -> u8 {
        prepared(argv).start().unwrap().wait().await.unwrap()
    }

    fn error(argv: &[&str]) -> (u8, String) {
        let error = prepared(argv).start().unwrap_err();
        (error.exit_code(), error.to_string())
    }

    /// A world-writable directory, and a path in it.
    fn scratch() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        let path = directory.path().join("out");
        (directory, path)
    }

    /// A shell command that writes its output to `path`.
    fn into_file(path: &Path, script: &str) -> [OsString; 5] {
        let script = format!("exec >\"$1\"; {script}");
        ["sh".into(), "-c".into(), script.into(), "sh".into(), path.into()]
    }

    async fn output(script: &str, identity: Option<&Invoker>) -> String {
        let (_directory, path) = scratch();
        let prepared = Prepared::new(&into_file(&path, script), identity, &[]).unwrap();
        assert_eq!(prepared.start().unwrap().wait().await.unwrap(), 0, "{script}");
        fs::read_to_string(path).unwrap()
    }

    #[tokio::test]
    async fn exit_status_is_the_commands() {
        assert_eq!(code(&["true"]).await, 0);
        assert_eq!(code(&["sh", "-c", "exit 3"]).await, 3);
        assert_eq!(code(&["sh", "-c", "exit 255"]).await, 255);
    }

    #[tokio::test]
    async fn killed_by_a_signal_is_128_plus_its_number() {
        assert_eq!(code(&["sh", "-c", "kill -9 $$"]).await, 137);
        // A real-time signal has no name.
        assert_eq!(code(&["sh", "-c", "kill -40 $$"]).await, 168);
    }

    #[tokio::test]
    async fn a_failed_exec_has_the_status_of_a_shell() {
        let (directory, path) = scratch();
        let name = path.to_str().unwrap();
        assert_eq!(error(&["no-such-cmd"]), (127, "no-such-cmd: command not found".into()));
        assert_eq!(error(&["a\nb"]), (127, "\"a\\nb\": command not found".into()));
        assert_eq!(error(&[""]), (127, "\"\": command not found".into()));
        assert_eq!(error(&[name]), (127, format!("{name}: No such file or directory")));

        // Another process writes it, so that no fork of another test's thread inherits the write fd.
        let write = into_file(&path, "echo '#!/no/such/interpreter'");
        Prepared::new(&write, None, &[]).unwrap().start().unwrap().wait().await.unwrap();
        assert_eq!(error(&[name]), (126, format!("{name}: cannot execute: Permission denied")));
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        let missing = format!("{name}: cannot execute: its interpreter was not found");
        assert_eq!(error(&[name]), (127, missing));

        let directory = directory.path().to_str().unwrap();
        let denied = format!("{directory}: cannot execute: Permission denied");
        assert_eq!(error(&[directory]), (126, denied));
    }

    #[tokio::test]
    async fn a_busy_command_is_not_retried() {
        let (_directory, path) = scratch();
        fs::copy("/bin/true", &path).unwrap();
        let name = path.to_str().unwrap();
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(error(&[name]), (126, format!("{name}: cannot execute: Text file busy")));
        drop(writer);
    }

    #[tokio::test]
    async fn it_runs_under_its_known_pid_and_not_before_start() {
        let (_directory, path) = scratch();
        let argv = into_file(&path, "echo $$");
        let prepared = Prepared::new(&argv, None, &[]).unwrap();
        let pid = prepared.pid();
        // It waits in its read, or has not reached it yet.
        let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(exe(pid), exe(process::id()));
        assert!(!path.exists());
        let started = prepared.start().unwrap();
        assert_eq!(started.pid(), pid);
        assert_eq!(started.wait().await.unwrap(), 0);
        assert_eq!(fs::read_to_string(path).unwrap(), format!("{pid}\n"));
    }

    #[tokio::test]
    async fn dropping_a_prepared_command_kills_it_unrun() {
        let (_directory, path) = scratch();
        let prepared = Prepared::new(&into_file(&path, "echo ran"), None, &[]).unwrap();
        let process = PathBuf::from(format!("/proc/{}", prepared.pid()));
        assert!(process.exists());
        drop(prepared);
        assert!(!process.exists());
        assert!(!path.exists());
    }

    const HELPER_FILE: &str = "ETXTBSY_TRACE_TEST_FILE";

    /// Not a test: the tracer that `the_end_of_the_tracer_ends_the_waiting_command` kills.
    #[test]
    #[ignore = "the helper of another test"]
    fn helper_that_is_killed() {
        let path = PathBuf::from(env::var_os(HELPER_FILE).unwrap());
        let prepared = Prepared::new(&into_file(&path, "echo ran"), None, &[]).unwrap();
        println!("\npid {}", prepared.pid());
        io::stdin().read_line(&mut String::new()).unwrap();
        unreachable!("it is killed before");
    }

    #[test]
    fn the_end_of_the_tracer_ends_the_waiting_command() {
        ends_with_the_tracer(false);
    }

    #[test]
    fn the_end_of_the_tracer_ends_a_stopped_command() {
        ends_with_the_tracer(true);
    }

    fn ends_with_the_tracer(stopped: bool) {
        let (_directory, path) = scratch();
        let (_, module) = module_path!().split_once("::").unwrap();
        let mut tracer = process::Command::new(env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--nocapture", "--test-threads=1"])
            .arg(format!("{module}::helper_that_is_killed"))
            .env(HELPER_FILE, &path)
            .stdin(process::Stdio::piped())
            .stdout(process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(tracer.stdout.take().unwrap()).lines().map(Result::unwrap);
        let pid = lines.find_map(|line| line.strip_prefix("pid ")?.parse().ok());
        let child = Child::new(pid.unwrap()).unwrap();
        let child = mem::ManuallyDrop::new(child); // must not kill or reap it
        let await_state = |state: &str| {
            let stat = || fs::read_to_string(format!("/proc/{}/stat", child.pid)).unwrap();
            while !stat().contains(&format!(") {state} ")) {
                std::thread::yield_now();
            }
        };
        if stopped {
            // It waits for the start.
            await_state("S");
            child.send(libc::SIGSTOP).unwrap();
            await_state("T");
        }
        tracer.kill().unwrap();
        tracer.wait().unwrap();
        // The pidfd becomes readable when the process ends, whoever reaps it.
        let mut ends = libc::pollfd { fd: child.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `ends` is one pollfd, and outlives the call. The timeout makes a failing test end.
        assert_eq!(unsafe { libc::poll(&raw mut ends, 1, 60_000) }, 1);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_command_killed_before_its_start_has_a_status() {
        let prepared = prepared(&["true"]);
        prepared.child.send(libc::SIGTERM).unwrap();
        let started = prepared.start().unwrap();
        assert_eq!(started.wait().await.unwrap(), 143);
    }

    #[tokio::test]
    async fn signals_can_be_forwarded() {
        let started = prepared(&["sleep", "1000"]).start().unwrap();
        started.forward(libc::SIGTERM).unwrap();
        assert_eq!(started.wait().await.unwrap(), 143);
        started.forward(libc::SIGTERM).unwrap();
        assert_eq!(started.wait().await.unwrap(), 143);
    }

    /// All processes have the write end of a pipe, so its end of file shows that none is left.
    #[tokio::test]
    async fn terminate_tree_ends_a_growing_tree() {
        for _ in 0..20 {
            let (reader, writer) = nix::unistd::pipe().unwrap();
            let fd = writer.as_raw_fd();
            let forks =
                format!("exec 9>/proc/$PPID/fd/{fd}; while :; do sleep 1000 & sleep 0.001; done");
            let started = prepared(&["sh", "-c", &forks]).start().unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            started.terminate_tree();
            assert_eq!(started.wait().await.unwrap(), 143);
            drop(writer);
            let mut ends =
                libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: `ends` is one pollfd, and outlives the call. The timeout makes a failing test end.
            assert_eq!(unsafe { libc::poll(&raw mut ends, 1, 60_000) }, 1);
        }
    }

    #[tokio::test]
    async fn signals_sent_to_us_reach_the_command() {
        for signal in [
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
        ] {
            reset_if_ignored(signal);
            let started = prepared(&["sleep", "1000"]).start().unwrap();
            // To this thread, because the other tests' threads do not block the signal.
            raise(signal).unwrap();
            assert_eq!(started.wait().await.unwrap(), 128 + signal as u8);
        }
    }

    /// Resets a signal that was ignored when the tests were started (nohup, a shell's `&`), because a
    /// command would inherit that.
    fn reset_if_ignored(signal: Signal) {
        // SAFETY: all zeroes is a valid sigaction that outlives the call; SIG_DFL replaces no handler.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            libc::sigaction(signal as i32, ptr::null(), &raw mut action);
            if action.sa_sigaction == libc::SIG_IGN {
                libc::signal(signal as i32, libc::SIG_DFL);
            }
        }
    }

    #[tokio::test]
    async fn the_signal_mask_is_restored() {
        let before = SigSet::thread_get_mask().unwrap();
        let started = prepared(&["true"]).start().unwrap();
        assert_ne!(SigSet::thread_get_mask().unwrap(), before);
        started.wait().await.unwrap();
        drop(started);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[tokio::test]
    async fn signal_dispositions_are_as_from_a_shell() {
        // Rust ignores SIGPIPE, and tokio handles SIGWINCH.
        let _handler =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change());
        let status =
            output("while read -r line; do echo \"$line\"; done </proc/$$/status", None).await;
        let set = |name: &str| {
            let hex = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            u64::from_str_radix(hex.trim(), 16).unwrap()
        };
        assert_eq!(set("SigBlk:"), 0);
        // The C library reserves 32 and 33, and children of posix_spawn(3) ignore them.
        let own = 0b11 << 31;
        assert_eq!(set("SigIgn:") & !own, IGNORED_AT_START.load(Ordering::Relaxed));
    }

    /// The files of this process's fds that are not close-on-exec.
    fn inheritable() -> BTreeSet<PathBuf> {
        let is_inheritable = |fd: &OsStr| {
            let info = fs::read_to_string(Path::new("/proc/self/fdinfo").join(fd)).ok()?;
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?.trim();
            Some(c_int::from_str_radix(flags, 8).unwrap() & libc::O_CLOEXEC == 0)
        };
        fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(Result::unwrap)
            .filter(|entry| is_inheritable(&entry.file_name()) == Some(true))
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .collect()
    }

    #[tokio::test]
    async fn it_inherits_the_callers_fds_but_not_the_tracers() {
        let (directory, _) = scratch();
        let theirs = fs::File::create(directory.path().join("theirs")).unwrap();
        let ours = fs::File::create(directory.path().join("ours")).unwrap();
        // SAFETY: fcntl(2) with numbers only changes the flag of that fd, which is open.
        unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) };
        let expected = inheritable();
        assert!(expected.contains(&directory.path().join("theirs")));

        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let argv = ["cat".into(), fifo.clone().into()];
        let started = Prepared::new(&argv, None, &[]).unwrap().start().unwrap();
        // The open returns when cat has opened the fifo too, and keeps cat reading.
        let hold = OpenOptions::new().write(true).open(&fifo).unwrap();
        let found: BTreeSet<_> = fs::read_dir(format!("/proc/{}/fd", started.pid()))
            .unwrap()
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .filter(|link| *link != fifo)
            .collect();
        assert_eq!(found, expected);
        drop(hold);
        assert_eq!(started.wait().await.unwrap(), 0);
        drop(ours);
    }

    #[tokio::test]
    async fn it_shares_the_process_group_and_session() {
        let ids = output("cut -d' ' -f5,6 /proc/$$/stat", None).await;
        let (group, session) = (nix::unistd::getpgrp(), nix::unistd::getsid(None).unwrap());
        assert_eq!(ids.trim(), format!("{group} {session}"));
    }

    #[tokio::test]
    async fn the_command_has_all_ids_of_the_user() {
        if !Uid::effective().is_root() {
            skip!("becoming another user needs root");
        }
        let mut nobody = Invoker::named("nobody").unwrap();
        nobody.groups.push(nix::unistd::Gid::from_raw(54321));
        let (uid, gid) = (nobody.uid, nobody.gid);
        let status = output(
            "grep -E '^(Uid|Gid|Groups|CapEff|CapPrm):' /proc/self/status; echo $USER $HOME",
            Some(&nobody),
        )
        .await;
        let words: Vec<_> = status
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        let none = "0000000000000000";
        assert_eq!(
            words,
            [
                format!("Uid: {uid} {uid} {uid} {uid}"),
                format!("Gid: {gid} {gid} {gid} {gid}"),
                format!("Groups: 54321 {gid}"),
                format!("CapPrm: {none}"),
                format!("CapEff: {none}"),
                "nobody /nonexistent".to_owned(),
            ]
        );
    }

    #[tokio::test]
    async fn a_failed_identity_change_is_status_125() {
        as_ordinary_user!();
        let nobody = Invoker::named("nobody").unwrap();
        let error =
            Prepared::new(&["true".into()], Some(&nobody), &[]).unwrap().start().unwrap_err();
        assert_eq!(error.exit_code(), 125);
        assert!(!error.to_string().contains('\n'));
    }
}
