//! Processes by pidfd, which no other process can inherit as it can a pid.

use std::{
    ffi::c_int,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    ptr,
};

use nix::errno::Errno;

/// pidfd_open(2).
pub fn open(pid: c_int) -> nix::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just given us this fd.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// pidfd_send_signal(2), for real-time signals too, which nix and rustix cannot name.
pub fn send(pidfd: &OwnedFd, signal: c_int) -> nix::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: the kernel takes a null siginfo as that of kill(2).
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) };
    Errno::result(sent).map(drop)
}
