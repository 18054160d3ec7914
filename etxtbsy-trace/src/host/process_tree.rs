//! Processes by their descent, as /proc shows it now.

use std::{collections::HashSet, os::fd::OwnedFd};

use anyhow::{Context as _, bail};
use procfs::process::{Process, Stat, all_processes};

use super::pidfd;

/// The process of a pid given by the user; an error if there is none.
pub fn existing(pid: u32) -> anyhow::Result<u32> {
    let Ok(process) = Process::new(pid.cast_signed()) else {
        bail!("no process {pid}: look for it with ps -e");
    };
    let status = process.status().with_context(|| format!("cannot read /proc/{pid}/status"))?;
    if status.tgid != pid.cast_signed() {
        bail!("{pid} is a thread of process {0}: --pid {0}", status.tgid);
    }
    Ok(pid)
}

/// The living descendants of a process, as /proc shows them, each given to `on_found` at once; not those
/// whose parent has ended.
pub fn descendants(root: u32, mut on_found: impl FnMut(&OwnedFd)) -> Vec<OwnedFd> {
    let mut members = HashSet::from([root.cast_signed()]);
    let mut found = Vec::new();
    loop {
        let before = members.len();
        for process in all_processes().into_iter().flatten().flatten() {
            let is_new = |stat: &Stat| members.contains(&stat.ppid) && !members.contains(&stat.pid);
            if process.stat().is_ok_and(|stat| is_new(&stat))
                && let Ok(pidfd) = pidfd::open(process.pid)
                // It fails once that very process is gone: the pidfd is of it then, and of no other.
                && process.stat().is_ok()
            {
                members.insert(process.pid);
                on_found(&pidfd);
                found.push(pidfd);
            }
        }
        if members.len() == before {
            return found;
        }
    }
}
