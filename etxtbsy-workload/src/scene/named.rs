//! The opener still has the file open; the exec uses another name of the file.

use super::{Busy, Named, Victim};
use crate::child::Program;
use crate::report::Scene;
use anyhow::Result;
use etxtbsy_trace_event::Via;
use nix::errno::Errno;
use std::ffi::{CStr, c_char};
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink as make_symlink;
use std::path::{Path, PathBuf};
use std::{fs::File, ptr};

pub(super) const SCENES: &[Named] = &[
    ("by-symlink", by_symlink),
    ("by-relative-path", by_relative_path),
    ("execveat-empty-path", execveat_empty_path),
    ("proc-self-fd", proc_self_fd),
];

fn by_symlink() -> Result<Scene> {
    let busy = Busy::new()?;
    let link = busy.beside("link");
    make_symlink("busy", &link)?;
    let program = Program::new(&link)?;
    let victim = busy.victim_by("execve", &link, || program.exec())?;
    victim.held_by(busy.open()?, Via::Open)
}

fn by_relative_path() -> Result<Scene> {
    let busy = Busy::new()?;
    let dir = busy.beside("");
    let path = Path::new("./busy");
    let program = Program::new(path)?;
    let victim = busy.victim_by("execve", path, || match nix::unistd::chdir(&dir) {
        Ok(()) => program.exec(),
        Err(errno) => errno,
    })?;
    victim.held_by(busy.open()?, Via::Open)
}

fn execveat_empty_path() -> Result<Scene> {
    let busy = Busy::new()?;
    let reference = busy.reference()?;
    victim_by_fd(&busy, &reference)?.held_by(busy.open()?, Via::Open)
}

/// Forks a process that will exec the file of an fd.
pub(super) fn victim_by_fd<'a>(busy: &'a Busy, fd: &File) -> Result<Victim<'a>> {
    const EMPTY: &CStr = c"";
    busy.victim_by("execveat", Path::new(""), || {
        let argv = [c"busy".as_ptr(), ptr::null()];
        let envp: [*const c_char; 1] = [ptr::null()];
        // SAFETY: execveat(2) takes C strings and null-terminated lists of them, which outlive the call.
        unsafe {
            libc::syscall(
                libc::SYS_execveat,
                fd.as_raw_fd(),
                EMPTY.as_ptr(),
                argv.as_ptr(),
                envp.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        };
        Errno::last()
    })
}

fn proc_self_fd() -> Result<Scene> {
    let busy = Busy::new()?;
    let reference = busy.reference()?;
    let path = PathBuf::from(format!("/proc/self/fd/{}", reference.as_raw_fd()));
    let program = Program::new(&path)?;
    let victim = busy.victim_by("execve", &path, || program.exec())?;
    victim.held_by(busy.open()?, Via::Open)
}
