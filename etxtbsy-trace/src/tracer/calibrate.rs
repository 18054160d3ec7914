//! A self-made ETXTBSY: it shows whether this kernel refuses to run a file that is open for
//! writing, and from it the eBPF programs learn the address of the kernel's `____fput`.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd as _,
    process::{self, Command, Stdio},
};

use anyhow::{Context as _, ensure};
use nix::{
    errno::Errno,
    sys::memfd::{MFdFlags, memfd_create},
};

/// What a kernel is that refuses neither direction.
pub const ALLOWED: &str = "this kernel runs files that are open for writing, and so never fails with ETXTBSY (commit 2a010c412853; mainline 6.11.0 to 6.11.10, 6.12.0 and 6.12.1): nothing to trace";

/// Why no program can be made in memory.
pub const NO_MEMFD: &str = "executable memfds are forbidden: sysctl vm.memfd_noexec=1";

/// Tries to execute a file that is open for writing, in a child process; false if it runs.
///
/// The file is a memfd: no file system need be writable, nothing is left behind. It is opened
/// once more through /proc, for a memfd's own description does not count as a writer.
pub fn busy_exec() -> anyhow::Result<bool> {
    // Empty, for nothing may be writable (RLIMIT_FSIZE): it is refused before it is read.
    let (_memory, path) = memory()?;
    let writer = open(&path).with_context(|| format!("cannot open {path}"))?;
    let result = Command::new(&path).spawn();
    drop(writer);
    let result = match result {
        // The C library may have had a shell run it.
        Ok(mut child) => child.wait().map(drop),
        // It was read.
        Err(error) if error.raw_os_error() == Some(libc::ENOEXEC) => Ok(()),
        Err(error) => Err(error),
    };
    is_refused(result).context("a self-made ETXTBSY failed in another way")
}

/// Tries to open a running program for writing; false if that can be done.
///
/// The program is a copy of this one in a memfd, which waits for its stdin to end.
pub fn busy_write() -> anyhow::Result<bool> {
    let (memory, path) = memory()?;
    let own = File::open("/proc/self/exe").context("cannot open /proc/self/exe")?;
    io::copy(&mut &own, &mut &memory).context("cannot write to a memfd")?;
    let mut child = Command::new(&path)
        .args(["replay", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot execute {path}"))?;
    let opened = open(&path);
    // It runs until here.
    let ended = child.try_wait();
    child.kill()?;
    child.wait()?;
    ensure!(ended?.is_none(), "a copy of this program ended too early");
    is_refused(opened.map(drop)).with_context(|| format!("cannot open {path}"))
}

/// An executable file in memory, and a path to it for any process.
fn memory() -> anyhow::Result<(File, String)> {
    // Without the second flag, from 6.3 on, `vm.memfd_noexec` may make it one that cannot be run.
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let memory = match memfd_create(c"etxtbsy-trace", MFdFlags::MFD_CLOEXEC | executable) {
        Err(Errno::EINVAL) => memfd_create(c"etxtbsy-trace", MFdFlags::MFD_CLOEXEC),
        made => made,
    };
    let memory: File = match memory {
        Err(Errno::EACCES) => Err(Errno::EACCES).context(NO_MEMFD)?,
        made => made.context("cannot make a memfd")?.into(),
    };
    let path = format!("/proc/{}/fd/{}", process::id(), memory.as_raw_fd());
    Ok((memory, path))
}

fn open(path: &str) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn is_refused(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => Ok(true),
        other => other.map(|()| false),
    }
}
