//! A table of remedies by verdict and by the opener's runtime.
//!
//! The remedies for a runtime come first, then those for all runtimes. A remedy that the incident
//! itself refutes is left out, such as a retry if the file stayed busy for longer than a retry lasts.
//! Each figure names the kernel on which it was measured.

use crate::analysis::verdict::words::{self, name, opener, span};
use crate::{
    analysis::{frames, wait::Wait, ways},
    event::{Holder, Incident, Runtime, VerdictKind, Via},
    host::runtime::by_name,
    text::{escape, other_pids},
};
use std::cell::Cell;

/// The columns of the name of a function or a source file.
const PLACE: usize = 100;
/// How long a sensible retry lasts.
pub(super) const RETRY_NS: u64 = 1_000_000_000;

/// The condition of a remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Always.
    Always,
    /// A retry would have succeeded, as far as is known.
    Short,
    /// The file stayed busy for longer than a sensible retry lasts.
    Long,
    /// The holder still held the file when this was written.
    Held,
    /// The fd is a duplicate that is not close-on-exec.
    Dup,
    /// The exec went through an fd of the file: `/proc/self/fd/5`, a memfd.
    OwnFd,
    /// The victim itself inherited the fd.
    Own,
}

/// A remedy. [`Scene::fill`] replaces `{holder}`, `{opener}`, `{fd}`… by those of the incident, and
/// `{enough}` by how long a retry would have had to wait, and the first `{where}` by where in its code the program
/// opens the file and forks.
#[derive(Debug)]
struct Remedy(When, &'static str);

use Runtime::{Go, Jvm, Native, Node, Python, Rust, Shell};
use VerdictKind as Kind;
use When::{Always, Dup, Held, Long, Own, OwnFd, Short};

/// The remedies of a verdict for some runtimes.
type Row = (VerdictKind, &'static [Runtime], &'static [Remedy]);

/// Every runtime.
const ALL: &[Runtime] = &[Go, Jvm, Node, Python, Rust, Shell, Native];
/// The runtimes that give access to flock and pipes.
const SYSTEM: &[Runtime] = &[Go, Python, Rust, Native];
/// The runtimes for which the general advice on retries fits.
const NOT_JVM: &[Runtime] = &[Go, Node, Python, Rust, Shell, Native];

const CHILD: &str = "write the file in a child process, so that the process that forks never has it \
    open for writing (0 failures in 24176 attempts, measured on Linux 6.18)";
const LOCK: &str = "or hold one lock from the open for writing{where} until each spawned child has ended (0 \
    failures in 12584 attempts, measured on Linux 6.18); a lock around the spawn call alone does not \
    help with posix_spawn or vfork (72 failures in 10136, measured on the same kernel)";
const PIPE: &str = "or use the pipe trick: open an O_CLOEXEC pipe before the file, close its write end \
    before the spawn, and wait for end-of-file (0 failures in 24425 attempts if the pipe's fd number is \
    lower than the file's, 29 in 10721 if it is higher, measured on Linux 6.18)";
const FLOCK: &str = "or use the flock algorithm: lock the write fd, close it, reopen the file read-only \
    and wait for the lock; a small window remains, because the kernel drops the lock before the write \
    access (4 failures in 11406 attempts, measured on Linux 6.18)";
const RETRY: &str = "or retry while the exec fails with ETXTBSY, with a limit{enough}";
const RETRY_IN_VAIN: &str = "does not help: a short retry: the file stayed busy for longer{held}";
const RACE_IN_VAIN: &str = "does not help: fsync or sync_all, rename after writing, closing earlier, a \
    lock around the write alone, a fixed sleep, the order of chmod: the child already has the fd";
const RENAME: &str = "or write to another name and rename it into place after the close, so that \
    nobody executes a file that is being written";

/// All remedies, in the order in which they are advised.
static TABLE: &[Row] = &[
    (
        Kind::ForkExecRace,
        ALL,
        &[Remedy(
            Own,
            "close the inherited fd in {holder} before its exec: it holds the file itself, and a retry in the same process fails again",
        )],
    ),
    (
        Kind::ForkExecRace,
        &[Go],
        &[Remedy(
            Always,
            "hold syscall.ForkLock.RLock() from the open for writing to the close in {opener}{where}: os/exec forks under the write lock, so no child gets a copy",
        )],
    ),
    (
        Kind::ForkExecRace,
        &[Jvm],
        &[
            Remedy(
                Short,
                "retry ProcessBuilder.start() while it fails with error=26, with a limit{enough}: Java cannot open with O_CLOEXEC, and its children close inherited fds only after the fork",
            ),
            Remedy(
                Short,
                "-Djdk.lang.Process.launchMechanism=VFORK makes the race rarer but does not end it (4 failures in 900 attempts against 18 with the default POSIX_SPAWN, measured with Java 17 on Linux 6.18)",
            ),
        ],
    ),
    (
        Kind::ForkExecRace,
        &[Node],
        &[Remedy(
            Always,
            "start no process between the open and the stream's 'close' event ('finish' comes before the close), or write with fs.writeFileSync, during which its thread cannot spawn; if worker threads spawn too, hold one lock (Atomics.wait) from the open to the close{where}, and during each spawn, which returns after the child's exec",
        )],
    ),
    (
        Kind::ForkExecRace,
        &[Python],
        &[Remedy(
            Always,
            "write the file in a child, such as subprocess.run([\"install\", …]) or a multiprocessing process of the 'spawn' kind (a C program that did so: 0 failures in 24176 attempts, measured on Linux 6.18)",
        )],
    ),
    (
        Kind::ForkExecRace,
        &[Rust],
        &[Remedy(
            Always,
            "write the file in a child (fork of the nix crate, or Command::new(\"install\")), or use the pipe trick with std::io::pipe, or hold one std::sync::RwLock from File::create{where} until each child has ended (read side to write, write side to spawn); the last two need no crate",
        )],
    ),
    (
        Kind::ForkExecRace,
        &[Shell],
        &[Remedy(
            Always,
            "close the fd for the background command: `command {fd}>&- &`, or write the file before anything runs in the background",
        )],
    ),
    (Kind::ForkExecRace, &[Native], &[Remedy(Always, CHILD)]),
    (Kind::ForkExecRace, ALL, &[Remedy(Always, CHILD), Remedy(Always, LOCK)]),
    (Kind::ForkExecRace, SYSTEM, &[Remedy(Always, PIPE), Remedy(Always, FLOCK)]),
    (Kind::ForkExecRace, NOT_JVM, &[Remedy(Short, RETRY)]),
    (
        Kind::ForkExecRace,
        ALL,
        &[
            Remedy(
                Long,
                "or close the fd in {holder} as soon as it is forked (close_range): close-on-exec does nothing until the child execs",
            ),
            Remedy(Always, RACE_IN_VAIN),
            Remedy(Long, RETRY_IN_VAIN),
        ],
    ),
    (
        Kind::StillOpen,
        ALL,
        &[Remedy(
            OwnFd,
            "reopen the file read-only and exec that fd, after the writable fd is closed: open(\"/proc/self/fd/N\", O_RDONLY|O_CLOEXEC), close(N), then exec or fexecve",
        )],
    ),
    (
        Kind::StillOpen,
        &[Go],
        &[Remedy(
            Always,
            "call Close() on the file in {opener} and check its error before exec.Command runs the file: a deferred Close comes too late",
        )],
    ),
    (
        Kind::StillOpen,
        &[Jvm],
        &[Remedy(
            Always,
            "close the OutputStream or FileChannel in {opener} (try-with-resources) before ProcessBuilder.start()",
        )],
    ),
    (
        Kind::StillOpen,
        &[Node],
        &[Remedy(
            Always,
            "run the file on the write stream's 'close' event, not on 'finish', or after `await handle.close()`: 'finish' comes before the fd is closed, and with io_uring a worker thread closes it later still",
        )],
    ),
    (
        Kind::StillOpen,
        &[Python],
        &[Remedy(
            Always,
            "leave the `with` block, or call f.close() or os.close(fd) (tempfile.mkstemp returns an open fd), before subprocess runs the file",
        )],
    ),
    (
        Kind::StillOpen,
        &[Rust],
        &[Remedy(
            Always,
            "drop the File in {opener} before Command::spawn; with a NamedTempFile of the tempfile crate, call into_temp_path() first",
        )],
    ),
    (
        Kind::StillOpen,
        &[Shell],
        &[Remedy(
            Always,
            "close the fd before the command, with `exec {fd}>&-` or `command {fd}>&-`: dash keeps the fd of a redirection open in the shell itself until the redirected command has ended",
        )],
    ),
    (
        Kind::StillOpen,
        ALL,
        &[
            Remedy(
                Always,
                "close the file in {opener} before the exec, and make the exec wait for the close",
            ),
            Remedy(Always, RENAME),
            Remedy(Short, RETRY),
            Remedy(Always, "does not help: fsync, chmod, a fixed sleep"),
            Remedy(Long, RETRY_IN_VAIN),
        ],
    ),
    (
        Kind::LeakedFd,
        ALL,
        &[
            Remedy(
                Own,
                "close the inherited fd in {holder} before its exec: it holds the file itself, and a retry in the same process fails again",
            ),
            Remedy(
                Dup,
                "make the copy of the fd close-on-exec: dup3 with O_CLOEXEC or fcntl(F_DUPFD_CLOEXEC); dup, dup2 and F_DUPFD drop the flag",
            ),
        ],
    ),
    (
        Kind::LeakedFd,
        &[Go],
        &[Remedy(
            Always,
            "open the file in {opener} with os.OpenFile{where}, which sets O_CLOEXEC, not with syscall.Open; pass the fd in exec.Cmd.ExtraFiles only to programs that need it",
        )],
    ),
    (
        Kind::LeakedFd,
        &[Jvm],
        &[Remedy(
            Always,
            "start {holder} with ProcessBuilder, whose children close inherited fds; native code in the JVM that forks must close them itself (close_range), because Java cannot open with O_CLOEXEC",
        )],
    ),
    (
        Kind::LeakedFd,
        &[Node],
        &[Remedy(
            Always,
            "keep the fd out of the `stdio` option of child_process.spawn: fs.open sets O_CLOEXEC, so only an fd that is passed on purpose, or one that a native addon opened, survives the exec",
        )],
    ),
    (
        Kind::LeakedFd,
        &[Python],
        &[Remedy(
            Always,
            "keep the fd non-inheritable, as open() makes it: no os.set_inheritable, no pass_fds, and close_fds=True for {holder}; in a child of os.fork that does not exec, close it",
        )],
    ),
    (
        Kind::LeakedFd,
        &[Rust],
        &[Remedy(
            Always,
            "open the file in {opener} with std::fs::File{where}, which sets O_CLOEXEC; with the libc, nix or rustix crate, pass O_CLOEXEC to open yourself",
        )],
    ),
    (
        Kind::LeakedFd,
        &[Shell],
        &[Remedy(
            Always,
            "close the fd for the background command: `command {fd}>&- &`; shells do not set close-on-exec on the fds that `exec 3>file` opens",
        )],
    ),
    (
        Kind::LeakedFd,
        ALL,
        &[
            Remedy(
                Always,
                "open the file in {opener} with O_CLOEXEC{where}, and set it on each copy of the fd; a child that does not exec must close the fd itself",
            ),
            Remedy(Held, "to free the file now: end {holder}{pids}"),
            Remedy(Short, RETRY),
            Remedy(Always, "does not help: fsync, rename after writing"),
            Remedy(Long, RETRY_IN_VAIN),
        ],
    ),
    (
        Kind::PassedFd,
        &[Go],
        &[Remedy(
            Always,
            "have {holder} close the fd before the file is executed, or send one that os.Open opened, which is read-only",
        )],
    ),
    (
        Kind::PassedFd,
        &[Jvm],
        &[Remedy(
            Always,
            "have {holder} close the fd before the file is executed, or send one of a FileInputStream, which is read-only",
        )],
    ),
    (
        Kind::PassedFd,
        &[Node],
        &[Remedy(
            Always,
            "have {holder} close the fd before the file is executed, or send one of fs.open(path, 'r')",
        )],
    ),
    (
        Kind::PassedFd,
        &[Python],
        &[Remedy(
            Always,
            "have {holder} close the fd before the file is executed, or send one of os.open(path, os.O_RDONLY) with socket.send_fds",
        )],
    ),
    (
        Kind::PassedFd,
        &[Rust],
        &[Remedy(
            Always,
            "have {holder} close the fd before the file is executed, or send one of File::open, which is read-only",
        )],
    ),
    (
        Kind::PassedFd,
        &[Shell],
        &[Remedy(
            Always,
            "have {holder} close the fd before the file is executed, or pass one that was opened with `{fd}<file`, read-only",
        )],
    ),
    (
        Kind::PassedFd,
        &[Native],
        &[Remedy(
            Always,
            "have {holder} close the fd before the file is executed, or send one that was opened O_RDONLY",
        )],
    ),
    (
        Kind::PassedFd,
        ALL,
        &[
            Remedy(
                Always,
                "have {holder} report when it has closed the fd, and make the exec wait for that",
            ),
            Remedy(Short, RETRY),
            Remedy(
                Always,
                "does not help: closing the fd in the process that opened it, O_CLOEXEC, a lock around fork and exec: the holder did not inherit the fd",
            ),
            Remedy(Long, RETRY_IN_VAIN),
        ],
    ),
    (
        Kind::SharedMapping,
        &[Go],
        &[Remedy(
            Always,
            "call syscall.Munmap in {holder} before the file is executed: closing the fd is not enough",
        )],
    ),
    (
        Kind::SharedMapping,
        &[Jvm],
        &[Remedy(
            Always,
            "map the file in {holder} with FileChannel.map with an Arena (Java 22) and close the Arena before the file is executed: a MappedByteBuffer is unmapped only by the garbage collector",
        )],
    ),
    (
        Kind::SharedMapping,
        &[Node],
        &[Remedy(
            Always,
            "have the native addon in {holder} unmap the file before it is executed: Node itself maps no files for writing",
        )],
    ),
    (
        Kind::SharedMapping,
        &[Python],
        &[Remedy(
            Always,
            "call close() on the mmap object in {holder} before the file is executed: closing the fd is not enough",
        )],
    ),
    (
        Kind::SharedMapping,
        &[Rust],
        &[Remedy(
            Always,
            "drop the Mmap (memmap2 crate) in {holder} before the file is executed: dropping the File is not enough",
        )],
    ),
    (
        Kind::SharedMapping,
        &[Shell],
        &[Remedy(
            Always,
            "end the command that maps the file before it is executed: a shell maps no files for writing itself",
        )],
    ),
    (
        Kind::SharedMapping,
        &[Native],
        &[Remedy(
            Always,
            "munmap the file in {holder} before it is executed: closing the fd is not enough",
        )],
    ),
    (
        Kind::SharedMapping,
        ALL,
        &[
            Remedy(
                Always,
                "or, if the mapping is only read, open the file O_RDONLY for it: a private or read-only mapping of an O_RDWR fd keeps the file busy too",
            ),
            Remedy(Always, "or write to another name, unmap, and rename it into place"),
            Remedy(Short, RETRY),
            Remedy(
                Always,
                "does not help: msync, fsync, MAP_PRIVATE, mprotect, closing the fd earlier",
            ),
            Remedy(Long, RETRY_IN_VAIN),
        ],
    ),
    (
        Kind::RunningExecutable,
        &[Go],
        &[Remedy(
            Always,
            "write the new file beside it with os.CreateTemp and put it into place with os.Rename: processes that run the old file keep it",
        )],
    ),
    (
        Kind::RunningExecutable,
        &[Jvm],
        &[Remedy(
            Always,
            "write the new file beside it with Files.createTempFile and put it into place with Files.move and ATOMIC_MOVE: processes that run the old file keep it",
        )],
    ),
    (
        Kind::RunningExecutable,
        &[Node],
        &[Remedy(
            Always,
            "write the new file beside it and put it into place with fs.rename: processes that run the old file keep it",
        )],
    ),
    (
        Kind::RunningExecutable,
        &[Python],
        &[Remedy(
            Always,
            "write the new file beside it with tempfile and put it into place with os.replace: processes that run the old file keep it",
        )],
    ),
    (
        Kind::RunningExecutable,
        &[Rust],
        &[Remedy(
            Always,
            "write the new file beside it with NamedTempFile::new_in (tempfile crate) and put it into place with persist(): processes that run the old file keep it",
        )],
    ),
    (
        Kind::RunningExecutable,
        &[Shell],
        &[Remedy(
            Always,
            "use `mv new file`, `install`, or `cp --remove-destination` instead of `>` or plain `cp`: processes that run the old file keep it",
        )],
    ),
    (
        Kind::RunningExecutable,
        &[Native],
        &[Remedy(
            Always,
            "write the new file beside it and rename it into place: processes that run the old file keep it",
        )],
    ),
    (
        Kind::RunningExecutable,
        ALL,
        &[
            Remedy(
                Always,
                "or unlink the old file first and create a new one; a linker or installer that rewrites in place has an option for that, or creates a new file if the old one is missing",
            ),
            Remedy(Always, "or end the processes that run it, and wait until they have exited"),
            Remedy(Short, "or retry while the call fails with ETXTBSY, with a limit{enough}"),
            Remedy(
                Always,
                "does not help: chmod, truncating first (the kernel refuses that too), fsync",
            ),
            Remedy(Long, RETRY_IN_VAIN),
        ],
    ),
    (
        Kind::NameCollision,
        &[Go],
        &[Remedy(
            Always,
            "make the name unique: os.MkdirTemp or os.CreateTemp, then os.Rename to the final name after Close",
        )],
    ),
    (
        Kind::NameCollision,
        &[Jvm],
        &[Remedy(
            Always,
            "make the name unique: Files.createTempFile, then Files.move with ATOMIC_MOVE to the final name after the close",
        )],
    ),
    (
        Kind::NameCollision,
        &[Node],
        &[Remedy(
            Always,
            "make the name unique: fs.mkdtemp, then fs.rename to the final name after the 'close' event",
        )],
    ),
    (
        Kind::NameCollision,
        &[Python],
        &[Remedy(
            Always,
            "make the name unique: tempfile.mkstemp or TemporaryDirectory, then os.replace to the final name after the close",
        )],
    ),
    (
        Kind::NameCollision,
        &[Rust],
        &[Remedy(
            Always,
            "make the name unique: NamedTempFile::new_in (tempfile crate), then persist() to the final name, and into_temp_path() before it is run",
        )],
    ),
    (
        Kind::NameCollision,
        &[Shell],
        &[Remedy(Always, "make the name unique: `mktemp`, then `mv` to the final name")],
    ),
    (
        Kind::NameCollision,
        &[Native],
        &[Remedy(
            Always,
            "make the name unique: mkstemp or mkdtemp, then rename to the final name after the close",
        )],
    ),
    (
        Kind::NameCollision,
        ALL,
        &[
            Remedy(
                Always,
                "or make the process that runs the file wait until {opener} has closed it, for instance with a lock file",
            ),
            Remedy(Short, RETRY),
            Remedy(Always, "does not help: fsync, chmod, a lock inside one of the processes"),
            Remedy(Long, RETRY_IN_VAIN),
        ],
    ),
    (
        Kind::SwapFile,
        ALL,
        &[
            Remedy(Always, "stop swapping to the file first: swapoff {swap}"),
            Remedy(
                Always,
                "does not help: ending processes, retrying: the kernel itself holds the file",
            ),
        ],
    ),
    (
        Kind::BinfmtMisc,
        ALL,
        &[
            Remedy(
                Always,
                "remove the entry first, and register it again afterwards: echo -1 > /proc/sys/fs/binfmt_misc/{device}",
            ),
            Remedy(
                Always,
                "a rename over the file works, but the entry keeps the old file in use until it is registered again",
            ),
            Remedy(
                Always,
                "does not help: ending processes, retrying: the entry (flag F) holds the file",
            ),
        ],
    ),
    (
        Kind::RefusedByFilesystem,
        ALL,
        &[
            Remedy(
                Always,
                "look for the holder on the side that serves the file system ({device}{mount}): the file server and its other clients, the host of the virtual machine, the FUSE daemon",
            ),
            Remedy(Always, "or copy the file to a local file system, and run or write it there"),
            Remedy(Always, "does not help: looking for the holder on this machine (lsof, fuser)"),
        ],
    ),
    (
        Kind::LoopDevice,
        ALL,
        &[
            Remedy(
                Always,
                "detach the loop device before the file is executed: unmount its file systems, then losetup -d {device}",
            ),
            Remedy(
                Always,
                "or set it up read-only (losetup -r), which does not keep the file busy",
            ),
            Remedy(
                Always,
                "does not help: ending processes: the device itself holds the file until it is detached",
            ),
        ],
    ),
    (
        Kind::Unexplained,
        ALL,
        &[Remedy(
            Always,
            "check the `lost` lines, if there are any, and start tracing before the processes that write or run the file",
        )],
    ),
];

/// Which names the advice uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// Those of the incident, with pids.
    Incident,
    /// Those of the group: programs.
    Group,
}

/// The remedies, the best first, then what does not help; never empty.
pub(super) fn of(
    kind: VerdictKind,
    incident: &Incident,
    culprit: Option<&Holder>,
    names: Names,
) -> Vec<String> {
    if culprit.is_none()
        && let Some(unheld) = incident.unheld.first()
        && let Some(text) = ways::of_place(unheld.place).advice
    {
        return vec![text.to_owned()];
    }
    worded(kind, incident, culprit, names, |_| true)
}

/// The advice for an exec that succeeded: nothing failed that could be repeated.
pub(super) fn of_near_miss(incident: &Incident, culprit: Option<&Holder>) -> Vec<String> {
    let fits = |text: &str| !text.contains("retry");
    worded(Kind::ForkExecRace, incident, culprit, Names::Incident, fits)
}

/// The remedies of the table that fit the incident and `is_wanted`.
fn worded(
    kind: VerdictKind,
    incident: &Incident,
    culprit: Option<&Holder>,
    names: Names,
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<String> {
    let scene = Scene { incident, culprit, names, is_located: Cell::new(false) };
    let runtime = runtime(incident, culprit).unwrap_or(Native);
    let rows = TABLE.iter().filter(|(of, for_, _)| *of == kind && for_.contains(&runtime));
    let remedies = rows.flat_map(|(_, _, remedies)| *remedies);
    let mut texts: Vec<&str> = Vec::new();
    for Remedy(when, text) in remedies {
        // A general remedy may be the same as that of the runtime.
        if scene.fits(*when) && is_wanted(text) && !texts.contains(text) {
            texts.push(text);
        }
    }
    let mut advice: Vec<String> = texts.into_iter().map(|text| scene.fill(text)).collect();
    // The first is no alternative to another.
    if let Some(first) = advice.first_mut()
        && first.starts_with("or ")
    {
        first.drain(.."or ".len());
    }
    advice
}

/// The runtime of the opener or, in direction `write`, of the victim; `None` if it is not known.
pub(super) fn runtime(incident: &Incident, culprit: Option<&Holder>) -> Option<Runtime> {
    let victim = &incident.victim;
    let culprit = match culprit {
        Some(culprit) if culprit.via != Via::Running => culprit,
        Some(_) => {
            let comm = victim.comm.as_deref().unwrap_or_default();
            return by_name(victim.exe.as_deref()?, comm);
        }
        None => return incident.unheld.first()?.opened.as_ref()?.runtime,
    };
    let opened = culprit.opened.as_ref();
    if let Some(runtime) = opened.and_then(|opened| opened.runtime) {
        return Some(runtime);
    }
    // The executable can be known even if the runtime was not recorded.
    let pid = opened.map_or(culprit.pid, |opened| opened.pid);
    let above = culprit.ancestors.iter().find(|above| above.pid == pid);
    let own = culprit.exe.as_deref().filter(|_| culprit.pid == pid);
    let exe = own.or_else(|| above.and_then(|above| above.exe.as_deref()))?;
    by_name(exe, above.and_then(|above| above.comm.as_deref()).unwrap_or_default())
}

/// The incident that an advice is for.
struct Scene<'a> {
    incident: &'a Incident,
    culprit: Option<&'a Holder>,
    names: Names,
    /// Whether a remedy has the places in the code.
    is_located: Cell<bool>,
}

impl Scene<'_> {
    fn fits(&self, when: When) -> bool {
        let short = match Wait::of(self.incident) {
            Wait::Over(ns) => ns <= RETRY_NS,
            Wait::Endless => false,
            Wait::Unknown => true,
        };
        match when {
            Always => true,
            Short => short && !self.fits(Own),
            Long => !short,
            Held => self.culprit.is_some_and(|culprit| culprit.released.is_none()),
            Dup => self.culprit.is_some_and(|culprit| {
                culprit.via == Via::Dup && culprit.fds.iter().any(|fd| fd.cloexec == Some(false))
            }),
            OwnFd => is_through_fd(self.incident),
            Own => self.culprit.is_some_and(|it| words::is_victim(self.incident, it)),
        }
    }

    /// The text of a remedy with the names of this incident.
    fn fill(&self, text: &str) -> String {
        words::fill(text, |word| {
            Some(match word {
                "holder" => self.holder(),
                "opener" => self.opener(),
                "fd" => self.fd(),
                "pids" => self.pids(),
                "enough" => self.enough(),
                "held" => self.held(),
                "device" => self.device(),
                "mount" => self.mount(),
                "swap" => self.swap(),
                "where" => self.places(),
                _ => return None,
            })
        })
    }

    fn holder(&self) -> String {
        match (self.culprit, self.names) {
            (Some(holder), Names::Incident) => name(holder),
            (Some(holder), Names::Group) => crate::analysis::programs::holder_program(holder)
                .unwrap_or_else(|| "the process that holds it".to_owned()),
            (None, _) => "the process that holds it".to_owned(),
        }
    }

    fn opener(&self) -> String {
        let opened = self.culprit.and_then(|holder| Some((holder, holder.opened.as_ref()?)));
        let unknown = || "the process that opened it".to_owned();
        match (opened, self.names) {
            (Some((holder, opened)), Names::Incident) => opener(holder, opened),
            (Some((holder, opened)), Names::Group) => {
                crate::analysis::programs::opener_program(holder, opened).unwrap_or_else(unknown)
            }
            // It has had the file open since before tracing began.
            (None, _) if self.culprit.is_some() => self.holder(),
            (None, _) => unknown(),
        }
    }

    fn fd(&self) -> String {
        let fd = self.culprit.and_then(|holder| holder.fds.first()).map_or(3, |fd| fd.fd);
        fd.to_string()
    }

    /// The holder's pids in other namespaces.
    fn pids(&self) -> String {
        let Some(holder) = self.culprit.filter(|_| self.names == Names::Incident) else {
            return String::new();
        };
        let pids = other_pids(holder.pid, holder.local_pid, None);
        pids.fold(String::new(), |all, pid| all + ", " + &pid)
    }

    fn enough(&self) -> String {
        match (Wait::of(self.incident), self.names) {
            (Wait::Over(ns), Names::Incident) if ns > 0 => {
                format!(" (here {} would have been enough)", span(ns))
            }
            (Wait::Over(_), Names::Incident) => {
                " (here one retry would have been enough)".to_owned()
            }
            _ => String::new(),
        }
    }

    fn held(&self) -> String {
        match (Wait::of(self.incident), self.names) {
            (Wait::Over(ns), Names::Incident) => format!(" ({})", span(ns)),
            _ => String::new(),
        }
    }

    fn device(&self) -> String {
        let device = self.incident.unheld.first().and_then(|unheld| unheld.device.clone());
        device.unwrap_or_else(|| "NAME".to_owned())
    }

    fn mount(&self) -> String {
        let mount = self.incident.unheld.first().and_then(|unheld| unheld.mount.as_deref());
        mount.map(|mount| format!(", mounted at {mount}")).unwrap_or_default()
    }

    /// Where in its code the program opens the file and forks, once; nothing for a group, whose incidents can have
    /// different places.
    fn places(&self) -> String {
        let culprit = self.culprit.filter(|_| self.names == Names::Incident);
        let Some(holder) = culprit.filter(|_| !self.is_located.replace(true)) else {
            return String::new();
        };
        let show = |raw: &str| escape::short(raw, PLACE);
        let opened = holder.opened.as_ref().and_then(|opened| opened.stack.as_deref());
        let forked = holder.forked.as_ref().and_then(|forked| forked.stack.as_deref());
        let opened = frames::place(opened, &show).map(|at| format!("the file is opened at {at}"));
        let forked = frames::place(forked, &show).map(|at| format!("the fork is at {at}"));
        match [opened, forked].into_iter().flatten().collect::<Vec<_>>().as_slice() {
            [] => String::new(),
            known => format!(" ({})", known.join("; ")),
        }
    }

    /// The path of the swap file, if a shell needs no quotes for it.
    fn swap(&self) -> String {
        let path = self.incident.file.path.as_deref().filter(|_| self.names == Names::Incident);
        let is_plain = |path: &&str| {
            path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+@".contains(&byte))
        };
        path.filter(is_plain).unwrap_or("FILE").to_owned()
    }
}

/// Whether the exec named an open fd: `/proc/self/fd/5`, `/dev/fd/5`, an empty path of execveat, a
/// memfd.
pub(super) fn is_through_fd(incident: &Incident) -> bool {
    let path = incident.path.as_deref().unwrap_or_default();
    let named = path.strip_prefix("/proc/").is_some_and(|rest| {
        let mut parts = rest.split('/').rev();
        let number = parts.next().is_some_and(|fd| fd.bytes().all(|byte| byte.is_ascii_digit()));
        number && parts.next() == Some("fd")
    });
    let memfd = |path: &str| path.starts_with("/memfd:") || path.starts_with("memfd:");
    named
        || path.starts_with("/dev/fd/")
        || incident.syscall == "execveat" && incident.path.as_deref() == Some("")
        || incident.file.path.as_deref().is_some_and(memfd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{analysis::verdict::KINDS, event::Released, output::samples};

    /// An incident of that kind, whose holder releases the file `after_ns` after the failure.
    fn incident(kind: VerdictKind, runtime: Runtime, after_ns: Option<i64>) -> Incident {
        let mut incident = match kind {
            Kind::ForkExecRace => samples::race(),
            Kind::LeakedFd => samples::leaked(),
            Kind::PassedFd => samples::passed(),
            Kind::SharedMapping => samples::mapping(),
            Kind::RunningExecutable => samples::write_direction(),
            Kind::StillOpen | Kind::NameCollision => samples::still_open(),
            Kind::SwapFile
            | Kind::BinfmtMisc
            | Kind::RefusedByFilesystem
            | Kind::LoopDevice
            | Kind::Unexplained
            | Kind::Other(_) => samples::unexplained(),
        };
        for holder in &mut incident.holders {
            if let Some(opened) = &mut holder.opened {
                opened.runtime = Some(runtime);
            }
            holder.released = after_ns.map(|after_ns| Released {
                after_ns,
                ..samples::race().holders[0].released.clone().unwrap()
            });
        }
        let exe = match runtime {
            Go | Rust | Native | Runtime::Other(_) => "/usr/bin/tool",
            Jvm => "/usr/bin/java",
            Node => "/usr/bin/node",
            Python => "/usr/bin/python3",
            Shell => "/bin/sh",
        };
        incident.victim.exe = Some(exe.to_owned());
        incident
    }

    /// The first advice has one of these words.
    fn remedy(kind: VerdictKind, runtime: Runtime) -> &'static [&'static str] {
        match (kind, runtime) {
            (Kind::ForkExecRace, Go) => &["syscall.ForkLock.RLock()"],
            (Kind::ForkExecRace, Jvm) => &["retry", "in a child process"],
            (Kind::ForkExecRace, Node) => &["'close' event"],
            (Kind::ForkExecRace, Python) => &["in a child"],
            (Kind::ForkExecRace, Rust) => &["std::io::pipe"],
            (Kind::ForkExecRace | Kind::LeakedFd | Kind::StillOpen, Shell) => &[">&-"],
            (Kind::ForkExecRace, Native | Runtime::Other(_)) => &["child process"],
            (Kind::StillOpen, Go) => &["Close()"],
            (Kind::StillOpen, Jvm) => &["try-with-resources"],
            (Kind::StillOpen, Node) => &["'close' event, not on 'finish'"],
            (Kind::StillOpen, Python) => &["`with`"],
            (Kind::StillOpen, Rust) => &["drop the File"],
            (Kind::LeakedFd, Go) => &["os.OpenFile"],
            (Kind::LeakedFd, Jvm) => &["ProcessBuilder"],
            (Kind::LeakedFd, Node) => &["`stdio`"],
            (Kind::LeakedFd, Python) => &["non-inheritable"],
            (Kind::LeakedFd, Rust) => &["std::fs::File"],
            (Kind::LeakedFd, Native | Runtime::Other(_)) => &["O_CLOEXEC"],
            (Kind::PassedFd | Kind::StillOpen, _) => &["close"],
            (Kind::SharedMapping, Jvm) => &["Arena"],
            (Kind::SharedMapping, Python) => &["mmap object"],
            (Kind::SharedMapping, Rust) => &["Mmap"],
            (Kind::SharedMapping, _) => &["unmap", "end the command"],
            (Kind::RunningExecutable, _) => &["rename", "os.replace", "mv new", "Files.move"],
            (Kind::NameCollision, _) => &["make the name unique"],
            (Kind::SwapFile, _) => &["swapoff"],
            (Kind::BinfmtMisc, _) => &["remove the entry"],
            (Kind::RefusedByFilesystem, _) => &["the side that serves"],
            (Kind::LoopDevice, _) => &["losetup -d"],
            (Kind::Unexplained | Kind::Other(_), _) => &["`lost` lines"],
        }
    }

    #[test]
    fn every_verdict_has_advice_for_every_runtime() {
        for kind in KINDS {
            for runtime in ALL.iter().copied() {
                for after_ns in [Some(0), Some(180_000), Some(2_500_000_000), None] {
                    let incident = incident(kind, runtime, after_ns);
                    let advice = of(kind, &incident, incident.holders.first(), Names::Incident);
                    let first = &advice[0];
                    let fits = remedy(kind, runtime).iter().any(|word| first.contains(word));
                    assert!(fits, "{kind:?} {runtime:?} {after_ns:?}: {first}");
                    assert!(!first.starts_with("does not help"), "{kind:?} {runtime:?}");
                    assert!(advice.iter().all(|text| !text.contains('{')), "{advice:#?}");
                    let again: std::collections::HashSet<_> = advice.iter().collect();
                    assert_eq!(again.len(), advice.len(), "{advice:#?}");
                }
            }
        }
    }

    /// A retry is advised only where it would have helped.
    #[test]
    fn no_advice_is_refuted_by_the_incident() {
        for kind in KINDS {
            for runtime in ALL.iter().copied() {
                for (after_ns, short) in
                    [(Some(180_000), true), (Some(2_500_000_000), false), (None, false)]
                {
                    let incident = incident(kind, runtime, after_ns);
                    if incident.holders.is_empty() {
                        continue;
                    }
                    let advice = of(kind, &incident, incident.holders.first(), Names::Incident);
                    let (vain, help): (Vec<&String>, Vec<_>) =
                        advice.iter().partition(|text| text.starts_with("does not help"));
                    let retry = |text: &&String| text.contains("retry");
                    assert_eq!(help.into_iter().any(|it| retry(&it)), short, "{advice:#?}");
                    assert_eq!(vain.into_iter().any(|it| retry(&it)), !short, "{advice:#?}");
                    // An fd that is already close-on-exec gets no advice to set the flag.
                    let cloexec = incident.holders[0].fds.iter().all(|fd| fd.cloexec == Some(true));
                    let add = advice.iter().any(|it| it.contains("with O_CLOEXEC, and set it"));
                    assert!(!(cloexec && add && kind == Kind::ForkExecRace), "{advice:#?}");
                }
            }
        }
    }

    #[test]
    fn only_a_process_that_still_holds_the_file_is_to_be_ended() {
        for (after_ns, held) in [(Some(180_000), false), (Some(2_500_000_000), false), (None, true)]
        {
            let incident = incident(Kind::LeakedFd, Native, after_ns);
            let advice = of(Kind::LeakedFd, &incident, incident.holders.first(), Names::Incident);
            assert_eq!(advice.iter().any(|it| it.starts_with("to free")), held, "{advice:#?}");
        }
    }

    /// No O_CLOEXEC pipe and no flock in Java, Node or a shell; one advice on retries is enough.
    #[test]
    fn advice_can_be_followed_in_its_runtime() {
        for runtime in ALL.iter().copied() {
            let incident = incident(Kind::ForkExecRace, runtime, Some(180_000));
            let advice =
                of(Kind::ForkExecRace, &incident, incident.holders.first(), Names::Incident);
            let pipe = advice.iter().any(|it| it.contains("O_CLOEXEC pipe"));
            assert_eq!(pipe, SYSTEM.contains(&runtime), "{runtime:?}: {advice:#?}");
            let retries = advice.iter().filter(|it| it.contains("retry"));
            assert_eq!(retries.count(), 1, "{runtime:?}: {advice:#?}");
        }
    }

    #[test]
    fn figures_name_the_kernel_they_were_measured_on() {
        for (kind, runtimes, remedies) in TABLE {
            for Remedy(_, text) in *remedies {
                let figure = text.contains(" failures in ") || text.contains(" attempts");
                assert!(!figure || text.contains("on Linux 6.18"), "{kind:?} {runtimes:?}: {text}");
            }
        }
    }

    #[test]
    fn the_advice_of_a_group_has_no_pids() {
        for kind in KINDS {
            let incident = incident(kind, Native, Some(180_000));
            for text in of(kind, &incident, incident.holders.first(), Names::Group) {
                assert!(!text.contains('['), "{text}");
                assert!(!text.contains("thread 4"), "{text}");
            }
        }
    }

    #[test]
    fn an_exec_through_an_own_fd_gets_the_advice_to_reopen_the_file() {
        let mut incident = samples::still_open();
        incident.holders[0].pid = incident.victim.pid;
        incident.holders[0].opened.as_mut().unwrap().pid = incident.victim.pid;
        for (syscall, path, busy, through) in [
            ("execve", Some("/proc/self/fd/3"), "/tmp/x", true),
            ("execve", Some("/proc/4312/fd/3"), "/tmp/x", true),
            ("execve", Some("/proc/4312/task/4312/fd/3"), "/tmp/x", true),
            ("execve", Some("/dev/fd/3"), "/tmp/x", true),
            ("execveat", Some(""), "/tmp/x", true),
            ("execveat", Some("x"), "/tmp/x", false),
            ("execve", None, "/memfd:runc_cloned:/proc/self/exe (deleted)", true),
            ("execve", Some("/proc/self/exe"), "/tmp/x", false),
            ("execve", Some("/tmp/fd/3"), "/tmp/fd/3", false),
        ] {
            incident.syscall = syscall.to_owned();
            incident.path = path.map(str::to_owned);
            incident.file.path = Some(busy.to_owned());
            let advice = of(Kind::StillOpen, &incident, incident.holders.first(), Names::Incident);
            assert_eq!(advice[0].contains("read-only"), through, "{path:?}: {}", advice[0]);
        }
    }

    /// The first advice on a lock or on O_CLOEXEC has them.
    #[test]
    fn advice_quotes_the_places_in_the_code_once_and_for_no_group() {
        let places = " (the file is opened at demo::build::write_script, src/build.rs:42; the fork is at spawn_tests \
                      in libspawn.so.2)";
        for (kind, runtime) in [
            (Kind::ForkExecRace, Go),
            (Kind::ForkExecRace, Node),
            (Kind::ForkExecRace, Python),
            (Kind::ForkExecRace, Rust),
            (Kind::ForkExecRace, Native),
            (Kind::LeakedFd, Go),
            (Kind::LeakedFd, Rust),
            (Kind::LeakedFd, Native),
        ] {
            let mut incident = samples::with_stacks();
            incident.holders[0].opened.as_mut().unwrap().runtime = Some(runtime);
            let quoted = |incident: &Incident, names| {
                let advice = of(kind, incident, incident.holders.first(), names);
                advice.into_iter().filter(|text| text.contains(" is opened at ")).collect()
            };
            let advice: Vec<String> = quoted(&incident, Names::Incident);
            assert_eq!(advice.len(), 1, "{kind:?} {runtime:?}: {advice:?}");
            assert!(advice[0].contains(places), "{}", advice[0]);
            assert_eq!(quoted(&incident, Names::Group), Vec::<String>::new());
            incident.holders[0].opened.as_mut().unwrap().stack = None;
            let all = of(kind, &incident, incident.holders.first(), Names::Incident).join("\n");
            assert!(all.contains(" (the fork is at spawn_tests in libspawn.so.2)"), "{all}");
        }
    }

    #[test]
    fn names_in_the_places_are_short_and_hide_no_remedy() {
        let mut incident = samples::with_stacks();
        let opened = incident.holders[0].opened.as_mut().unwrap();
        let frame = &mut opened.stack.as_mut().unwrap()[4];
        frame.function = Some("retry\x1b\n{opener}".repeat(70_000));
        let advice = of_near_miss(&incident, incident.holders.first());
        let quoted = advice.iter().find(|text| text.contains(" is opened at ")).unwrap();
        assert!(quoted.len() < 1_000 && samples::harmless(quoted), "{quoted}");
        assert!(quoted.contains("retry\\x1b\\n{opener}") && !quoted.contains('\n'), "{quoted}");
    }

    #[test]
    fn the_runtime_follows_from_the_executable_if_the_line_does_not_have_it() {
        let mut incident = samples::race();
        assert_eq!(runtime(&incident, incident.holders.first()), None);
        incident.holders[0].ancestors[0].exe = Some("/usr/bin/python3.11".to_owned());
        assert_eq!(runtime(&incident, incident.holders.first()), Some(Python));
        incident.holders[0].opened.as_mut().unwrap().runtime = Some(Go);
        assert_eq!(runtime(&incident, incident.holders.first()), Some(Go));
    }

    #[test]
    fn a_victim_that_holds_the_file_itself_gets_no_advice_to_retry() {
        let mut incident = samples::race();
        incident.holders[0].pid = incident.victim.pid;
        let advice = of(Kind::ForkExecRace, &incident, incident.holders.first(), Names::Incident);
        assert!(advice[0].starts_with("close the inherited fd in demo[4312]"), "{}", advice[0]);
        assert!(!advice.iter().any(|it| it.starts_with("or retry")), "{advice:#?}");
    }
}
