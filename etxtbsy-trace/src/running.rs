//! The other direction: which file a call was refused, and which processes run it.
//!
//! The kernel has forgotten the file by the time the call returns. It tells which processes run
//! one of that name; here the file is looked up again by its path, as the victim sees it, and
//! compared by device and inode number.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
};

use etxtbsy_trace_common::{Runner, TextOf};

use crate::{
    kernel::records::path_of,
    ledger::Case,
    lookup::{self, FileSystem, Found, Sight},
    pids::Pids,
    process,
};

/// A file that refused to be written.
#[derive(Debug)]
pub struct Refused {
    /// Its path, links resolved if it is still there.
    pub path: Vec<u8>,
    /// Its device, as the kernel has it: major << 20 | minor.
    pub dev: u32,
    /// Its inode number.
    pub ino: u64,
    /// It, opened with O_PATH: with nothing but its identity; `None` if it is gone.
    pub file: Option<OwnedFd>,
    /// The processes that run it, by their pids in the machine's first namespace, and what the kernel told of them.
    pub runners: BTreeMap<u32, Option<Runner>>,
}

/// Finds the file that the call of a case was about, and who runs it; `None` if that cannot be
/// told any more.
#[must_use]
pub fn refused(case: &Case, pids: &Pids) -> Option<Refused> {
    let whole = whole_path(case)?;
    let exe = |runner: &Runner| case.exes.get(&runner.tgid).map(|names| path_of(names));
    let found = look_up(case, &whole, pids);
    let at = found.as_ref().map(|(found, _)| (found.dev, found.ino));
    let mut refused = if let Some((found, path)) = found {
        let (dev, ino) = (found.kernel_dev(), found.ino);
        Refused { path, dev, ino, file: Some(found.file), runners: BTreeMap::new() }
    } else {
        // Gone: the name alone cannot tell, the whole path can.
        let is_it = |runner: &&Runner| exe(runner).as_deref() == Some(whole.as_os_str().as_bytes());
        let Runner { dev, ino, .. } = *case.named.iter().find(is_it)?;
        let path = whole.into_os_string().into_vec();
        Refused { path, dev, ino, file: None, runners: BTreeMap::new() }
    };
    for runner in case.named.iter().filter(|runner| runner.ino == refused.ino) {
        // On some file systems stat(2) gives another device than the kernel has.
        if runner.dev == refused.dev || exe(runner).as_deref() == Some(&refused.path) {
            refused.runners.insert(runner.tgid, Some(*runner));
        }
    }
    // By another name than the path's.
    let found = at.map(running).unwrap_or_default();
    for pid in found.into_iter().filter_map(|local| pids.machine(local)) {
        refused.runners.entry(pid).or_default();
    }
    Some(refused)
}

/// The file that the path of a case leads to now, and its path.
#[must_use]
pub fn find(case: &Case, pids: &Pids) -> Option<(Found, Vec<u8>)> {
    look_up(case, &whole_path(case)?, pids)
}

/// The file system that refused the call of a case, if something else than this kernel serves the one that its
/// path leads to.
#[must_use]
pub fn refusing(case: &Case, pids: &Pids) -> Option<FileSystem> {
    let path = as_path(case.text(TextOf::Path)?.to_vec());
    let is_up = path.components().any(|component| component == Component::ParentDir);
    // Of a link's `..` the name does not tell where it leads, and of execveat not which directory it began at.
    if is_up || i64::from(case.failure.syscall) == libc::SYS_execveat && path.is_relative() {
        return None;
    }
    let whole = whole_path(case)?;
    // The victim may have ended; its parent sees the same, as a rule.
    let seen =
        [case.failure.tgid, case.failure.ppid].map(|pid| pids.local(pid).and_then(Sight::of));
    let sight = seen.into_iter().flatten().next().or_else(Sight::ours)?;
    sight.served(&whole)
}

/// Whether a process that can be seen from here runs a program of a file system.
#[must_use]
pub fn is_any_on(found: &FileSystem) -> bool {
    let device = libc::makedev(found.dev >> 20, found.dev & 0xf_ffff);
    processes().any(|pid| lookup::exe(pid).is_some_and(|(dev, _)| dev == device))
}

/// The path from the root, `.` and `..` taken out by their names.
fn whole_path(case: &Case) -> Option<PathBuf> {
    let bytes = |of| case.text(of).map(<[u8]>::to_vec);
    let names = bytes(TextOf::Directory).or_else(|| bytes(TextOf::VictimCwd))?;
    let whole = as_path(path_of(&names)).join(as_path(bytes(TextOf::Path)?));
    let mut plain = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// Finds the file as the victim sees it, while that lives; else from here, if the victim was not
/// confined to a root of its own. With it, its path.
fn look_up(case: &Case, whole: &Path, pids: &Pids) -> Option<(Found, Vec<u8>)> {
    let seen = || Sight::of(pids.local(case.failure.tgid)?)?.find(whole);
    let found = seen().or_else(|| Sight::ours()?.find(whole))?;
    let path = process::path_behind(&format!("/proc/self/fd/{}", found.file.as_raw_fd()))?;
    Some((found, path))
}

fn as_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The processes that run a file, by their pids here; the file by its device as stat(2) gives it, and its inode number.
fn running(file: (u64, u64)) -> Vec<u32> {
    processes().filter(|pid| lookup::exe(*pid) == Some(file)).collect()
}

/// The processes, by their pids here.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}
