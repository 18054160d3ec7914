//! The processes that were in a traced tree before tracing began.

use std::collections::HashSet;

use anyhow::{Context as _, bail};
use etxtbsy_trace_common::PidPair;
use procfs::process::{Process, all_processes};

use crate::kernel::tracer::Tracer;

/// `PF_EXITING`, include/linux/sched.h: set before the tracer's programs see a process exit.
const PF_EXITING: u32 = 0x4;

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

/// Adds all living descendants of the traced tree's roots to it.
///
/// The programs add what is forked by a process in the tree; a process that was forked before
/// its parent was added is found by looking again, until a look finds nothing new.
pub fn add_descendants(tracer: &mut Tracer) -> anyhow::Result<()> {
    let roots = tracer.roots().to_vec();
    let mut members: HashSet<u32> = roots.iter().map(|root| root.local).collect();
    for root in roots {
        drop_if_ended(tracer, root)?;
    }
    loop {
        let mut found = false;
        let pids = tracer.pids()?;
        for process in all_processes().context("cannot list /proc")?.flatten() {
            let Ok(stat) = process.stat() else { continue };
            let (local, ppid) = (stat.pid.cast_unsigned(), stat.ppid.cast_unsigned());
            if members.contains(&ppid) && !members.contains(&local) {
                found = true;
                // Else it is younger than the list of pids: the next look has it.
                if let Some(machine) = pids.machine(local) {
                    members.insert(local);
                    if tracer.add_to_tree(machine)? {
                        drop_if_ended(tracer, PidPair { local, machine })?;
                    }
                }
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Takes a process out again whose end may have come before it was added.
fn drop_if_ended(tracer: &mut Tracer, PidPair { local, machine }: PidPair) -> anyhow::Result<()> {
    let lives = Process::new(local.cast_signed())
        .and_then(|process| process.stat())
        .is_ok_and(|stat| stat.flags & PF_EXITING == 0);
    if lives { Ok(()) } else { tracer.remove_from_tree(machine) }
}
