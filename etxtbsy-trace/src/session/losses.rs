//! Counts what was lost or skipped, and reports it as lines.

use std::mem::replace;

use etxtbsy_trace_common::Lost;
use nix::time::ClockId;

use super::{Session, tree};
use crate::{
    analysis::{
        incident::{comm, rfc3339, syscall},
        ledger::Unkept,
    },
    event::{self, Line, LossKind, Refusal, bytes::maybe_text},
    host::clock::{now_ns, realtime_offset_ns},
    tracer::Backend,
};

impl<B: Backend> Session<B> {
    /// Reports how many calls failed since the last time that are only counted.
    pub(super) fn report_calls(&mut self) {
        let counted = self.tracer.other_calls();
        if counted == self.other_calls {
            return;
        }
        self.other_calls = counted;
        let mut calls = match self.tracer.other_calls_by_process() {
            Ok(calls) => calls,
            Err(error) => return log::warn!("{error:#}"),
        };
        calls.sort_unstable_by_key(|(_, call)| call.first_ns);
        for (key, call) in calls {
            let before = self.calls.insert(key, call.count).unwrap_or(0);
            let count = call.count.saturating_sub(before);
            if count == 0 {
                continue;
            }
            let (comm, comm_b64) = maybe_text(comm(&call.comm));
            self.summary.refusals += count;
            self.sinks.write(Line::Refusal(Refusal {
                time: rfc3339(realtime_offset_ns(), call.first_ns),
                time_ns: call.first_ns,
                syscall: syscall(key.syscall),
                errno: "ETXTBSY".to_owned(),
                pid: key.tgid,
                comm,
                comm_b64,
                count,
            }));
        }
    }

    pub(super) fn report_lost(&mut self) {
        self.lost_ns = now_ns(ClockId::CLOCK_MONOTONIC);
        let lost = Lost::ALL.map(|what| self.tracer.lost(what));
        let Unkept { failures, near_misses, changes } = self.ledger.take_unkept();
        let new = Lost::ALL.iter().zip(lost.iter().zip(&self.lost));
        let mut new: Vec<(LossKind, &str, u64)> = new
            .map(|(what, (now, before))| (loss_kind(*what), what.what(), now - before))
            .collect();
        new[Lost::FailureUnkept as usize].2 += failures;
        new[Lost::NearMissUnreported as usize].2 += near_misses;
        new.push((LossKind::ChangesOverload, "changes: more than are kept", changes));
        let garbled = std::mem::take(&mut self.garbled);
        new.push((LossKind::RecordsGarbled, "records: not understood", garbled));
        self.lost = lost;
        for (kind, what, count) in new {
            self.lose(kind, what, count);
        }
    }

    /// Tells that things were dropped, if there are any.
    pub(super) fn lose(&mut self, kind: LossKind, what: &str, count: u64) {
        if count > 0 {
            self.summary.lost += count;
            self.sinks.write(Line::Lost(event::Lost { kind, what: what.to_owned(), count }));
        }
    }

    /// Tells how often a program did not run when it should have.
    pub(super) fn report_missed(&mut self) {
        let missed = self.tracer.missed();
        let (before, _) = replace(&mut self.missed, (missed, now_ns(ClockId::CLOCK_MONOTONIC)));
        let what = "events: another program was under way on the processor";
        let count = missed.saturating_sub(before);
        self.lose(LossKind::ProgramsSkipped, what, count);
        if count > 0
            && self.tracer.is_filtered()
            && let Err(error) = self.mend_tree()
        {
            log::warn!("{error:#}");
        }
    }

    /// Finds the forks and ends that the programs may have missed.
    fn mend_tree(&mut self) -> anyhow::Result<()> {
        tree::add_descendants(&mut self.tracer)?;
        self.tree_ended |= self.tracer.tree_size() == 0;
        Ok(())
    }
}

/// The fixed word for a counter of the kernel side.
fn loss_kind(lost: Lost) -> LossKind {
    match lost {
        Lost::RingFull => LossKind::RecordsRingFull,
        Lost::HoldsFull => LossKind::HoldsMapFull,
        Lost::WalkTruncated => LossKind::WalkTruncated,
        Lost::CallsFull => LossKind::CallsMapFull,
        Lost::NoScratch => LossKind::TextNoMemory,
        Lost::TreeFull => LossKind::TreeMapFull,
        Lost::ExecsFull => LossKind::ExecsMapFull,
        Lost::WatchFull => LossKind::WatchMapFull,
        Lost::FailureUnreported => LossKind::FailuresRingFull,
        Lost::SearchesFull => LossKind::SearchesMapFull,
        Lost::FailureUnkept => LossKind::FailuresOverload,
        Lost::CompatUnfollowed => LossKind::CompatUnfollowed,
        Lost::NearMissUnreported => LossKind::NearMissesOverload,
    }
}
