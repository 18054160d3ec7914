//! Mounts of a test's own.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs;
use std::path::{Path, PathBuf};

/// Where a file system is mounted; unmounted at the end.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    /// Mounts a file system of a type, with its own options, in a new directory `name` of `dir`.
    pub(crate) fn new(dir: &Path, name: &str, kind: &str, options: Option<&str>) -> Self {
        let place = dir.join(name);
        fs::create_dir(&place).unwrap();
        mount(Some("none"), &place, Some(kind), MsFlags::empty(), options).unwrap();
        Self(place)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}
