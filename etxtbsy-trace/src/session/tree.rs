//! The processes that were in a traced tree before tracing began.

use std::collections::HashSet;

use anyhow::Context as _;
use procfs::process::{Process, all_processes};

use crate::{host::pids::Pids, tracer::Backend};

/// `PF_EXITING`, include/linux/sched.h: set before the tracer's programs see a process exit.
const PF_EXITING: u32 = 0x4;

/// Adds all living descendants of those in the traced tree to it, and takes out who has ended.
///
/// The programs add what is forked by a process in the tree; a process that was forked before
/// its parent was added is found by looking again, until a look finds nothing new.
pub fn add_descendants(tracer: &mut impl Backend) -> anyhow::Result<()> {
    let mut members: HashSet<u32> = tracer.tree()?.into_iter().collect();
    let pids = tracer.pids()?;
    for member in &members {
        drop_if_ended(tracer, &pids, *member)?;
    }
    loop {
        let mut found = false;
        let pids = tracer.pids()?;
        for process in all_processes().context("cannot list /proc")?.flatten() {
            let Ok(stat) = process.stat() else { continue };
            let [pid, ppid] = [stat.pid, stat.ppid].map(|pid| pids.machine(pid.cast_unsigned()));
            if !ppid.is_some_and(|ppid| members.contains(&ppid)) {
                continue;
            }
            // One that is younger than the list of pids is found by the next look.
            found |= pid.is_none_or(|pid| !members.contains(&pid));
            if let Some(pid) = pid
                && members.insert(pid)
                && tracer.add_to_tree(pid)?
            {
                drop_if_ended(tracer, &pids, pid)?;
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Takes a process out again whose end may have come before it was added. None of a tree leaves our
/// pid namespace for one above, so that who is not in there has ended.
fn drop_if_ended(tracer: &mut impl Backend, pids: &Pids, pid: u32) -> anyhow::Result<()> {
    let stat = |local: u32| Process::new(local.cast_signed()).and_then(|process| process.stat());
    let stat = pids.local(pid).and_then(|local| stat(local).ok());
    let lives = stat.is_some_and(|stat| stat.flags & PF_EXITING == 0);
    if lives { Ok(()) } else { tracer.remove_from_tree(pid) }
}
