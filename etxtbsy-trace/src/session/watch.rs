//! Watches how holds end: asks where no event shows it, and ends the watch over quiet inodes.

use etxtbsy_trace_common::{Hold, PendingRelease, Stage};
use nix::time::ClockId;

use super::Session;
use crate::{
    analysis::case::DescriptionClosed,
    host::{clock::now_ns, process},
    tracer::Backend,
};

impl<B: Backend> Session<B> {
    /// Asks for a record when a description that no table shows is dropped.
    pub(super) fn await_ends(&mut self) {
        for ((file, _), hold) in self.ledger.pending_releases() {
            // The others are done in microseconds.
            if hold.stage() == Some(Stage::Held) || self.ledger.is_pinned(file) {
                let lingering = PendingRelease { file, inode: hold.inode };
                if let Err(error) = self.tracer.await_end(hold.tgid, &lingering) {
                    log::warn!("{error:#}");
                }
            }
        }
    }

    /// Asks which descriptions are closed by now, where no event shows that.
    pub(super) fn poll(&mut self) {
        let closed = self.gone(self.ledger.pending_releases().into_values(), |session, hold| {
            let file = hold.file;
            // The address of one that waits in a task's work may be in use again by now.
            let waits = hold.stage() == Some(Stage::Released) && !session.ledger.is_pinned(file);
            let inode = if waits { 0 } else { hold.inode };
            session.tracer.still_open(hold.task, &PendingRelease { file, inode })
        });
        if closed.is_empty() {
            return;
        }
        self.find_pids();
        for (hold, time_ns) in closed {
            let lives = match self.pids.local(hold.tgid) {
                Some(pid) => process::is_alive(pid),
                None => self.tracer.lives(hold.task, hold.start_ns).unwrap_or(false),
            };
            let exiting = !lives;
            self.ledger.dropped(hold.file, hold.tgid, DescriptionClosed { time_ns, exiting });
        }
    }

    /// Asks which fds, of those that are taken to be held still at the end of their grace period, are gone
    /// without a record: the kernel can have skipped the program that writes it.
    pub(super) fn find_ends(&mut self, heard_ns: u64) {
        let unended = self.ledger.unended(heard_ns).into_values();
        for (hold, time_ns) in self.gone(unended, |session, hold| session.tracer.still_there(hold))
        {
            self.ledger.gone(&hold, time_ns);
        }
    }

    /// Which of these holds the kernel no longer has, and when that was found. Records about them, which are
    /// exact, were read before this returns.
    pub(super) fn gone(
        &mut self,
        holds: impl Iterator<Item = Hold>,
        is_there: impl Fn(&mut Self, &Hold) -> anyhow::Result<bool>,
    ) -> Vec<(Hold, u64)> {
        let mut gone = Vec::new();
        for hold in holds {
            match is_there(self, &hold) {
                Ok(true) => {}
                Ok(false) => gone.push((hold, now_ns(ClockId::CLOCK_MONOTONIC))),
                Err(error) => log::warn!("{error:#}"),
            }
        }
        if !gone.is_empty() {
            self.read();
        }
        gone
    }
}
