//! What /proc says of a process while it lives.

use std::{
    collections::HashMap,
    os::{
        fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::ffi::OsStringExt as _,
    },
    path::PathBuf,
    rc::Rc,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    time::ClockId,
};
use procfs::{
    ProcessCGroup,
    process::{Process, Stat},
};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::{cgroups::Cgroups, clock::now_ns, context, proc_file::read_begin};
use crate::{
    event::{Context, Runtime, bytes::TEXT_BYTES},
    host::{pids::Pids, runtime::Runtimes},
};

/// What /proc said of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its pid here, by which all this was read.
    pub local_pid: u32,
    /// Its parent; 0 if that cannot be seen from here.
    pub ppid: u32,
    /// Its name.
    pub comm: Vec<u8>,
    /// The program it runs.
    pub exe: Option<Vec<u8>>,
    /// Its arguments.
    pub argv: Option<Vec<Vec<u8>>>,
    /// Its cgroup, as a path below the root of its hierarchy, or of our cgroup namespace.
    pub cgroup: Option<String>,
    /// What it says itself of the work it belongs to.
    pub context: Context,
    /// What its program is written in.
    pub runtime: Option<Runtime>,
    /// When all this had been read: what ended before may be another process with the same pid.
    pub seen_ns: u64,
    /// When it last executed a program (CLOCK_MONOTONIC): the program, its arguments and its runtime are of
    /// no earlier time. 0 if the tracer has seen it execute none.
    pub exec_ns: u64,
}

impl Facts {
    /// Whether it ran that program at `time_ns` already.
    #[must_use]
    pub fn is_of(&self, time_ns: u64) -> bool {
        self.exec_ns <= time_ns
    }
}

/// Looks at processes, making sure that a pid is still the one that was meant.
#[derive(Debug)]
pub struct Observer {
    /// Nanoseconds that CLOCK_BOOTTIME has been ahead of CLOCK_MONOTONIC: more after each suspension
    /// of the machine. The latest comes last.
    suspended_ns: Vec<u64>,
    ticks_per_second: u64,
    runtimes: Runtimes,
    cgroups: Cgroups,
}

impl Observer {
    /// Reads the clocks.
    #[must_use]
    pub fn new() -> Self {
        Self {
            suspended_ns: vec![suspended_ns()],
            ticks_per_second: procfs::ticks_per_second(),
            runtimes: Runtimes::default(),
            cgroups: Cgroups::new(),
        }
    }

    /// Looks at a process that started at `start_ns` (CLOCK_MONOTONIC; 0 if that is not known),
    /// by the pid it has here. `None` if it has ended.
    pub fn look(&mut self, pid: u32, start_ns: u64, pids: &Pids) -> Option<Facts> {
        let suspended_ns = suspended_ns();
        // The clocks are not read at one moment.
        if self.suspended_ns.last().is_none_or(|last| last.abs_diff(suspended_ns) > self.tick()) {
            self.suspended_ns.push(suspended_ns);
        }
        let process = Process::new(pid.cast_signed()).ok()?;
        let stat = process.stat().ok()?;
        if start_ns != 0 && !self.is_start(&stat, start_ns) {
            return None;
        }
        let cgroup = process.cgroups().ok().and_then(|groups| cgroup(groups.0));
        Some(Facts {
            local_pid: pid,
            ppid: pids.machine(stat.ppid.cast_unsigned()).unwrap_or(0),
            comm: std::fs::read(format!("/proc/{pid}/comm"))
                .map(|comm| comm.strip_suffix(b"\n").unwrap_or(&comm).to_vec())
                .unwrap_or_default(),
            exe: path_behind(&format!("/proc/{pid}/exe")),
            argv: raw_argv(pid),
            context: context::of(pid, cgroup.as_deref()),
            cgroup,
            runtime: self.runtimes.of(pid),
            seen_ns: now_ns(ClockId::CLOCK_MONOTONIC),
            exec_ns: 0,
        })
    }

    /// The path of a cgroup by the kernel's number: [`Cgroups::path`].
    #[must_use]
    pub fn cgroup(&self, id: u64) -> Option<String> {
        self.cgroups.path(id)
    }

    /// What a process was written in that has ended: [`Runtimes::of_executable`].
    #[must_use]
    pub fn runtime_of(&self, file: &std::fs::File, path: &[u8]) -> Option<Runtime> {
        self.runtimes.of_executable(file, path)
    }

    fn is_start(&self, stat: &Stat, start_ns: u64) -> bool {
        let started = stat.starttime.saturating_mul(self.tick());
        // Both are cut off to a tick.
        let is = |suspended_ns: u64| (start_ns + suspended_ns).abs_diff(started) <= 2 * self.tick();
        self.suspended_ns.iter().any(|suspended_ns| is(*suspended_ns))
    }

    /// How long a tick of /proc is, in nanoseconds.
    fn tick(&self) -> u64 {
        1_000_000_000 / self.ticks_per_second.max(1)
    }
}

/// How long the machine has been suspended since it was booted.
fn suspended_ns() -> u64 {
    now_ns(ClockId::CLOCK_BOOTTIME).saturating_sub(now_ns(ClockId::CLOCK_MONOTONIC))
}

/// System calls whose first argument is an fd, and that can take their time.
const FD_CALLS: [libc::c_long; 21] = [
    libc::SYS_copy_file_range,
    libc::SYS_splice,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_ioctl,
    libc::SYS_read,
    libc::SYS_pread64,
    libc::SYS_readv,
    libc::SYS_preadv,
    libc::SYS_preadv2,
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_pwritev2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_sync_file_range,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_sendfile,
];

/// The cgroup that says most: that of the v2 hierarchy, but where all processes are in its root, as
/// with cgroup v1, that of systemd's own hierarchy, or of the first that does better. `None` if it
/// is in the root of all of v1's: every process that is ending is shown there
/// (`proc_cgroup_show`, kernel/cgroup/cgroup.c).
fn cgroup(mut groups: Vec<ProcessCGroup>) -> Option<String> {
    groups.sort_by_key(|group| {
        let systemd = group.controllers.iter().any(|name| name == "name=systemd");
        (group.pathname == "/", group.hierarchy != 0, !systemd)
    });
    let only_v2 = groups.len() == 1;
    let path = groups.into_iter().next()?.pathname;
    (only_v2 || path != "/").then_some(path)
}

/// Whether a process lives, one that has ended and not been waited for not being alive.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat());
    stat.is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X' | 'x'))
}

/// Waits until a process that is not our child has ended; returns at once if there is none.
pub fn await_end(pid: u32) {
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        return;
    }
    // SAFETY: the kernel has just given us this fd.
    let pidfd = unsafe { OwnedFd::from_raw_fd(fd as RawFd) };
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
}

/// Whether the first argument of a system call is an fd.
#[must_use]
pub fn takes_fd(syscall: i32) -> bool {
    FD_CALLS.contains(&syscall.into())
}

/// Whether process `pid` has an io_uring with which the file at `path` is registered
/// (`UserFiles` of its fdinfo, io_uring/fdinfo.c).
#[must_use]
pub fn has_registered(pid: u32, path: &[u8]) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(fds) = std::fs::read_dir(process.join("fd")) else { return false };
    fds.flatten().any(|fd| {
        let is_ring = std::fs::read_link(fd.path())
            .is_ok_and(|target| target.as_os_str() == "anon_inode:[io_uring]");
        is_ring
            && std::fs::read(process.join("fdinfo").join(fd.file_name())).is_ok_and(|info| {
                // `    0: /path`
                info.split(|byte| *byte == b'\n').any(|line| {
                    let line = line.trim_ascii_start();
                    let digits = line.iter().take_while(|byte| byte.is_ascii_digit()).count();
                    digits > 0 && line[digits..].strip_prefix(b": ") == Some(path)
                })
            })
    })
}

/// The path of the file behind a link of /proc, such as `/proc/PID/exe` or `/proc/PID/fd/FD`, by the name
/// that it had if it is gone: the kernel adds a word to that then (`d_path`, fs/d_path.c), which may as
/// well be part of a name. `None` if the link cannot be read.
#[must_use]
pub fn path_behind(link: &str) -> Option<Vec<u8>> {
    let mut path = std::fs::read_link(link).ok()?.into_os_string().into_vec();
    // Without asking the file system, which may never answer.
    let is_gone = statx(CWD, link, AtFlags::STATX_DONT_SYNC, StatxFlags::NLINK)
        .is_ok_and(|stat| stat.stx_nlink == 0);
    if is_gone && path.ends_with(DELETED) {
        path.truncate(path.len() - DELETED.len());
    }
    Some(path)
}

const DELETED: &[u8] = b" (deleted)";

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

/// The arguments as bytes: procfs gives them as UTF-8 only.
fn raw_argv(pid: u32) -> Option<Vec<Vec<u8>>> {
    let mut bytes = read_begin(&format!("/proc/{pid}/cmdline"), TEXT_BYTES + 1)?;
    if bytes.len() > TEXT_BYTES {
        bytes.truncate(TEXT_BYTES);
        bytes.extend_from_slice("…".as_bytes());
    }
    // A zombie has no arguments and no program, which is not the same as an empty list.
    (!bytes.is_empty()).then(|| split_argv(&bytes))
}

/// Arguments that are each ended by NUL.
#[must_use]
pub fn split_argv(bytes: &[u8]) -> Vec<Vec<u8>> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect()
}

/// What was seen of the processes of a failure, by pid, while they lived.
pub type Seen = HashMap<u32, Rc<Facts>>;

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
        process::{Command, Stdio},
    };

    #[test]
    fn a_program_that_is_gone_has_the_name_it_had() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["program", "program (deleted)"] {
            let path = dir.path().join(name);
            std::fs::copy("/bin/cat", &path).unwrap();
            let mut child = Command::new(&path).stdin(Stdio::piped()).spawn().unwrap();
            let exe = || Observer::new().look(child.id(), 0, &Pids::same()).unwrap().exe;
            let named = Some(path.as_os_str().as_bytes().to_vec());
            assert_eq!(exe(), named);
            let file = std::fs::File::open(&path).unwrap();
            let behind = || path_behind(&format!("/proc/self/fd/{}", file.as_raw_fd()));
            assert_eq!(behind(), named);
            std::fs::remove_file(&path).unwrap();
            assert_eq!((exe(), behind()), (named.clone(), named));
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }

    #[test]
    fn this_process_is_seen_only_by_its_own_start() {
        let mut observer = Observer::new();
        let me = std::process::id();
        let facts = observer.look(me, 0, &Pids::same()).expect("this process lives");
        assert_eq!(facts.ppid, std::os::unix::process::parent_id());
        let other = observer.look(me, 1, &Pids::same());
        assert!(other.is_none(), "a process that started at boot is another");
    }

    /// The cgroup that these lines of /proc/PID/cgroup come to.
    fn cgroup_of(lines: &[(u32, &str, &str)]) -> Option<String> {
        let group = |(hierarchy, controller, path): &(u32, &str, &str)| ProcessCGroup {
            hierarchy: *hierarchy,
            controllers: vec![(*controller).to_owned()],
            pathname: (*path).to_owned(),
        };
        cgroup(lines.iter().map(group).collect())
    }

    #[test]
    fn the_cgroup_is_found_with_either_version() {
        let v2 = (0, "", "/ci.slice");
        assert_eq!(cgroup_of(&[v2]).unwrap(), "/ci.slice");
        let systemd = (1, "name=systemd", "/docker/17");
        let v1 = [(5, "pids", "/"), (4, "memory", "/docker"), systemd];
        assert_eq!(cgroup_of(&v1).unwrap(), "/docker/17");
        assert_eq!(cgroup_of(&v1[..2]).unwrap(), "/docker");
        assert_eq!(cgroup_of(&[v1[0], (0, "", "/"), systemd]).unwrap(), "/docker/17");
        assert_eq!(cgroup_of(&[systemd, v2]).unwrap(), "/ci.slice");
        assert_eq!(cgroup_of(&[(0, "", "/")]).unwrap(), "/");
        assert_eq!(cgroup_of(&[v1[0], (0, "", "/")]), None);
        assert_eq!(cgroup_of(&[]), None);
    }

    #[test]
    fn a_process_is_known_by_its_start_before_and_after_a_suspension() {
        const SECOND: u64 = 1_000_000_000;
        let mut observer = Observer::new();
        let me = std::process::id();
        let stat = Process::new(me.cast_signed()).unwrap().stat().unwrap();
        let now = observer.suspended_ns[0];
        let start_ns = stat.starttime * observer.tick() - now;
        // As if the machine had been suspended since this process was started, and again.
        observer.suspended_ns = vec![now, now + 100 * SECOND, now + 200 * SECOND];
        assert!(observer.is_start(&stat, start_ns));
        observer.suspended_ns = vec![now + 100 * SECOND];
        assert!(!observer.is_start(&stat, start_ns), "its start does not fit");
        assert!(observer.look(me, start_ns, &Pids::same()).is_some(), "the clocks are read again");
    }

    #[test]
    fn arguments_keep_their_bytes() {
        assert_eq!(
            split_argv(b"a\0\0b\xff\n\0"),
            [b"a".to_vec(), b"".to_vec(), b"b\xff\n".to_vec()]
        );
    }
}
