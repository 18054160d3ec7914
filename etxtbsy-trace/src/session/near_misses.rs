//! Near misses: when their lines are written.
//!
//! A near miss is written at once, unless many of its kind were written in the last second: then it is counted, and
//! the closest of those is written later for all of them.

use std::collections::HashMap;

use super::{Session, report::world};
use crate::{
    analysis::near_miss::{build, judge},
    event::{Line, NearMiss},
    host::process::Seen,
    tracer::Backend,
};

/// How long a period is, in nanoseconds, and how many near misses of a kind are written in one.
const PERIOD_NS: u64 = 1_000_000_000;
const AT_ONCE: u64 = 100;
/// How many kinds are told apart.
const KINDS: usize = 256;

/// Near misses by kind: the process that opened the file, and the one that forked the copy.
#[derive(Debug, Default)]
pub(super) struct NearMisses {
    kinds: HashMap<(u32, u32), Folded>,
}

/// The near misses of a kind.
#[derive(Debug, Default)]
struct Folded {
    /// When the period began.
    began_ns: u64,
    /// How many were written in it.
    written: u64,
    /// The closest of those that were not, with their count.
    rest: Option<Box<NearMiss>>,
}

impl NearMisses {
    /// Adds one; returns what is to be written now.
    fn add(&mut self, near: NearMiss) -> Vec<NearMiss> {
        let kind = kind_of(&near);
        let kind =
            if self.kinds.len() < KINDS || self.kinds.contains_key(&kind) { kind } else { (0, 0) };
        let folded = self.kinds.entry(kind).or_default();
        let mut out = Vec::new();
        if near.time_ns >= folded.began_ns.saturating_add(PERIOD_NS) {
            (folded.began_ns, folded.written) = (near.time_ns, 0);
            out.extend(folded.rest.take().map(|rest| *rest));
        }
        if folded.written < AT_ONCE {
            folded.written += 1;
            out.push(near);
            return out;
        }
        folded.rest = Some(Box::new(match folded.rest.take() {
            Some(mut rest) if rest.margin_ns <= near.margin_ns => {
                rest.count += near.count;
                *rest
            }
            Some(rest) => NearMiss { count: rest.count + near.count, ..near },
            None => near,
        }));
        out
    }

    /// What was not written yet.
    fn rest(&mut self) -> Vec<NearMiss> {
        let mut rest: Vec<_> =
            self.kinds.values_mut().filter_map(|folded| Some(*folded.rest.take()?)).collect();
        rest.sort_by_key(|near| near.time_ns);
        rest
    }
}

fn kind_of(near: &NearMiss) -> (u32, u32) {
    let first = near.holders.first();
    let opener = first.and_then(|holder| holder.opened.as_ref()).map_or(0, |opened| opened.pid);
    let forker = first.and_then(|holder| holder.forked.as_ref()).map_or(0, |forked| forked.pid);
    (opener, forker)
}

impl<B: Backend> Session<B> {
    /// Judges an exec that succeeded, and writes it if it was a near miss.
    pub(super) fn report_near_miss(&mut self, seq: u64) {
        let Some(case) = self.ledger.take(seq) else { return };
        let begins = self.begins.remove(&seq);
        let Some(judged) = judge(&case) else { return };
        let mut seen = Seen::new();
        if !self.ending {
            self.see(&mut seen, case.failure.tgid, case.failure.start_ns);
            for copy in &case.candidates {
                self.see(&mut seen, copy.hold.opened.tgid, 0);
            }
        }
        let mut near =
            build(&case, &judged, &world(&self.tracer, &self.observer, &self.roots, &seen, begins));
        near.run = self.runs.near_miss(near.time_ns);
        self.summary.near_misses += 1;
        for near in self.near_misses.add(near) {
            self.write(Line::NearMiss(Box::new(near)));
        }
    }

    /// Writes those that were held back.
    pub(super) fn report_other_near_misses(&mut self) {
        for near in self.near_misses.rest() {
            self.write(Line::NearMiss(Box::new(near)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn near(time_ns: u64, margin_ns: u64) -> NearMiss {
        NearMiss { time_ns, margin_ns, ..samples::near_miss() }
    }

    #[test]
    fn a_storm_is_folded_and_nothing_is_lost() {
        let mut all = NearMisses::default();
        let mut written = Vec::new();
        for at in 0..1000 {
            written.extend(all.add(near(PERIOD_NS + at, 5000 - at)));
        }
        assert_eq!(written.len() as u64, AT_ONCE);
        written.extend(all.add(near(2 * PERIOD_NS + 1000, 1)));
        let rest = &written[AT_ONCE as usize];
        assert_eq!(
            (rest.count, rest.margin_ns),
            (1000 - AT_ONCE, 4001),
            "the closest stands for all"
        );
        assert_eq!(written.iter().map(|near| near.count).sum::<u64>(), 1001);
        assert!(all.rest().is_empty());
    }

    #[test]
    fn what_was_held_back_comes_at_the_end() {
        let mut all = NearMisses::default();
        let now: usize = (0..150).map(|at| all.add(near(PERIOD_NS + at, 7)).len()).sum();
        let rest = all.rest();
        assert_eq!((now, rest.len(), rest[0].count), (100, 1, 50));
    }
}
