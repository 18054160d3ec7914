//! A child of a process with many open fds, from its start to its end.

use std::{ffi::CStr, fs::File, os::fd::AsRawFd as _, path::Path, ptr};

use anyhow::{Result, ensure};
use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::resource::{Resource, getrlimit, setrlimit},
};

use super::{
    process::{self, exec, exit, wait},
    scratch::Scratch,
    timing::{Calls, Prepared},
};

const PROGRAM: &CStr = c"/bin/true";
/// How many fds this process may have.
const LIMIT: u64 = 2048;

#[derive(Clone, Copy)]
pub(super) struct Child {
    pub(super) way: Way,
    pub(super) fds: Fds,
}

/// How the child is started, and what it does.
#[derive(Clone, Copy)]
pub(super) enum Way {
    ForkExec,
    ForkExit,
    PosixSpawn,
}

/// The open fds of the process that starts the child.
#[derive(Clone, Copy)]
pub(super) enum Fds {
    /// So many in all, `writers` of them for writing. An exec closes them.
    ClosedByExec { all: i32, writers: usize },
    /// So many for writing, in addition to the usual ones. The child has them until its end.
    Inherited { writers: usize, of: Files },
}

/// What the inherited write fds refer to. Each fd was opened by its own call.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Files {
    /// One file: a log that everything writes.
    One,
    /// As many files as fds.
    Many,
}

impl Child {
    pub(super) fn prepare(self, dir: &Path) -> Result<Prepared> {
        let open = self.fds.open(dir)?;
        let start = match self.way {
            Way::ForkExec => fork_exec,
            Way::ForkExit => fork_exit,
            Way::PosixSpawn => posix_spawn,
        };
        let once = move || {
            // The closure owns the files, which stay open with it.
            let _ = &open;
            wait(start()?)
        };
        Ok(Prepared { once: Box::new(once), calls: Calls::InBatches(1) })
    }
}

impl Fds {
    fn open(self, dir: &Path) -> Result<Vec<File>> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // Some shells set a lower limit.
        setrlimit(Resource::RLIMIT_NOFILE, soft.max(LIMIT).min(hard), hard)?;
        match self {
            Self::ClosedByExec { all, writers } => open_until(all, writers, dir),
            Self::Inherited { writers, of } => open_inheritable(writers, of, dir),
        }
    }
}

/// Opens files until this process has `all` fds, `writers` of them for writing.
fn open_until(all: i32, writers: usize, dir: &Path) -> Result<Vec<File>> {
    let file = Scratch::empty(dir)?;
    let mut open = (0..writers).map(|_| file.open()).collect::<Result<Vec<_>>>()?;
    loop {
        let next = File::open("/dev/null")?;
        if next.as_raw_fd() >= all {
            return Ok(open);
        }
        open.push(next);
    }
}

/// Opens files for writing whose fds an exec keeps. The files are removed at once, so that none is left if
/// this process is killed.
fn open_inheritable(writers: usize, of: Files, dir: &Path) -> Result<Vec<File>> {
    let mut file = Scratch::empty(dir)?;
    let mut open = Vec::new();
    while open.len() < writers {
        if of == Files::Many {
            file = Scratch::empty(dir)?;
        }
        let next = file.open()?;
        fcntl(&next, FcntlArg::F_SETFD(FdFlag::empty()))?;
        open.push(next);
    }
    Ok(open)
}

fn fork_exec() -> Result<i32> {
    // SAFETY: the child only makes system calls.
    unsafe {
        process::fork(|| {
            exec(PROGRAM);
        })
    }
}

fn fork_exit() -> Result<i32> {
    // SAFETY: the child only makes a system call.
    unsafe { process::fork(|| exit(0)) }
}

fn posix_spawn() -> Result<i32> {
    let mut child = 0;
    let words = [PROGRAM.as_ptr().cast_mut(), ptr::null_mut()];
    // SAFETY: a C string and null-terminated arrays of them, which outlive the call; the second is empty. The
    // null pointers stand for no actions and no attributes.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut child,
            PROGRAM.as_ptr(),
            ptr::null(),
            ptr::null(),
            words.as_ptr(),
            &raw const words[1],
        )
    };
    ensure!(error == 0, "posix_spawn failed: {}", Errno::from_raw(error));
    Ok(child)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn inherited_fds_refer_to_one_file_or_to_many_and_leave_none() {
        let dir = tempfile::tempdir().unwrap();
        for (of, files) in [(Files::One, 1), (Files::Many, 3)] {
            let open = open_inheritable(3, of, dir.path()).unwrap();
            let inodes = open.iter().map(|file| file.metadata().unwrap().ino());
            assert_eq!(inodes.collect::<BTreeSet<_>>().len(), files);
            let flags = open.iter().map(|file| fcntl(file, FcntlArg::F_GETFD).unwrap());
            assert_eq!(flags.collect::<Vec<_>>(), [0; 3]);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
