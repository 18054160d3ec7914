//! Processes by their descent, as /proc shows it now.

use std::{
    collections::HashSet,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

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

/// How long a process may take to stop. One that waits for its child of vfork(2) does not stop before that.
const STOP: Duration = Duration::from_millis(100);

/// The living descendants of a process that is being stopped, as /proc shows them, each given to `stop` at once; not
/// those whose parent has ended.
///
/// None of them can fork when this returns: a fork that has begun continues, whatever signal but a fatal one is
/// pending (`copy_process`), so the last look at /proc comes after all have stopped.
pub fn stopped_descendants(root: u32, mut stop: impl FnMut(&OwnedFd)) -> Vec<OwnedFd> {
    let mut members = HashSet::from([root.cast_signed()]);
    let mut found = Vec::new();
    let end = Instant::now() + STOP;
    loop {
        let (before, were_stopped) = (members.len(), members.iter().all(|pid| is_stopped(*pid)));
        for process in all_processes().into_iter().flatten().flatten() {
            let is_new = |stat: &Stat| members.contains(&stat.ppid) && !members.contains(&stat.pid);
            if process.stat().is_ok_and(|stat| is_new(&stat))
                && let Ok(pidfd) = pidfd::open(process.pid)
                // It fails once that very process is gone: the pidfd is of it then, and of no other.
                && process.stat().is_ok()
            {
                members.insert(process.pid);
                stop(&pidfd);
                found.push(pidfd);
            }
        }
        if members.len() == before {
            if were_stopped || Instant::now() > end {
                return found;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Whether all threads of a process are stopped or have ended.
fn is_stopped(pid: i32) -> bool {
    let tasks = Process::new(pid).and_then(|process| process.tasks());
    tasks.into_iter().flatten().flatten().all(|task| {
        task.stat().map_or(true, |stat| matches!(stat.state, 'T' | 't' | 'Z' | 'X' | 'x'))
    })
}
