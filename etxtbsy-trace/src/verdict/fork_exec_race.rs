//! golang/go#22315.

use super::{Rule, ancestor, is_racing, release, span, who};
use crate::lines::{Holder, Incident, State, VerdictKind};

/// An inherited write fd in a child that had not got through its exec.
///
/// > the file was open for writing in true[812], a child that thread 7 of build[800] forked while
/// > thread 3 had the file open, and exec'd 180 µs after the failure
pub(super) struct ForkExecRace;

impl Rule for ForkExecRace {
    const KIND: VerdictKind = VerdictKind::ForkExecRace;

    fn culprit<'a>(&self, incident: &'a Incident) -> Option<&'a Holder> {
        incident.holders.iter().find(|holder| is_racing(holder))
    }

    fn summary(&self, _incident: &Incident, culprit: &Holder) -> String {
        let child = who(culprit.comm.as_deref(), culprit.pid);
        let forked = match &culprit.forked {
            Some(forked) => {
                format!("which thread {} of {} forked", forked.tid, ancestor(culprit, forked.pid))
            }
            None => "forked".to_owned(),
        };
        let opened = match &culprit.opened {
            Some(opened) => format!("while thread {} had the file open for writing", opened.tid),
            None => "while the file was open for writing".to_owned(),
        };
        let state = match culprit.state {
            State::InFork => " (it was still being made)",
            State::ExecClosing => {
                " (its exec had taken the fd away, the kernel had not dropped the file yet)"
            }
            _ => "",
        };
        format!(
            "the write fd lived on in {child}, {forked} {opened}{state}; it held a copy {}",
            release(culprit)
        )
    }

    fn advice(&self, _incident: &Incident, culprit: &Holder) -> Vec<String> {
        let wait =
            culprit.released.as_ref().and_then(|released| u64::try_from(released.after_ns).ok());
        let mut advice = vec![
            "write the file in a child process, so that the process that forks never has it open (measured: 0 failures in 24176 attempts)".to_owned(),
            "or hold one lock from the open for writing until each spawned child has exec'd for good or ended (0 in 12584); in Go that is syscall.ForkLock, where the runtime honours it; a lock round the spawn call alone is no cure with posix_spawn or vfork (72 in 10136)".to_owned(),
            "or the pipe trick: open an O_CLOEXEC pipe before the file, close its write end before the spawn, and wait for end-of-file; seldom fails with the pipe's fd below the file's (0 in 24425, 2 in 21185), more often above it (29 in 10721)".to_owned(),
            "or the flock algorithm: lock the write fd, close it, reopen the file read-only and wait for the lock; a small window remains (4 in 11406: the kernel drops the lock before the write access)".to_owned(),
        ];
        advice.push(match wait {
            Some(wait) => format!(
                "or retry while it fails with ETXTBSY, with a bound: this one would have had to wait {}",
                span(wait)
            ),
            None => "or retry while it fails with ETXTBSY, with a bound".to_owned(),
        });
        advice.push("no help: fsync or sync_all, rename after writing, closing earlier, a lock round the write alone, a fixed sleep, the order of chmod: the fd is in the child already".to_owned());
        advice
    }
}
