//! Reaching tracefs, which tells the numbers of the tracepoints.

use std::{path::Path, thread};

use anyhow::{Context as _, anyhow};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

/// Where it is mounted, or would be.
const MOUNTS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Runs `work` where tracefs can be read.
///
/// Where it is not mounted (minimal systems, micro VMs), `work` runs on a thread with a mount
/// namespace of its own, in which it is: nobody else sees that mount, and it goes with the thread.
pub fn with_tracefs<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    if MOUNTS.iter().any(|mount| Path::new(mount).join("events").is_dir()) {
        return work();
    }
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            mount_for_this_thread().with_context(|| {
                format!("tracefs is not mounted: mount -t tracefs nodev {}", MOUNTS[0])
            })?;
            work()
        });
        thread.join().map_err(|_| anyhow!("the thread that reads tracefs has panicked"))?
    })
}

fn mount_for_this_thread() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    // Nothing that is mounted here shall reach the namespace it was copied from.
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_SLAVE, nothing)?;
    mount(Some("nodev"), MOUNTS[0], Some("tracefs"), MsFlags::empty(), nothing)
}
