//! The opener still has the file open, through each call that opens or duplicates.

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

/// Makes the system call itself; the C library's creat(3) may use another one.
#[cfg(target_arch = "x86_64")]
pub(super) fn call_creat(path: &Path) -> nix::Result<OwnedFd> {
    // SAFETY: the path is a C string that outlives the call.
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
    // SAFETY: all zeros is a valid, empty file_handle.
    let mut handle: Handle = unsafe { std::mem::zeroed() };
    handle.header.handle_bytes = size_of_val(&handle.bytes) as u32;
    let mut mount_id = 0;
    // SAFETY: the path is a C string, and `handle` has as many bytes as its header says.
    let name = |path: &CStr| unsafe {
        let handle = (&raw mut handle).cast();
        libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), handle, &raw mut mount_id, 0)
    };
    let named = busy.path.with_nix_path(name).and_then(Errno::result);
    named.supported("name_to_handle_at")?;
    let mount = File::open(busy.beside(""))?;
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: name_to_handle_at(2) has filled in the handle.
    let fd = unsafe { libc::open_by_handle_at(mount.as_raw_fd(), (&raw mut handle).cast(), flags) };
    let fd = Errno::result(fd).supported("open_by_handle_at")?;
    victim.held_by(owned(fd), Via::Open)
}

/// Duplicates the fd and closes the original.
fn duplicated(copy: impl FnOnce(&File) -> nix::Result<OwnedFd>) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let file = busy.open()?;
    let copy = copy(&file)?;
    drop(file);
    victim.held_by(copy, Via::Dup)
}

/// An fd of another file, over which `call` duplicates.
fn over_another(call: impl FnOnce(&mut OwnedFd) -> nix::Result<()>) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    let mut copy = nix::fcntl::open("/dev/null", flags, nix::sys::stat::Mode::empty())?;
    call(&mut copy)?;
    Ok(copy)
}
