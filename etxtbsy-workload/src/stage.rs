//! The directory and the files of a workload.

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use tempfile::TempDir;

/// Where a workload makes its directory unless told otherwise.
pub(super) const PLACE: &str = "/var/tmp";

/// What the workloads write and run.
pub(super) const SCRIPT: &[u8] = b"#!/bin/sh\nexit 0\n";

/// A new directory below `place`, removed when dropped.
pub(super) fn directory(place: &Path) -> Result<TempDir> {
    let place = place.canonicalize().with_context(|| place.display().to_string())?;
    tempfile::Builder::new()
        .prefix("etxtbsy-trace-")
        .tempdir_in(&place)
        .with_context(|| format!("cannot make a directory in {}", place.display()))
}

/// Makes an executable script and gives the fd, close-on-exec, by which it was written.
pub(super) fn script(path: &Path) -> Result<File> {
    executable(path, SCRIPT)
}

/// Makes an executable file and gives the fd, close-on-exec, by which it was written.
pub(super) fn executable(path: &Path, content: &[u8]) -> Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o777)
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(content)?;
    Ok(file)
}

/// Writes an executable script at a path that may have one already, and gives the fd,
/// close-on-exec, by which it was written.
pub(super) fn rewrite_script(path: &Path) -> Result<File> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o777)
        .open(path)
        .with_context(|| path.display().to_string())?;
    file.write_all(SCRIPT)?;
    Ok(file)
}

/// Copies a program that every system has.
pub(super) fn copy_program(from: &str, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("{from} to {}", to.display()))?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// Tells whoever started the workload that all is ready, and waits for a line on stdin.
pub(super) fn wait_for_go() -> Result<()> {
    writeln!(io::stdout(), "ready")?;
    let mut line = String::new();
    ensure!(io::stdin().read_line(&mut line)? > 0, "stdin ended before the line that says go");
    Ok(())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C and SIGTERM end a long workload by [`interrupted`], so that its directory goes.
pub(super) fn catch_interrupts() -> Result<()> {
    extern "C" fn note(_: c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler stores to an atomic.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether the workload should end.
pub(super) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
