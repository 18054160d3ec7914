//! The other direction: which file a call was refused, and which processes run it.
//!
//! The kernel has forgotten the file by the time the call returns. It tells which processes run
//! one of that name; here the file is looked up again by its path, as the victim sees it, and
//! compared by device and inode number.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::{MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Component, Path, PathBuf},
};

use etxtbsy_trace_common::{Runner, TextOf};

use crate::{kernel::records::path_of, ledger::Case, pids::Pids};

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
    pub file: Option<File>,
    /// The processes that run it, by their pids in the machine's first namespace, and what the kernel told of them.
    pub runners: BTreeMap<u32, Option<Runner>>,
}

/// Finds the file that the call of a case was about, and who runs it; `None` if that cannot be
/// told any more.
#[must_use]
pub fn refused(case: &Case, pids: &Pids) -> Option<Refused> {
    let whole = whole_path(case)?;
    let exe = |runner: &Runner| case.exes.get(&runner.tgid).map(|names| path_of(names));
    let mut refused = if let Some(found) = look_up(case, &whole, pids) {
        found
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
    if let Some(facts) = refused.file.as_ref().and_then(|file| file.metadata().ok()) {
        let found = running(facts.dev(), facts.ino());
        for pid in found.into_iter().filter_map(|local| pids.machine(local)) {
            refused.runners.entry(pid).or_default();
        }
    }
    Some(refused)
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

/// Opens the file as the victim sees it, while that lives; else from here, if the victim was not
/// confined to a root of its own.
fn look_up(case: &Case, whole: &Path, pids: &Pids) -> Option<Refused> {
    let below_root = whole.strip_prefix("/").ok()?;
    let victim = pids.local(case.failure.tgid);
    let seen = victim.map(|pid| PathBuf::from(format!("/proc/{pid}/root")).join(below_root));
    let file = seen.as_deref().into_iter().chain([whole]).find_map(|path| {
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path).ok()
    })?;
    let facts = file.metadata().ok()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    Some(Refused {
        path: path.into_os_string().into_vec(),
        dev: (libc::major(facts.dev()) << 20) | libc::minor(facts.dev()),
        ino: facts.ino(),
        file: Some(file),
        runners: BTreeMap::new(),
    })
}

fn as_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The processes that run a file, by their pids here.
fn running(dev: u64, ino: u64) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| {
            fs::metadata(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| (exe.dev(), exe.ino()) == (dev, ino))
        })
        .collect()
}
