//! Cgroups of the v2 hierarchy, by the numbers that the kernel has for them: so is that of a process known which has
//! ended since.

use std::{
    cell::RefCell,
    collections::HashMap,
    fs::{self, File},
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
};

use procfs::process::Process;

/// How many cgroups are remembered.
const KNOWN: usize = 4096;
/// `FILEID_KERNFS`, include/linux/exportfs.h (5.5 on).
const KERNFS: libc::c_int = 0xfe;

/// A `struct file_handle` of kernfs: the number of a cgroup.
#[repr(C)]
struct Handle {
    bytes: libc::c_uint,
    kind: libc::c_int,
    id: u64,
}

/// The hierarchy, where it is mounted.
#[derive(Debug, Default)]
pub struct Cgroups {
    mount: Option<(File, PathBuf)>,
    known: RefCell<HashMap<u64, String>>,
}

impl Cgroups {
    /// Finds the mount of the hierarchy. Without one, no cgroup is known.
    #[must_use]
    pub fn new() -> Self {
        Self { mount: mounted(), known: RefCell::default() }
    }

    /// The path of a cgroup below the mount, as /proc/PID/cgroup has it. `None` for the root, and if there is no such
    /// cgroup (any more), or it is not below the mount, or we may not ask (open_by_handle_at(2): without
    /// CAP_DAC_READ_SEARCH).
    pub fn path(&self, id: u64) -> Option<String> {
        if let Some(path) = self.known.borrow().get(&id) {
            return Some(path.clone());
        }
        let path = self.find(id)?;
        let mut known = self.known.borrow_mut();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(id, path.clone());
        Some(path)
    }

    fn find(&self, id: u64) -> Option<String> {
        let (mount, at) = self.mount.as_ref()?;
        let bytes = size_of::<u64>() as libc::c_uint;
        let mut handle = Handle { bytes, kind: KERNFS, id };
        let flags = libc::O_PATH | libc::O_CLOEXEC;
        // SAFETY: a handle with as many bytes as it says, which the kernel only reads.
        let fd =
            unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
        if fd < 0 {
            return None;
        }
        // SAFETY: the kernel has just given us this fd.
        let cgroup = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = fs::read_link(format!("/proc/self/fd/{}", cgroup.as_raw_fd())).ok()?;
        let below = path.strip_prefix(at).ok()?.as_os_str();
        // The kernel adds this to the path of what has been removed.
        let is_there = !below.is_empty() && !below.as_bytes().ends_with(b" (deleted)");
        is_there.then(|| format!("/{}", below.to_string_lossy()))
    }
}

fn mounted() -> Option<(File, PathBuf)> {
    let mounts = Process::myself().and_then(|own| own.mountinfo()).ok()?;
    let mut all = mounts.0.into_iter().filter(|mount| mount.fs_type == "cgroup2");
    all.find_map(|mount| Some((File::open(&mount.mount_point).ok()?, mount.mount_point)))
}
