//! How a thread spawns its script.

use super::super::child::{self, Program};
use anyhow::{Context, Result, bail, ensure};
use nix::unistd::Pid;
use std::ffi::c_int;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// How a thread spawns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Spawn {
    /// posix_spawn(3), by std: the call returns when the child's exec has released the parent's memory.
    PosixSpawn,
    /// fork(2), and the exec in the child.
    Fork,
}

/// A spawned child.
pub(super) enum Spawned {
    /// A child of std.
    Std(Child),
    /// A forked child, whose exit status is the errno of its exec.
    Forked(Pid),
    /// No child: the exec failed with ETXTBSY.
    Busy,
}

impl Spawn {
    /// Spawns the script.
    pub(super) fn spawn(self, path: &Path) -> Result<Spawned> {
        match self {
            Self::PosixSpawn => match Command::new(path).stdin(Stdio::null()).spawn() {
                Ok(child) => Ok(Spawned::Std(child)),
                Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => Ok(Spawned::Busy),
                Err(error) => bail!("the exec of {} failed: {error}", path.display()),
            },
            Self::Fork => {
                let program = Program::new(path)?;
                Ok(Spawned::Forked(child::fork(|| program.exec() as i32)?))
            }
        }
    }
}

impl Spawned {
    /// Waits for the child to end; returns the errno of its exec, or 0.
    pub(super) fn errno(self) -> Result<c_int> {
        match self {
            Self::Busy => Ok(libc::ETXTBSY),
            Self::Std(mut child) => {
                let status = child.wait().context("cannot wait for the script")?;
                ensure!(status.success(), "the script failed: {status}");
                Ok(0)
            }
            Self::Forked(pid) => child::wait(pid),
        }
    }
}
