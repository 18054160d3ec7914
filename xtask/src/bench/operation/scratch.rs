//! Files that only this process uses.

use std::{
    ffi::{CString, OsStr},
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::OpenOptionsExt as _},
    path::Path,
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};

/// The number of files that this process has created.
static CREATED: AtomicU32 = AtomicU32::new(0);

/// A new file, removed when dropped.
pub(super) struct Scratch {
    pub(super) path: CString,
}

impl Scratch {
    /// An empty file: an exec that does not fail with ETXTBSY fails with ENOEXEC.
    pub(super) fn empty(dir: &Path) -> Result<Self> {
        Self::with(dir, "")
    }

    /// An executable file with that text.
    pub(super) fn with(dir: &Path, text: &str) -> Result<Self> {
        let number = CREATED.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("etxtbsy-trace-bench-{}-{number}", process::id()));
        let created = OpenOptions::new().write(true).create_new(true).mode(0o700).open(&path);
        let context = || format!("cannot create {}: choose another --dir", path.display());
        let mut file = created.with_context(context)?;
        let scratch = Self { path: CString::new(path.as_os_str().as_bytes())? };
        file.write_all(text.as_bytes()).with_context(context)?;
        Ok(scratch)
    }

    pub(super) fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.path.to_bytes()))
    }

    /// Opens the file for writing.
    pub(super) fn open(&self) -> Result<File> {
        Ok(OpenOptions::new().write(true).open(self.as_path())?)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may be gone: another process may clean the directory.
        let _ = fs::remove_file(self.as_path());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_distinct_and_removed_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let files = [Scratch::empty(dir.path()).unwrap(), Scratch::empty(dir.path()).unwrap()];
        assert_ne!(files[0].path, files[1].path);
        drop(files);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
