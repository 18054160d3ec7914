//! The opener still has the file open, and the exec calls the file by another name.

use super::child::{Program, close, fork, wait_busy};
use super::report::Scene;
use super::stage;
use super::still_open;
use anyhow::Result;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use std::ffi::c_char;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink as make_symlink};
use std::path::{Path, PathBuf};
use std::ptr;
use tempfile::TempDir;

struct Busy {
    dir: TempDir,
    path: PathBuf,
    file: File,
}

impl Busy {
    fn new() -> Result<Self> {
        let dir = stage::directory(Path::new(stage::PLACE))?;
        let path = dir.path().join("busy");
        let file = stage::script(&path)?;
        Ok(Self { dir, path, file })
    }

    /// The file itself without access to it, for an exec by fd.
    fn reference(&self) -> Result<File> {
        Ok(OpenOptions::new().read(true).custom_flags(OFlag::O_PATH.bits()).open(&self.path)?)
    }

    /// Lets a child run `exec`, which should fail and return the errno.
    fn scene(self, name: &str, path: &Path, exec: impl FnOnce() -> i32) -> Result<Scene> {
        let fd = self.file.as_raw_fd();
        let victim = fork(|| {
            close(fd);
            exec()
        })?;
        wait_busy(victim)?;
        still_open::scene(name, path, &self.path, self.file, victim)
    }
}

pub(super) fn symlink() -> Result<Scene> {
    let busy = Busy::new()?;
    let link = busy.dir.path().join("link");
    make_symlink("busy", &link)?;
    let program = Program::new(&link)?;
    busy.scene("by-symlink", &link, || program.exec())
}

pub(super) fn relative_path() -> Result<Scene> {
    let busy = Busy::new()?;
    let dir = busy.dir.path().to_owned();
    let path = Path::new("./busy");
    let program = Program::new(path)?;
    busy.scene("by-relative-path", path, || match nix::unistd::chdir(&dir) {
        Ok(()) => program.exec(),
        Err(errno) => errno as i32,
    })
}

pub(super) fn execveat_empty_path() -> Result<Scene> {
    let busy = Busy::new()?;
    let reference = busy.reference()?;
    let scene = busy.scene("execveat-empty-path", Path::new(""), || {
        let argv = [c"busy".as_ptr(), ptr::null()];
        let envp: [*const c_char; 1] = [ptr::null()];
        // SAFETY: execveat(2): C strings and lists of them that end with a null pointer.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                reference.as_raw_fd(),
                c"".as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Errno::last_raw()
    })?;
    Ok(Scene { syscall: "execveat".into(), ..scene })
}

pub(super) fn proc_self_fd() -> Result<Scene> {
    let busy = Busy::new()?;
    let reference = busy.reference()?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", reference.as_raw_fd()));
    let program = Program::new(&path)?;
    busy.scene("proc-self-fd", &path, || program.exec())
}
