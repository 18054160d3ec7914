//! The other direction: finds out who ran the file that refused to be written, or what else refused.

use etxtbsy_trace_common::{How, SWAP_FILE};
use nix::time::ClockId;

use super::Session;
use crate::{
    analysis::{
        case::{Case, Pin, Runner, Running},
        running,
    },
    event::TreeRole,
    host::{
        binfmt_misc,
        clock::{now_ns, realtime_offset_ns},
        fs_view::{FileSystem, Found, Sight},
        process,
    },
    tracer::Backend,
};

impl<B: Backend> Session<B> {
    /// Finds the file that refused to be written, and the processes that ran it.
    pub(super) fn find_runners(&mut self, seq: u64) {
        let Some(case) = self.ledger.case(seq).filter(|case| case.is_write()) else { return };
        let found = match running::shown(case) {
            Some(running) => Some(running),
            None => self.look_up_runners(seq),
        };
        let Some(mut running) = found else { return };
        let mut seen = self.seen.remove(&seq).unwrap_or_default();
        for runner in &mut running.runners {
            let shown = runner.shown;
            runner.script = shown
                .filter(|shown| shown.script != 0)
                .and_then(|shown| self.tracer.script(shown.script));
            if !self.ending {
                self.see(&mut seen, runner.tgid, shown.map_or(0, |shown| shown.start_ns));
                self.see(&mut seen, shown.map_or(0, |shown| shown.ppid), 0);
            }
            runner.in_tree = match shown {
                Some(shown) => shown.holder.in_tree != 0,
                None => self.role != TreeRole::Victim && self.tracer.is_in_tree(runner.tgid),
            };
        }
        self.seen.insert(seq, seen);
        self.ledger.running(seq, running);
    }

    /// Finds them by the path, where the failing call did not show the file. What cannot be known to
    /// have been so at the failure is not believed.
    fn look_up_runners(&mut self, seq: u64) -> Option<Running> {
        if self.ending {
            self.find_pids();
        }
        let case = self.ledger.case(seq)?;
        let failed_ns = case.failure.exit_ns;
        let refused =
            running::look_up(case, realtime_offset_ns() + i128::from(failed_ns), &self.pids)?;
        let count = self.tracer.write_count(&refused.file.file).ok()?;
        if count >= 0 {
            return None;
        }
        let mut runners = Vec::new();
        for (tgid, shown) in refused.runners {
            // One that no event has shown is older than tracing.
            let run = self.tracer.run(tgid);
            if run.is_some_and(|run| run.began_ns > failed_ns || run.exec_ns > failed_ns) {
                continue;
            }
            let gone = !self.pids.local(tgid).is_some_and(process::is_alive);
            let left = gone.then(|| (How::None, now_ns(ClockId::CLOCK_MONOTONIC)));
            runners.push(Runner { tgid, shown, left, in_tree: false, script: None });
        }
        let found = runners.iter().map(|it| it.shown.map_or(1, |shown| shown.denials)).sum::<u32>();
        Some(Running {
            path: refused.path,
            dev: refused.file.kernel_dev(),
            ino: refused.file.ino,
            count: Some(count),
            explained: found.min(count.unsigned_abs()),
            runners,
        })
    }

    /// Asks which of those that are taken to run the file still are gone without a word.
    pub(super) fn find_left(&mut self, case: &mut Case) {
        let runners = case.running.iter_mut().flat_map(|running| &mut running.runners);
        for runner in runners.filter(|runner| runner.left.is_none()) {
            let Some(shown) = runner.shown else { continue };
            let lives = self.tracer.lives(shown.task, shown.start_ns).unwrap_or(true);
            let run = self.tracer.run(shown.tgid).filter(|run| run.start_ns == shown.start_ns);
            let other = run.is_some_and(|run| run.inode != shown.inode)
                && !self.tracer.is_in_exec(shown.task);
            if !lives || other {
                runner.left = Some((How::None, now_ns(ClockId::CLOCK_MONOTONIC)));
            }
        }
    }

    /// Finds what of the kernel keeps a file that refused to be written, or which file system refused, where
    /// the processes that run it do not account for that.
    pub(super) fn find_pins_of_refused(&mut self, seq: u64) {
        let Some(case) = self.ledger.case(seq).filter(|case| case.is_write()) else { return };
        let (running, victim) = (case.running.as_ref(), case.failure.tgid);
        let explained = running.map_or(0, |running| running.explained);
        if running.is_some_and(|running| explained > 0 && running.missing() == 0) {
            return;
        }
        // The failing call has shown the file, whatever has become of its path since.
        if let Some(refused) = case.refused {
            let kept = if refused.flags & SWAP_FILE != 0 {
                vec![Pin::SwapFile]
            } else if running.is_some_and(|running| running.missing() > 0) {
                self.entries_that_pin((refused.inode, refused.ino), None, victim)
            } else {
                Vec::new()
            };
            if let Some(case) = self.ledger.case_mut(seq).filter(|_| !kept.is_empty()) {
                case.pins.extend(kept);
                return;
            }
        }
        let Some(case) = self.ledger.case(seq) else { return };
        let running = case.running.as_ref();
        let Some((file, path)) = running::there_now(case, &self.pids) else {
            // Of a file system that a program serves, no file is looked at.
            if explained == 0 {
                self.find_refusing(seq, running::is_any_on);
            }
            return;
        };
        // Another file by now.
        if running.is_some_and(|running| running.ino != file.ino) {
            return;
        }
        let missing = running.map(Running::missing);
        let Ok(count) = self.tracer.write_count(&file.file) else { return };
        let missing = missing.unwrap_or(u32::try_from(-i64::from(count)).unwrap_or(0));
        let kept = self.pins_of(&file, missing, victim);
        if kept.is_empty() {
            if explained == 0 && missing == 0 {
                // Nobody was found that runs this very file.
                self.find_refusing(seq, |_| false);
            }
            return;
        }
        if self.ledger.case(seq).is_some_and(|case| case.running.is_none()) {
            let (dev, ino) = (file.kernel_dev(), file.ino);
            let count = Some(count).filter(|count| *count < 0);
            self.ledger.running(seq, Running { path, dev, ino, count, ..Running::default() });
        }
        if let Some(case) = self.ledger.case_mut(seq) {
            case.pins.extend(kept);
        }
    }

    /// What of the kernel keeps a file that refused to be written; `missing` is how often writing is denied by
    /// something that was not found.
    fn pins_of(&mut self, file: &Found, missing: u32, victim: u32) -> Vec<Pin> {
        if self.tracer.is_swap_file(&file.file).unwrap_or(false) {
            return vec![Pin::SwapFile];
        }
        if missing == 0 {
            return Vec::new();
        }
        let Ok(inode) = self.tracer.inode_at(&file.file) else { return Vec::new() };
        self.entries_that_pin((inode, file.ino), Some(file), victim)
    }

    /// The entries of binfmt_misc that keep an inode, by its address and number; by the path of `file`
    /// where the kernel does not show what an entry keeps.
    fn entries_that_pin(
        &mut self,
        inode: (u64, u64),
        file: Option<&Found>,
        victim: u32,
    ) -> Vec<Pin> {
        let seen = self.pids.local(victim).and_then(Sight::of);
        let sights: Vec<Sight> = seen.into_iter().chain(Sight::ours()).collect();
        let tracer = &mut self.tracer;
        let entries = binfmt_misc::keepers(file, &sights, |entry| tracer.is_kept_by(inode, entry));
        entries.into_iter().map(Pin::BinfmtMisc).collect()
    }

    /// Finds the file system that refused a call itself, because another than this kernel serves it; unless
    /// `may_run` says that a program which runs may have made the kernel refuse.
    pub(super) fn find_refusing(&mut self, seq: u64, may_run: impl FnOnce(&FileSystem) -> bool) {
        let Some(case) = self.ledger.case(seq) else { return };
        let Some(found) = running::refusing(case, &self.pids) else { return };
        let is_of = |runner: &etxtbsy_trace_common::Runner| runner.dev == found.dev;
        let may_run = case.named.iter().any(is_of) || may_run(&found);
        if let Some(case) = self.ledger.case_mut(seq).filter(|_| !may_run) {
            case.pins.push(Pin::FileSystem(found));
        }
    }
}
