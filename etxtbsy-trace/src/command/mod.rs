//! The traced command of `run`: held before its exec until tracing is live, and else as if the
//! shell had started it. It shares our process group and terminal, has the fds that our caller gave
//! us, and of our own none: they are all close-on-exec.

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

/// A command whose process exists, and has not run anything yet.
///
/// Dropping it ends the process; so does the end of this program, however it comes.
#[derive(Debug)]
pub struct Prepared {
    child: Child,
    program: OsString,
    /// Where the program is looked up; `None` if the command has no PATH.
    path: Option<OsString>,
    /// What to know about that PATH.
    note: Option<String>,
    /// One byte lets the child go; its end of file ends the child.
    go: PipeWriter,
    /// What the child could not do; its end of file is the exec.
    report: PipeReader,
}

/// A command that has been exec'd.
#[derive(Debug)]
pub struct Started {
    child: AsyncFd<Child>,
    signals: Signals,
    code: Cell<Option<u8>>,
    /// Whether we were interrupted as well.
    interrupted: Cell<bool>,
}

/// Why a command could not be started. The text is one line.
#[derive(Debug)]
pub enum ExecError {
    /// The exec failed.
    Exec {
        /// The command's first word.
        program: OsString,
        /// What execvp(3) gave.
        errno: Errno,
        /// What to know about the PATH that it is not in.
        note: Option<String>,
    },
    /// The child could not take the user's identity.
    Identity {
        /// The system call that was refused.
        call: &'static str,
        /// What it gave.
        errno: Errno,
    },
    /// What the tracer itself needed of the kernel was refused.
    Tracer(io::Error),
}

impl ExecError {
    /// The exit status that shells give: 127 for a command that is not there, 126 for one that
    /// cannot be executed. 125 for failures that are not the command's, as env(1) has it.
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
    /// Makes the process, which waits before its exec for [`Prepared::start`].
    ///
    /// `argv` holds the command, looked up in PATH as execvp(3) does, and its arguments. With an
    /// `identity`, it will run as that user, in that user's environment.
    ///
    /// It has our stdin, stdout and stderr, but for those that `streams` gives something else: our
    /// fd, and which of its own it becomes.
    ///
    /// The child has our resource limits as they are now: call this before changing any. It ignores the
    /// signals that were ignored when this program was started.
    pub fn new(
        argv: &[OsString],
        identity: Option<&Invoker>,
        streams: &[(BorrowedFd<'_>, RawFd)],
    ) -> Result<Self> {
        let program = argv.first().context("no command to run; give one after run --")?.clone();
        let (go_reader, go) = pipe()?;
        let (report, report_writer) = pipe()?;
        let environment = environment(identity);
        let path = environment.iter().find(|(name, _)| name == "PATH");
        let path = path.map(|(_, value)| value.clone());
        let mut plan = Plan {
            argv: CStrings::new(argv)?,
            environment: CStrings::new(environment.into_iter().map(definition))?,
            identity: identity.map(Identity::from),
            signal_mask: SigSet::empty(),
            streams: streams.iter().map(|(ours, theirs)| (ours.as_raw_fd(), *theirs)).collect(),
            waits_on: go_reader.as_raw_fd(),
            reports_to: report_writer.as_raw_fd(),
            closes: [go.as_raw_fd(), report.as_raw_fd()],
        };
        // Until the child has undone our handlers, no signal may reach them in it.
        plan.signal_mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        // SAFETY: the child calls nothing but `Plan::carry_out`, which is made for that.
        let forked = match unsafe { fork() } {
            // SAFETY: this is the new child, and the plan's fds are open in it.
            Ok(ForkResult::Child) => unsafe { plan.carry_out() },
            Ok(ForkResult::Parent { child }) => Ok(child.as_raw()),
            Err(errno) => Err(errno),
        };
        plan.signal_mask.thread_set_mask()?;
        let child = Child::new(forked.context("cannot fork the command")?)?;
        let note = identity.and_then(Invoker::about_path);
        Ok(Self { child, program, path, note, go, report })
    }

    /// The process, and what it will be once the command runs in it.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.pid.cast_unsigned()
    }

    /// Lets the command go, and returns once it has been exec'd.
    ///
    /// From here until [`Started`] is dropped this thread blocks the signals that are meant for the
    /// command (see [`Started::wait`]), so start no other thread before, and drop it on this one.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with IO enabled.
    pub fn start(self) -> Result<Started, ExecError> {
        let Self { child, program, path, note, mut go, mut report } = self;
        let signals = Signals::take().map_err(ExecError::Tracer)?;
        // SAFETY: the child owns its pidfd, and closes it when it is dropped.
        let mut child = unsafe { AsyncFd::register_with_interest(child, Interest::READABLE) }
            .map_err(|error| ExecError::Tracer(error.into()))?;
        match go.write_all(&[1]) {
            // It was killed while it waited: what by is for `wait` to say.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(ExecError::Tracer)?,
        }
        let mut told = Vec::new();
        report.read_to_end(&mut told).map_err(ExecError::Tracer)?;
        child.get_mut().is_held = false;
        let Some(failure) = Failure::from_bytes(&told) else {
            let (code, interrupted) = (Cell::new(None), Cell::new(false));
            return Ok(Started { child, signals, code, interrupted });
        };
        child.get_ref().reap(0).map_err(ExecError::Tracer)?;
        let errno = match Errno::from_raw(failure.errno) {
            // So says execvp(3) of a directory in PATH that the user may not search, too.
            Errno::EACCES if !is_anywhere(&program, path.as_deref()) => Errno::ENOENT,
            errno => errno,
        };
        Err(match (failure.step, failure.step.call()) {
            (Step::Dup2, _) => ExecError::Tracer(errno.into()),
            (_, None) => ExecError::Exec { program, errno, note },
            (_, Some(call)) => ExecError::Identity { call, errno },
        })
    }
}

/// Whether there is such a file: in PATH, unless the name has a slash.
fn is_anywhere(program: &OsStr, path: Option<&OsStr>) -> bool {
    program.as_bytes().contains(&b'/')
        || path.is_none_or(|path| {
            env::split_paths(path).any(|directory| directory.join(program).exists())
        })
}

impl Started {
    /// The command's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.get_ref().pid.cast_unsigned()
    }

    /// Waits for the command to end; gives its exit status, or 128 + the signal that killed it.
    ///
    /// Meanwhile, SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 do not end this program: it
    /// is for the command to decide, and it gets those sent to us as well. May be dropped and called
    /// again.
    pub async fn wait(&self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.code.get() {
                return Ok(code);
            }
            tokio::select! {
                ended = self.child.readable() => {
                    ended?.clear_ready();
                    self.code.set(self.child.get_ref().reap(libc::WNOHANG)?);
                    // What has killed it may have come for us as well.
                    self.pass_on_signals()?;
                }
                readable = self.signals.fd.readable() => {
                    readable?.clear_ready();
                    self.pass_on_signals()?;
                }
            }
        }
    }

    /// Gives the command the signals that have come for it.
    fn pass_on_signals(&self) -> io::Result<()> {
        while let Some(signal) = self.signals.fd.get_ref().read_signal()? {
            if signal.ssi_signo.cast_signed() == libc::SIGINT {
                self.interrupted.set(true);
            }
            if !self.has_it_already(&signal) {
                self.forward(signal.ssi_signo.cast_signed())?;
            }
        }
        Ok(())
    }

    /// Whether the command has been killed by SIGINT, and we would have been, too. A shell ends its
    /// script then only if we die of that as well (<https://www.cons.org/cracauer/sigint.html>).
    #[must_use]
    pub fn died_of_interrupt(&self) -> bool {
        self.interrupted.get() && self.child.get_ref().killed_by.get() == Some(libc::SIGINT)
    }

    /// Sends a signal to the command. Nothing happens if it has ended.
    pub fn forward(&self, signal: c_int) -> io::Result<()> {
        match self.child.get_ref().send(signal) {
            Err(Errno::ESRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Sends SIGTERM to the command and to those that /proc shows as its descendants.
    ///
    /// They are stopped until all are found: a fork fails while a signal is pending (`copy_process`),
    /// so that none of them has a child which was not seen.
    pub fn terminate_tree(&self) {
        // One that has ended meanwhile needs no signal, and one of another user cannot be helped.
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

    /// Ctrl-C and Ctrl-\ reach all of the terminal's foreground group, and what the command itself
    /// sends is meant for whoever started it, not for the command.
    fn has_it_already(&self, signal: &siginfo) -> bool {
        const KEYS: [c_int; 2] = [libc::SIGINT, libc::SIGQUIT];
        // From the terminal, or by the view, which took the key from it and sent it to the group.
        let by_key = signal.ssi_code == libc::SI_KERNEL
            || (signal.ssi_code == libc::SI_USER && signal.ssi_pid == std::process::id());
        let is_key = by_key && KEYS.contains(&signal.ssi_signo.cast_signed());
        is_key || signal.ssi_pid == self.pid()
    }
}

/// Our child process, not reaped while this exists unless `reap` did it.
#[derive(Debug)]
struct Child {
    pid: c_int,
    pidfd: OwnedFd,
    /// Whether it has yet to be let go.
    is_held: bool,
    /// The signal that killed it, once it is reaped.
    killed_by: Cell<Option<c_int>>,
}

impl Child {
    fn new(pid: c_int) -> Result<Self> {
        let pidfd = pidfd::open(pid).context("pidfd_open (it needs Linux 5.3)")?;
        Ok(Self { pid, pidfd, is_held: true, killed_by: Cell::new(None) })
    }

    fn send(&self, signal: c_int) -> nix::Result<()> {
        pidfd::send(&self.pidfd, signal)
    }

    /// Reaps it; `None` if `flags` has WNOHANG and it has not ended.
    ///
    /// Not through nix, which has no name for real-time signals.
    fn reap(&self, flags: c_int) -> io::Result<Option<u8>> {
        // SAFETY: all zeroes is a valid siginfo_t.
        let mut info: libc::siginfo_t = unsafe { mem::zeroed() };
        let id = self.pidfd.as_raw_fd().cast_unsigned();
        loop {
            // SAFETY: the pointer is to a live siginfo_t.
            let done =
                unsafe { libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | flags) };
            match Errno::result(done) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => break,
            }
        }
        // SAFETY: waitid fills the fields for SIGCHLD, or leaves the zeroes.
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
        // Not only by its pipe's end of file: it may have been stopped.
        if self.is_held && self.send(libc::SIGKILL).is_ok() {
            let _ = self.reap(0);
        }
    }
}

/// The signals that this thread blocks and reads while the command runs.
#[derive(Debug)]
struct Signals {
    fd: AsyncFd<SignalFd>,
    mask_before: SigSet,
}

impl Signals {
    fn take() -> io::Result<Self> {
        use Signal::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
        let taken: SigSet =
            [SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2].into_iter().collect();
        let fd = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        // SAFETY: the SignalFd owns its fd.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?;
        let mask_before = taken.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
        Ok(Self { fd, mask_before })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Those that came too late for the command were not meant for us.
        while let Ok(Some(_)) = self.fd.get_ref().read_signal() {}
        let _ = self.mask_before.thread_set_mask();
    }
}

/// Strings for execvp(3), made before the fork because the child must not allocate.
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

/// The signals that were ignored when this program was started, signal N in bit N - 1.
static IGNORED_AT_START: AtomicU64 = AtomicU64::new(0);

/// Notes them before `main`: the Rust runtime ignores SIGPIPE before it calls that.
#[used]
// SAFETY: glibc and musl call the functions of this section with (argc, argv, envp), which this one does
// not need, before `main`; it calls nothing but sigaction(2), and needs nothing of Rust's runtime.
#[unsafe(link_section = ".init_array")]
static NOTE_IGNORED: extern "C" fn() = {
    extern "C" fn note() {
        let ignored = (1..=64).filter(|signal| is_ignored(*signal)).map(|signal| 1 << (signal - 1));
        IGNORED_AT_START.store(ignored.fold(0, |all: u64, one: u64| all | one), Ordering::Relaxed);
    }
    note
};

/// Whether this process ignores a signal now.
fn is_ignored(signal: c_int) -> bool {
    // SAFETY: all zeroes is a valid sigaction, and the pointer is to a live one. It fails for the signals that
    // the C library keeps to itself.
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

/// The ids that the child takes.
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

/// What the child does after the fork, and all it needs for it.
struct Plan {
    argv: CStrings,
    environment: CStrings,
    identity: Option<Identity>,
    /// The mask that the command gets.
    signal_mask: SigSet,
    /// Our fds, and those of the command that they become.
    streams: Vec<(RawFd, RawFd)>,
    waits_on: RawFd,
    reports_to: RawFd,
    /// The parent's ends of the pipes.
    closes: [RawFd; 2],
}

impl Plan {
    /// Waits, and becomes the command; ends the process if it cannot, or if nobody lets it go.
    ///
    /// # Safety
    ///
    /// Only in a process just forked, in which the plan's fds are open. All that is called is
    /// async-signal-safe; execvp(3) does not promise to be, but in glibc (since 2.24) and in musl
    /// it does without memory from the heap and without locks.
    unsafe fn carry_out(&self) -> ! {
        // SAFETY: calls of the C library with plain values, and with pointers to what `self` and
        // this frame keep alive; the argument lists end in null.
        unsafe {
            for fd in self.closes {
                libc::close(fd);
            }
            // The end of the pipe would not end it while it is stopped, as by Ctrl-Z.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            undo_signal_handlers();
            libc::pthread_sigmask(libc::SIG_SETMASK, self.signal_mask.as_ref(), ptr::null_mut());

            let mut byte = 0_u8;
            let got = loop {
                let got = libc::read(self.waits_on, (&raw mut byte).cast(), 1);
                if got >= 0 || Errno::last() != Errno::EINTR {
                    break got;
                }
            };
            if got != 1 {
                libc::_exit(1);
            }
            libc::prctl(libc::PR_SET_PDEATHSIG, 0);

            let mut step = Step::Exec;
            let is_refused = |(ours, theirs): &(RawFd, RawFd)| libc::dup2(*ours, *theirs) < 0;
            if self.streams.iter().any(is_refused) {
                step = Step::Dup2;
            } else if let Some(identity) = &self.identity
                && let Err(refused) = identity.take()
            {
                step = refused;
            } else {
                let argv = &self.argv.pointers;
                // Where the command is looked up, too: execvpe(3) would do that in our own PATH.
                environ = self.environment.pointers.as_ptr();
                libc::execvp(argv[0], argv.as_ptr());
            }
            let failure = Failure { step, errno: Errno::last_raw() }.to_bytes();
            libc::write(self.reports_to, failure.as_ptr().cast(), failure.len());
            libc::_exit(126);
        }
    }
}

/// Gives signals that have a handler their default, as the exec would, but before the wait: our
/// handlers would speak to the parent. Those that were ignored when this program was started stay
/// ignored, as nohup(1) and systemd (SIGPIPE) want it; those that only this program ignores do not.
///
/// # Safety
///
/// Only in a process just forked.
unsafe fn undo_signal_handlers() {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: all zeroes is a valid sigaction, that of SIG_DFL; the pointers are to live ones.
        unsafe {
            let default: libc::sigaction = mem::zeroed();
            let ignored = IGNORED_AT_START.load(Ordering::Relaxed) >> (signal - 1) & 1 == 1;
            if !(ignored && is_ignored(signal)) {
                // Fails for those that the C library keeps to itself.
                libc::sigaction(signal, &raw const default, ptr::null_mut());
            }
        }
    }
}

impl Identity {
    /// Takes the ids, the user last, since the others need root; errno says why if it cannot.
    ///
    /// # Safety
    ///
    /// Only in a process just forked.
    unsafe fn take(&self) -> Result<(), Step> {
        // SAFETY: plain values, and the pointer and length of a live vector.
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
            // There must be no way back.
            if self.uid != 0 && libc::setuid(0) == 0 {
                Errno::EPERM.set();
                return Err(Step::StayUser);
            }
        }
        Ok(())
    }
}

/// What the child was doing when it failed.
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

    /// The call of taking an identity; `None` for another step.
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

/// The child's report, through its pipe.
struct Failure {
    step: Step,
    errno: c_int,
}

impl Failure {
    fn to_bytes(&self) -> [u8; 5] {
        let [a, b, c, d] = self.errno.to_ne_bytes();
        [self.step as u8, a, b, c, d]
    }

    /// `None` if there is no report.
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

    /// A directory that all may write to, and a path in it.
    fn scratch() -> (TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        let path = directory.path().join("out");
        (directory, path)
    }

    /// A shell command whose output is in `path`.
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
    async fn exit_codes_are_the_commands() {
        assert_eq!(code(&["true"]).await, 0);
        assert_eq!(code(&["sh", "-c", "exit 3"]).await, 3);
        assert_eq!(code(&["sh", "-c", "exit 255"]).await, 255);
    }

    #[tokio::test]
    async fn a_signal_is_128_and_its_number() {
        assert_eq!(code(&["sh", "-c", "kill -9 $$"]).await, 137);
        // A real-time signal has no name.
        assert_eq!(code(&["sh", "-c", "kill -40 $$"]).await, 168);
    }

    #[tokio::test]
    async fn a_command_that_cannot_be_executed_has_the_status_of_a_shell() {
        let (directory, path) = scratch();
        let name = path.to_str().unwrap();
        assert_eq!(error(&["no-such-cmd"]), (127, "no-such-cmd: command not found".into()));
        assert_eq!(error(&["a\nb"]), (127, "\"a\\nb\": command not found".into()));
        assert_eq!(error(&[""]), (127, "\"\": command not found".into()));
        assert_eq!(error(&[name]), (127, format!("{name}: No such file or directory")));

        // By another process, lest a fork of another test's thread hold it open for writing.
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
    async fn a_busy_command_is_not_tried_again() {
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
        // It waits in its read, or is on the way there: it cannot get past it.
        let exe = |pid: u32| fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(exe(pid), exe(process::id()));
        assert!(!path.exists());
        let started = prepared.start().unwrap();
        assert_eq!(started.pid(), pid);
        assert_eq!(started.wait().await.unwrap(), 0);
        assert_eq!(fs::read_to_string(path).unwrap(), format!("{pid}\n"));
    }

    #[tokio::test]
    async fn dropped_without_start_it_ends_and_never_ran() {
        let (_directory, path) = scratch();
        let prepared = Prepared::new(&into_file(&path, "echo ran"), None, &[]).unwrap();
        let process = PathBuf::from(format!("/proc/{}", prepared.pid()));
        assert!(process.exists());
        drop(prepared);
        assert!(!process.exists());
        assert!(!path.exists());
    }

    const HELPER_FILE: &str = "ETXTBSY_TRACE_TEST_FILE";

    /// Not a test: the tracer that `the_end_of_the_tracer_ends_the_held_command` kills.
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
    fn the_end_of_the_tracer_ends_the_held_command() {
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
        let held = Child::new(pid.unwrap()).unwrap();
        let held = mem::ManuallyDrop::new(held); // not ours to kill
        let await_state = |state: &str| {
            let stat = || fs::read_to_string(format!("/proc/{}/stat", held.pid)).unwrap();
            while !stat().contains(&format!(") {state} ")) {
                std::thread::yield_now();
            }
        };
        if stopped {
            // It waits to be let go.
            await_state("S");
            held.send(libc::SIGSTOP).unwrap();
            await_state("T");
        }
        tracer.kill().unwrap();
        tracer.wait().unwrap();
        // Readable once it has ended, whoever reaps it.
        let mut ends = libc::pollfd { fd: held.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one live pollfd. The time is only there for a failing test to end.
        assert_eq!(unsafe { libc::poll(&raw mut ends, 1, 60_000) }, 1);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn killed_while_held_it_has_a_status() {
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

    /// None is forked unseen meanwhile: the pipe ends, of which all of them have the end for writing.
    #[tokio::test]
    async fn a_tree_that_grows_is_terminated() {
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
            // SAFETY: one live pollfd. The time is only there for a failing test to end.
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
            heed(signal);
            let started = prepared(&["sleep", "1000"]).start().unwrap();
            // To this thread; the other tests' threads do not block it.
            raise(signal).unwrap();
            assert_eq!(started.wait().await.unwrap(), 128 + signal as u8);
        }
    }

    /// Undoes that whoever started the tests had a signal ignored (nohup, a shell's `&`): a command
    /// would inherit that.
    fn heed(signal: Signal) {
        // SAFETY: asks for the action, and sets the default one where there is no handler.
        unsafe {
            let mut action: libc::sigaction = mem::zeroed();
            libc::sigaction(signal as i32, ptr::null(), &raw mut action);
            if action.sa_sigaction == libc::SIG_IGN {
                libc::signal(signal as i32, libc::SIG_DFL);
            }
        }
    }

    #[tokio::test]
    async fn the_signal_mask_comes_back() {
        let before = SigSet::thread_get_mask().unwrap();
        let started = prepared(&["true"]).start().unwrap();
        assert_ne!(SigSet::thread_get_mask().unwrap(), before);
        started.wait().await.unwrap();
        drop(started);
        assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    }

    #[tokio::test]
    async fn signals_are_as_the_shell_would_have_them() {
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
        // The C library keeps 32 and 33 to itself, and posix_spawn(3) has its children ignore them.
        let own = 0b11 << 31;
        assert_eq!(set("SigIgn:") & !own, IGNORED_AT_START.load(Ordering::Relaxed));
    }

    /// What the fds of this process that are not close-on-exec refer to.
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
    async fn it_has_the_callers_fds_and_none_of_ours() {
        let (directory, _) = scratch();
        let theirs = fs::File::create(directory.path().join("theirs")).unwrap();
        let ours = fs::File::create(directory.path().join("ours")).unwrap();
        // SAFETY: the fd is open; it alone loses its close-on-exec flag.
        unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_SETFD, 0) };
        let expected = inheritable();
        assert!(expected.contains(&directory.path().join("theirs")));

        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let argv = ["cat".into(), fifo.clone().into()];
        let started = Prepared::new(&argv, None, &[]).unwrap().start().unwrap();
        // Opens once cat has opened it too, and holds cat there.
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
    async fn it_shares_our_process_group_and_session() {
        let ids = output("cut -d' ' -f5,6 /proc/$$/stat", None).await;
        let (group, session) = (nix::unistd::getpgrp(), nix::unistd::getsid(None).unwrap());
        assert_eq!(ids.trim(), format!("{group} {session}"));
    }

    #[tokio::test]
    async fn the_command_is_the_user_in_all_respects() {
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
    async fn a_refused_identity_is_not_the_commands_failure() {
        as_ordinary_user!();
        let nobody = Invoker::named("nobody").unwrap();
        let error =
            Prepared::new(&["true".into()], Some(&nobody), &[]).unwrap().start().unwrap_err();
        assert_eq!(error.exit_code(), 125);
        assert!(!error.to_string().contains('\n'));
    }
}
