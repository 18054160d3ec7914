//! File systems of the kernel that need not be mounted.

use std::{panic::resume_unwind, thread};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Runs `work` where a file system of that type is mounted at `at`: on a thread with a mount
/// namespace of its own. Nobody else sees that mount, and it goes with the thread.
pub(super) fn with_mount<T: Send>(
    fs_type: &str,
    at: &str,
    work: impl FnOnce() -> T + Send,
) -> nix::Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| mount_for_this_thread(fs_type, at).map(|()| work()));
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn mount_for_this_thread(fs_type: &str, at: &str) -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    // Nothing that is mounted here shall reach the namespace it was copied from.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing)?;
    mount(Some("nodev"), at, Some(fs_type), MsFlags::empty(), nothing)
}
