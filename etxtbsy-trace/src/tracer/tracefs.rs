//! Reaching tracefs, which has the numbers of the tracepoints.

use std::{collections::BTreeSet, fmt, fs::File, io::ErrorKind, path::Path};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    sys::statfs::{TRACEFS_MAGIC, statfs},
};

use crate::tracer::mounts::with_mount;

/// Where it is mounted, or would be.
pub const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Why tracefs cannot be reached.
#[derive(Clone, Debug)]
pub enum Unreachable {
    /// It is mounted there, and is not for this user.
    Closed(&'static str),
    /// It is not mounted, and cannot be.
    Unmounted(Errno),
}

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(at) => write!(f, "tracefs at {at} may not be read by this user"),
            Self::Unmounted(errno) => write!(
                f,
                "tracefs is not mounted, and mounting it for this process alone gives: {}",
                errno.desc()
            ),
        }
    }
}

impl std::error::Error for Unreachable {}

/// Runs `work` where tracefs can be read.
///
/// Where it is not mounted (minimal systems, micro VMs), `work` runs on a thread with a mount
/// namespace of its own, in which it is: nobody else sees that mount, and it goes with the thread.
pub fn with_tracefs<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Unreachable> {
    if mounted().is_some() {
        return Ok(work());
    }
    with_mount("tracefs", MOUNTS[0], work).map_err(|errno| {
        match MOUNTS.into_iter().find(is_tracefs) {
            Some(at) => Unreachable::Closed(at),
            None => Unreachable::Unmounted(errno),
        }
    })
}

/// Where it is mounted and can be read, if it is.
#[must_use]
pub fn mounted() -> Option<&'static str> {
    // A mode option can open the directories to a user and not the files, of which this is always there.
    let is_closed = |events: &Path| {
        let opened = File::open(events.join("header_page"));
        opened.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    MOUNTS.into_iter().find(|mount| {
        let events = Path::new(mount).join("events");
        events.is_dir() && !is_closed(&events)
    })
}

fn is_tracefs(at: &&str) -> bool {
    let is_of_it =
        |path: &Path| statfs(path).is_ok_and(|facts| facts.filesystem_type() == TRACEFS_MAGIC);
    is_of_it(Path::new(at)) || is_of_it(&Path::new(at).join("events"))
}

/// The names of the tracepoints of system calls; to be called where tracefs can be read.
pub fn syscalls() -> anyhow::Result<BTreeSet<String>> {
    let mount = mounted().context("tracefs has no events")?;
    let directory = format!("{mount}/events/syscalls");
    let entries =
        std::fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}
