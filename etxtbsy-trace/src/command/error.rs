//! Why a command could not be started, and the exit status for that.

use crate::text::shown;
use nix::errno::Errno;
use std::{ffi::OsString, fmt, io, os::unix::ffi::OsStrExt, path::Path};

/// Why a command could not be started. The text is one line.
#[derive(Debug)]
pub enum ExecError {
    /// The exec failed.
    Exec {
        /// The first word of the command.
        program: OsString,
        /// The errno of execvp(3).
        errno: Errno,
        /// A note about the PATH in which it was not found.
        note: Option<String>,
    },
    /// The child could not take the user's identity.
    Identity {
        /// The system call that failed.
        call: &'static str,
        /// Its errno.
        errno: Errno,
    },
    /// The filter of `--provoke` could not be installed.
    Provoke(Errno),
    /// A call of the tracer itself failed.
    Tracer(io::Error),
}

impl ExecError {
    /// The exit status: as in shells, 127 for a command that was not found and 126 for one that cannot
    /// be executed; as in env(1), 125 for failures that are not the command's.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Exec { errno: Errno::ENOENT, .. } => 127,
            Self::Exec { .. } => 126,
            Self::Identity { .. } | Self::Provoke(_) | Self::Tracer(_) => 125,
        }
    }
}

impl fmt::Display for ExecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exec { program, errno, note } => {
                let is_path = program.as_bytes().contains(&b'/');
                let cause = match errno {
                    Errno::ENOENT if !is_path => "command not found",
                    Errno::ENOENT if Path::new(program).exists() => {
                        "cannot execute: its interpreter was not found"
                    }
                    Errno::ENOENT => errno.desc(),
                    _ => return write!(f, "{}: cannot execute: {}", shown(program), errno.desc()),
                };
                write!(f, "{}: {cause}", shown(program))?;
                match note {
                    Some(note) if !is_path => write!(f, "; {note}"),
                    _ => Ok(()),
                }
            }
            Self::Identity { call, errno } => write!(
                f,
                "cannot run the command as another user: {call}: {}; to run it as root: run --user root",
                errno.desc()
            ),
            Self::Provoke(Errno::EBUSY) => write!(
                f,
                "cannot provoke: another program, such as an outer --provoke, already asks about the calls of \
                 this one (seccomp: EBUSY), and the kernel allows one only; run without --provoke"
            ),
            Self::Provoke(errno) => write!(
                f,
                "cannot provoke: the seccomp filter was not installed: {}; run without --provoke",
                errno.desc()
            ),
            Self::Tracer(error) => write!(f, "cannot start the command: {error}"),
        }
    }
}

impl std::error::Error for ExecError {}
