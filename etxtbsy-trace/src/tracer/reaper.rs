//! Letting go of the programs without waiting for it.
//!
//! Closing the attachment to a system call's tracepoint waits until no CPU can be in the program
//! (`tracepoint_synchronize_unregister`, under a lock: one after the other), tens of milliseconds
//! for each, and a process that ends waits for it too. A process of its own does that instead.

use std::{
    fs,
    io::{PipeReader, PipeWriter, Read as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::ffi::OsStrExt as _,
    },
};

use anyhow::Context as _;
use nix::{
    sys::wait::waitpid,
    unistd::{ForkResult, chdir, fork, setsid},
};

/// A process that has all open files of this one, and ends when this is dropped.
pub struct Reaper(#[allow(dead_code, reason = "its end is what the process waits for")] PipeWriter);

impl Reaper {
    /// Starts it. What the process does takes no lock but that of memory, which the C library frees
    /// for it; so this one may have other threads.
    pub fn start() -> anyhow::Result<Self> {
        let (reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        // SAFETY: the child allocates, which the C library allows after its own fork(), and else only
        // calls the kernel.
        match unsafe { fork() }.context("cannot fork")? {
            ForkResult::Parent { child } => {
                waitpid(child, None).context("cannot wait for the process that ends tracing")?;
                Ok(Self(writer))
            }
            ForkResult::Child => {
                // Twice, so that nobody has to wait for it.
                // SAFETY: as above.
                if let Ok(ForkResult::Child) = unsafe { fork() } {
                    linger(reader, writer);
                }
                // SAFETY: always sound; what belongs to the parent must not be flushed here.
                unsafe { libc::_exit(0) }
            }
        }
    }
}

/// Waits until the parent has closed its own, with nothing open but what tracing needs: nobody is
/// to wait for a terminal, a pipe, a file or a directory because of it.
fn linger(mut reader: PipeReader, writer: PipeWriter) {
    drop(writer);
    let _ = setsid().and(chdir("/"));
    let Ok(fds) = fs::read_dir("/proc/self/fd") else { return };
    let others: Vec<RawFd> = fds
        .flatten()
        .filter(|fd| {
            let target = fs::read_link(fd.path()).unwrap_or_default();
            let name = target.as_os_str().as_bytes();
            !name.starts_with(b"anon_inode:bpf") && name != b"anon_inode:[perf_event]"
        })
        .filter_map(|fd| fd.file_name().to_str()?.parse().ok())
        .filter(|fd| *fd != reader.as_raw_fd())
        .collect();
    for fd in others {
        // SAFETY: nothing uses them any more: this process ends without running anything else.
        unsafe { libc::close(fd) };
    }
    let _ = reader.read(&mut [0]);
}
