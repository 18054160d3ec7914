//! The other direction: which file a call was refused, and which processes run it.
//!
//! The kernel has forgotten the file by the time the call returns, so it is looked up again by
//! the path, as the victim sees it, and compared by device and inode number with what each
//! process runs.

use std::{
    fs::{self, File, OpenOptions},
    os::{
        fd::AsRawFd as _,
        unix::{
            ffi::OsStringExt as _,
            fs::{MetadataExt as _, OpenOptionsExt as _},
        },
    },
    path::{Path, PathBuf},
};

use etxtbsy_trace_common::TextOf;

use crate::{kernel::records::path_of, ledger::Case};

/// A file that refused to be written.
#[derive(Debug)]
pub struct Refused {
    /// The file, opened with O_PATH: with nothing but its identity.
    pub file: File,
    /// Its path.
    pub path: PathBuf,
    /// Its device, as the kernel has it: major << 20 | minor.
    pub dev: u32,
    /// Its inode number.
    pub ino: u64,
}

/// Looks up the file that the call of a case was about; `None` if that cannot be told any more.
#[must_use]
pub fn refused(case: &Case) -> Option<Refused> {
    let bytes = |of| case.text(of).map(<[u8]>::to_vec);
    let path = as_path(bytes(TextOf::Path)?);
    let victim = PathBuf::from(format!("/proc/{}", case.failure.tgid));
    let from = match bytes(TextOf::Directory) {
        Some(names) => as_path(path_of(&names)),
        None => as_path(path_of(&bytes(TextOf::VictimCwd)?)),
    };
    // Below the victim's own root, while it lives; else by the same path from here, if that is
    // where a victim's would lead that is not confined.
    let whole = from.join(&path);
    let seen = victim.join("root").join(whole.strip_prefix("/").ok()?);
    let file = [seen, whole].into_iter().find_map(|path| {
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path).ok()
    })?;
    let facts = file.metadata().ok()?;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let dev = (libc::major(facts.dev()) << 20) | libc::minor(facts.dev());
    Some(Refused { file, path, dev, ino: facts.ino() })
}

fn as_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The processes that run a file, by pid.
#[must_use]
pub fn runners(refused: &Refused) -> Vec<u32> {
    let Ok(wanted) = refused.file.metadata() else { return Vec::new() };
    let wanted = (wanted.dev(), wanted.ino());
    let runs = |task: &Path| {
        fs::metadata(task.join("exe")).is_ok_and(|exe| (exe.dev(), exe.ino()) == wanted)
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> = processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &u32| runs(Path::new(&format!("/proc/{pid}"))))
        .collect();
    pids.sort_unstable();
    pids
}
