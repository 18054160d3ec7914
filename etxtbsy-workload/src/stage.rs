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

/// Where a workload creates its directory by default.
pub(super) const DEFAULT_DIR: &str = "/var/tmp";

/// The script that the workloads write and run.
pub(super) const SCRIPT: &[u8] = b"#!/bin/sh\nexit 0\n";

/// Creates a directory below `parent`, which is removed when dropped.
pub(super) fn directory(parent: &Path) -> Result<TempDir> {
    let parent = parent.canonicalize().with_context(|| parent.display().to_string())?;
    tempfile::Builder::new()
        .prefix("etxtbsy-trace-")
        .tempdir_in(&parent)
        .with_context(|| format!("cannot create a directory in {}", parent.display()))
}

/// Creates an executable script; returns the write fd, which is close-on-exec.
pub(super) fn script(path: &Path) -> Result<File> {
    executable(path, SCRIPT)
}

/// Creates an executable file; returns the write fd, which is close-on-exec.
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

/// Writes an executable script to a path that may exist; returns the write fd, which is close-on-exec.
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

/// Copies a program.
pub(super) fn copy_program(from: &str, to: &Path) -> Result<()> {
    std::fs::copy(from, to).with_context(|| format!("{from} to {}", to.display()))?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755))?;
    Ok(())
}

/// Prints a line when all is ready, then waits for a line on stdin.
pub(super) fn wait_for_go() -> Result<()> {
    writeln!(io::stdout(), "ready")?;
    let mut line = String::new();
    ensure!(
        io::stdin().read_line(&mut line)? > 0,
        "stdin ended before the line for which --wait-for-go waits"
    );
    Ok(())
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C and SIGTERM end a long workload by [`interrupted`], so that it removes its directory.
pub(super) fn catch_interrupts() -> Result<()> {
    extern "C" fn set_interrupted(_: c_int) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let action =
        SigAction::new(SigHandler::Handler(set_interrupted), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        // SAFETY: the handler only stores to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether the workload should end.
pub(super) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
