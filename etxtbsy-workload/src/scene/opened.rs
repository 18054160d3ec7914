//! The opener itself still has the file open: by each call that opens, and each that duplicates.

use super::{Busy, Named, Supported, owned};
use crate::report::Scene;
use crate::stage::SCRIPT;
use anyhow::Result;
use etxtbsy_trace_event::Via;
use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, OpenHow, fcntl, openat2 as call_openat2};
use std::ffi::CStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

pub(super) const SCENES: &[Named] = &[
    ("openat2", openat2),
    ("creat", creat),
    ("open-by-handle-at", open_by_handle_at),
    ("dup", || duplicated(|file| nix::unistd::dup(file))),
    ("dup2", || duplicated(|file| over_another(|copy| nix::unistd::dup2(file, copy)))),
    ("dup3", || {
        duplicated(|file| over_another(|copy| nix::unistd::dup3(file, copy, OFlag::O_CLOEXEC)))
    }),
    ("fcntl-dupfd", || duplicated(|file| fcntl(file, FcntlArg::F_DUPFD_CLOEXEC(0)).map(owned))),
];

fn openat2() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let how = OpenHow::new().flags(OFlag::O_RDWR | OFlag::O_CLOEXEC);
    let file = call_openat2(AT_FDCWD, &busy.path, how).supported("openat2")?;
    victim.held_by(file, Via::Open)
}

fn creat() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let mut file = File::from(call_creat(&busy.path).supported("creat")?);
    file.write_all(SCRIPT)?;
    victim.held_by(file, Via::Open)
}

/// By that system call, which the C library's function of the name need not make.
#[cfg(target_arch = "x86_64")]
pub(super) fn call_creat(path: &Path) -> nix::Result<OwnedFd> {
    // SAFETY: a C string and a mode.
    let call = |path: &CStr| unsafe { libc::syscall(libc::SYS_creat, path.as_ptr(), 0o777) };
    Errno::result(path.with_nix_path(call)?).map(|fd| owned(fd as i32))
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn call_creat(_: &Path) -> nix::Result<OwnedFd> {
    Err(Errno::ENOSYS)
}

fn open_by_handle_at() -> Result<Scene> {
    /// struct file_handle with room for MAX_HANDLE_SZ bytes.
    #[repr(C)]
    struct Handle {
        header: libc::file_handle,
        bytes: [u8; 128],
    }

    let busy = Busy::new()?;
    let victim = busy.victim()?;
    // SAFETY: all zeros is a file_handle, an empty one.
    let mut handle: Handle = unsafe { std::mem::zeroed() };
    handle.header.handle_bytes = size_of_val(&handle.bytes) as u32;
    let mut mount_id = 0;
    // SAFETY: a C string, and a handle with as many bytes as it says.
    let name = |path: &CStr| unsafe {
        let handle = (&raw mut handle).cast();
        libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), handle, &raw mut mount_id, 0)
    };
    let named = busy.path.with_nix_path(name).and_then(Errno::result);
    named.supported("name_to_handle_at")?;
    let mount = File::open(busy.beside(""))?;
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: the handle that was filled in above.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    let fd = Errno::result(fd).supported("open_by_handle_at")?;
    victim.held_by(owned(fd), Via::Open)
}

/// By a copy of the fd that was opened, which is closed then.
fn duplicated(copy: impl FnOnce(&File) -> nix::Result<OwnedFd>) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let file = busy.open()?;
    let copy = copy(&file)?;
    drop(file);
    victim.held_by(copy, Via::Dup)
}

/// An fd of something else that `call` puts a copy over.
fn over_another(call: impl FnOnce(&mut OwnedFd) -> nix::Result<()>) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let mut copy = nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty())?;
    call(&mut copy)?;
    Ok(copy)
}
