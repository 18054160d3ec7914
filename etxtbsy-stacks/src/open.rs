//! Opens the files that a process has mapped, and its perf map: these only, whatever it has put in their places.

use std::{
    fs::{File, Metadata},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
};

use procfs::process::Process;
use rustix::fs::{Mode, OFlags, ResolveFlags, major, minor, open, openat2};

use crate::mappings::Mapping;

/// The most bytes that a perf map has.
pub(crate) const PERF_MAP_BYTES: u64 = 32 << 20;

/// A file that does not change unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            size: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }
}

/// Opens the file of a mapping.
///
/// map_files is the mapped file itself, also if it is deleted or on a file system that shows other inodes than maps
/// (btrfs, overlayfs), but takes CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE. The path can lead to another file meanwhile, so
/// device and inode have to agree.
pub(crate) fn mapped(pid: u32, mapping: &Mapping) -> io::Result<(File, Identity)> {
    let link = format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end);
    if let Ok(place) = open(&link, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) {
        return regular(place, |_| true);
    }
    let is_mapped = |file: &Metadata| {
        let device = (major(file.dev()), minor(file.dev()));
        device == mapping.device && file.ino() == mapping.inode
    };
    regular(in_root(pid, &mapping.path, ResolveFlags::empty())?, is_mapped)
}

/// Opens the perf map of a process, if it belongs to the process's user.
pub(crate) fn perf_map(pid: u32) -> io::Result<File> {
    let process = Process::new(pid.cast_signed()).map_err(io::Error::other)?;
    let status = process.status().map_err(io::Error::other)?;
    let inner = status.nspid.and_then(|pids| pids.last().copied()).unwrap_or(status.pid);
    let path = format!("/tmp/perf-{inner}.map");
    let place = in_root(pid, path.as_bytes(), ResolveFlags::NO_SYMLINKS)?;
    let file = regular(place, |file| file.uid() == status.euid && file.size() <= PERF_MAP_BYTES)?;
    Ok(file.0)
}

/// A path as the process sees it. Symbolic links lead nowhere else, because `/proc/PID/root` is the root for them.
fn in_root(pid: u32, path: &[u8], flags: ResolveFlags) -> io::Result<OwnedFd> {
    let root = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(format!("/proc/{pid}/root"), root, Mode::empty())?;
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let flags = flags | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags)?)
}

/// Opens the regular file at a place for reading. A FIFO or a device is not opened at all: opening has effects there.
fn regular(place: OwnedFd, is_wanted: impl Fn(&Metadata) -> bool) -> io::Result<(File, Identity)> {
    let place = File::from(place);
    let found = place.metadata()?;
    if !found.is_file() || !is_wanted(&found) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let path = format!("/proc/self/fd/{}", place.as_fd().as_raw_fd());
    let file = File::from(open(path, flags, Mode::empty())?);
    let identity = Identity::of(&file.metadata()?);
    Ok((file, identity))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;
    use crate::mappings;

    fn place(path: &Path) -> OwnedFd {
        open(path, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap()
    }

    #[test]
    fn only_regular_files_are_opened() {
        let directory = tempfile::tempdir().unwrap();
        let (fifo, file) = (directory.path().join("fifo"), directory.path().join("file"));
        mkfifo(&fifo, Mode::S_IRUSR).unwrap();
        fs::write(&file, "x").unwrap();
        assert!(regular(place(&fifo), |_| true).is_err());
        assert!(regular(place(directory.path()), |_| true).is_err());
        assert!(regular(place(&file), |_| false).is_err());
        let identity = regular(place(&file), |_| true).unwrap().1;
        fs::write(&file, "xx").unwrap();
        assert_ne!(regular(place(&file), |_| true).unwrap().1, identity);
    }

    #[test]
    fn without_privileges_a_mapped_file_is_found_by_its_path() {
        test_support::as_ordinary_user!();
        let pid = std::process::id();
        let mappings = mappings::read(pid).unwrap();
        let libc =
            |mapping: &&Mapping| mapping.is_executable && mapping.path.ends_with(b"/libc.so.6");
        let mut mapping = mappings.iter().find(libc).unwrap().clone();
        assert!(mapped(pid, &mapping).is_ok());
        // map_files has no such range.
        mapping.end += 1;
        assert!(mapped(pid, &mapping).is_ok());
        mapping.inode += 1;
        assert!(mapped(pid, &mapping).is_err());
    }

    #[test]
    fn a_perf_map_is_the_users_own_regular_file() {
        let pid = std::process::id();
        let path = format!("/tmp/perf-{pid}.map");
        assert!(perf_map(pid).is_err());
        std::os::unix::fs::symlink("/proc/self/status", &path).unwrap();
        assert!(perf_map(pid).is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(perf_map(pid).is_ok());
        fs::remove_file(&path).unwrap();
    }
}
