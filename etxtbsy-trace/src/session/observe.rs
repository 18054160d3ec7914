//! Looks at the processes of a failure while they live: /proc, and what the programs know of them.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path, rc::Rc};

use etxtbsy_trace_common::{Failure, Hold, Lost, TextOf};
use nix::time::ClockId;

use super::{DEPTH, FRESH_NS, Session};
use crate::{
    analysis::case::Pin,
    host::{
        clock::now_ns,
        fs_view::Sight,
        loop_device,
        opening::{self, Opening},
        process::{self, Facts, Seen},
    },
    tracer::{
        Backend,
        records::{Text, path_of},
    },
};

impl<B: Backend> Session<B> {
    /// Notes the first bytes of a file that was to be executed.
    pub(super) fn read_target(&mut self, text: &Text) {
        let Some(case) = self.ledger.case(text.seq) else { return };
        let pids = [case.failure.tgid, case.failure.ppid].map(|pid| self.pids.local(pid));
        if let Some(begin) = first_bytes(&path_of(&text.bytes), pids.into_iter().flatten()) {
            self.begins.insert(text.seq, begin);
        }
    }

    /// Finds out which processes can be seen from here now.
    pub(super) fn find_pids(&mut self) {
        match self.tracer.pids() {
            Ok(pids) => self.pids = pids,
            Err(error) => log::warn!("{error:#}"),
        }
    }

    /// Looks at the processes of a failure while they live.
    pub(super) fn observe(&mut self, seq: u64) {
        // First: these may go at any moment.
        self.find_pids();
        self.ask_for_stacks(seq);
        self.await_ends();
        self.find_pins(seq);
        let Some(case) = self.ledger.case(seq) else { return };
        let (failure, is_write) = (case.failure, case.is_write());
        let mut wanted = vec![(failure.tgid, failure.start_ns), (failure.ppid, 0)];
        for candidate in &case.candidates {
            let hold = &candidate.hold;
            let start_ns = candidate.holder.start_ns;
            wanted.push((hold.tgid, if start_ns == 0 { hold.start_ns } else { start_ns }));
            wanted.extend([(hold.ppid, 0), (hold.forked.tgid, 0), (hold.opened.tgid, 0)]);
        }
        let mut seen = Seen::new();
        for (pid, start_ns) in wanted {
            self.see(&mut seen, pid, start_ns);
        }
        self.find_runtimes(seq, &seen);
        self.seen.insert(seq, seen);
        if failure.inode == 0 && failure.enter_ns != 0 && !is_write {
            // No file was opened: what refused the exec was the open itself, no writer.
            self.find_refusing(seq, |_| false);
        }
        self.find_runners(seq);
        self.find_pins_of_refused(seq);
        self.await_ends();
        self.list_programs(seq);
        self.report_pending(seq);
    }

    /// Finds out what the programs of openers were written in that have ended, and held the file to their ends.
    fn find_runtimes(&mut self, seq: u64, seen: &Seen) {
        let Some(case) = self.ledger.case_mut(seq) else { return };
        for candidate in &case.candidates {
            let Hold { tgid, ppid, opened, .. } = candidate.hold;
            let is_known = seen.get(&tgid).is_some_and(|facts| facts.runtime.is_some());
            let Some(names) = case.exes.get(&tgid).filter(|_| opened.tgid == tgid && !is_known)
            else {
                continue;
            };
            // Its parent sees the same, as a rule.
            let path = path_of(names);
            let find = || {
                let sight = Sight::of(self.pids.local(ppid)?)?;
                let file = sight.open(&sight.find(Path::new(OsStr::from_bytes(&path)))?)?;
                self.observer.runtime_of(&file, &path)
            };
            // What it has executed since it opened the file is another program.
            if self.tracer.last_exec_ns(tgid) > opened.time_ns {
                continue;
            }
            if let Some(runtime) = find() {
                case.runtimes.insert(tgid, runtime);
            }
        }
    }

    /// Looks at a process and at those above it.
    pub(super) fn see(&mut self, seen: &mut Seen, pid: u32, start_ns: u64) {
        let mut next = (pid, start_ns);
        for _ in 0..DEPTH {
            if next.0 == 0 || seen.contains_key(&next.0) {
                break;
            }
            let Some(facts) = self.look(next.0, next.1) else { break };
            let ppid = facts.ppid;
            seen.insert(next.0, facts);
            next = (ppid, 0);
        }
    }

    /// Looks for what the kernel side cannot see of a failure: what threads are opening, and what keeps
    /// descriptions that no table shows.
    fn find_pins(&mut self, seq: u64) {
        self.find_openings(seq);
        let blind = self.is_blind();
        let passed_since_ns = self.tracer.passed_since_ns();
        let Some(case) = self.ledger.case_mut(seq) else { return };
        case.passed_since_ns = passed_since_ns;
        case.blind = blind;
        let has_passed = case.has_passed();
        let failure = case.failure;
        let Some(attribution) = self.ledger.attribution(seq) else { return };
        if passed_since_ns == 0
            && has_passed
            && let Err(error) = self.tracer.follow_passed()
        {
            log::warn!("{error:#}");
        }
        if attribution.writers.is_none_or(|writers| writers <= attribution.explained) {
            return;
        }
        let Some(case) = self.ledger.case_mut(seq) else { return };
        let path = case.text(TextOf::BusyFile).map(path_of).unwrap_or_default();
        for one in attribution.unheld.iter().filter(|one| one.pin == Pin::Unknown) {
            let local = self.pids.local(one.hold.tgid);
            if local.is_some_and(|pid| process::has_registered(pid, &path)) {
                case.registered.insert(one.hold.file);
            }
        }
        if case.registered.is_empty() {
            case.pins.extend(loop_device::of(failure.dev, failure.ino).map(Pin::LoopDevice));
        }
    }

    /// Finds out which threads that sleep in a call which opens a file are opening the busy one.
    fn find_openings(&mut self, seq: u64) {
        let Some(case) = self.ledger.case_mut(seq) else { return };
        let Failure { dev, ino, .. } = case.failure;
        for (tgid, tid) in case.openings() {
            let looked = match self.pids.local(tgid) {
                // A thread's number is not known elsewhere; that of the first is its process's.
                Some(local) if local == tgid || tid == tgid => {
                    opening::look(local, if tid == tgid { local } else { tid }, dev, ino)
                }
                _ => Opening::Perhaps,
            };
            match looked {
                Opening::Yes => case.opening.insert(tid),
                Opening::Perhaps => case.may_open.insert(tid),
                Opening::No => false,
            };
        }
    }

    /// Whether the programs may have missed what would have shown a holder.
    fn is_blind(&self) -> bool {
        let holds = [Lost::HoldsFull, Lost::ExecsFull, Lost::WalkTruncated];
        self.missed.0 > 0 || holds.into_iter().any(|what| self.tracer.lost(what) > 0)
    }

    pub(super) fn look(&mut self, pid: u32, start_ns: u64) -> Option<Rc<Facts>> {
        // One that cannot be seen from here: /proc has another of that pid, if any.
        let local = self.pids.local(pid)?;
        let now = now_ns(ClockId::CLOCK_MONOTONIC);
        if let Some((at, start, facts)) = self.fresh.get(&pid)
            && *at + FRESH_NS > now
            && *start == start_ns
        {
            return facts.clone();
        }
        let facts = self.observer.look(local, start_ns, &self.pids).map(|facts| {
            // After the look: an exec while that went on counts.
            Rc::new(Facts { exec_ns: self.tracer.last_exec_ns(pid), ..facts })
        });
        if self.fresh.len() > 4096 {
            self.fresh.retain(|_, (at, _, _)| *at + FRESH_NS > now);
        }
        self.fresh.insert(pid, (now, start_ns, facts.clone()));
        facts
    }
}

/// The first bytes of a file, as one of `pids`, which are those of here, sees it, or, where they have ended, as we do.
fn first_bytes(path: &[u8], pids: impl Iterator<Item = u32>) -> Option<Vec<u8>> {
    let path = Path::new(OsStr::from_bytes(path));
    let sights = pids.map(Sight::of).chain([Sight::ours()]);
    sights.flatten().find_map(|sight| Some(sight.first_bytes(&sight.find(path)?)?.to_vec()))
}
