//! A self-made ETXTBSY: it shows whether this kernel refuses to run a file that is open for
//! writing, and from it the eBPF programs learn the address of the kernel's `____fput`.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::AsRawFd as _,
    process::{self, Command},
};

use anyhow::{Context as _, bail};
use nix::sys::memfd::{MFdFlags, memfd_create};

/// Makes an exec fail with ETXTBSY in a child process, after telling `before` its pid; returns it.
///
/// The file is a memfd: no file system need be writable, nothing is left behind. It is opened
/// once more through /proc, for a memfd's own description does not count as a writer.
pub fn busy_exec(mut before: impl FnMut(u32) -> anyhow::Result<()>) -> anyhow::Result<u32> {
    let memory: File = memfd_create(c"etxtbsy-trace", MFdFlags::MFD_CLOEXEC)
        .context("cannot make a memfd")?
        .into();
    // Executed if the kernel does not refuse: then it ends at once.
    io::Write::write_all(&mut &memory, b"#!/bin/true\n").context("cannot write to a memfd")?;
    let path = format!("/proc/{}/fd/{}", process::id(), memory.as_raw_fd());
    let writer = OpenOptions::new()
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {path}"))?;
    let pid = process::id();
    before(pid)?;
    let result = Command::new(&path).spawn();
    drop(writer);
    match result {
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => Ok(pid),
        Err(error) => Err(error).context("a self-made ETXTBSY failed in another way"),
        Ok(mut child) => {
            child.wait()?;
            bail!(
                "this kernel runs files that are open for writing, and so never fails with ETXTBSY (commit 2a010c412853; mainline 6.11.0 to 6.11.10, 6.12.0 and 6.12.1): nothing to trace"
            )
        }
    }
}
