//! Turns settled failures into incidents, and pending ones into what is known so far.

use super::Session;
use crate::{
    analysis::{
        attribution::{Attribution, attribute},
        case::Case,
        incident::{World, build, shortfall},
    },
    event::{Incident, Line, LossKind, TreeRole},
    host::{
        clock::realtime_offset_ns,
        process::{Observer, Seen},
    },
    output::bounds,
    tracer::Backend,
};

impl<B: Backend> Session<B> {
    /// Shows a failure before it is settled.
    pub(super) fn report_pending(&mut self, seq: u64) {
        let Some(attribution) = self.ledger.attribution(seq) else { return };
        let Some(case) = self.ledger.case(seq).filter(|case| self.shows(case, &attribution)) else {
            return;
        };
        let nothing = Seen::new();
        let seen = self.seen.get(&seq).unwrap_or(&nothing);
        let world =
            world(&self.tracer, &self.observer, &self.roots, seen, self.begins.get(&seq).cloned());
        self.sinks.pending(&|| bounded(build(0, case, &attribution, &world)));
    }

    /// Writes the incident of a settled failure, if it is of interest.
    pub(super) fn report(&mut self, mut case: Case) {
        case.passed_over = case.has_unseen() && self.tracer.missed() > 0;
        self.find_left(&mut case);
        let case = &case;
        let attribution = attribute(case);
        let seq = case.failure.seq;
        if !self.shows(case, &attribution) {
            self.seen.remove(&seq);
            self.begins.remove(&seq);
            self.summary.elsewhere += 1;
            return;
        }
        let unplaced = u64::from(case.unplaced);
        self.lose(
            LossKind::HoldsPerFile,
            "releases: more holders than are followed of a file",
            unplaced,
        );
        let seen = self.seen.remove(&seq).unwrap_or_default();
        let begins = self.begins.remove(&seq);
        let id = self.summary.incidents + 1;
        let mut incident = {
            let world = world(&self.tracer, &self.observer, &self.roots, &seen, begins);
            bounded(build(id, case, &attribution, &world))
        };
        // Then it is not complete.
        if !case.is_write() && !incident.complete && attribution.contradicted {
            self.lose(LossKind::CountContradicted, "writers: more were found than counted", 1);
        }
        if !case.is_write() && case.failure.inode == 0 && !incident.complete {
            self.lose(LossKind::BusyFileUnknown, "busy files: not found in the task's work", 1);
        }
        self.summary.incidents += 1;
        if incident.complete {
            self.summary.explained += 1;
        } else {
            log::debug!("not explained: {case:#?}");
            self.summary.unexplained += 1;
        }
        if let Some(shortfall) = shortfall(case, &incident) {
            *self.summary.unexplained_by.entry(shortfall).or_default() += 1;
        }
        incident.run = self.runs.incident(incident.time_ns, incident.repaired.is_some());
        self.summary.repaired += u64::from(incident.repaired.is_some());
        *self.summary.by_verdict.entry(incident.verdict.kind).or_default() += 1;
        self.change_first.add(&incident);
        self.write(Line::Incident(Box::new(incident)));
    }

    /// Whether a failure is one of those that were asked for.
    fn shows(&self, case: &Case, attribution: &Attribution) -> bool {
        let is_victim = case.failure.in_tree != 0;
        match self.role {
            TreeRole::Victim => is_victim,
            TreeRole::Holder => is_held_by_tree(case, attribution),
            TreeRole::Either | TreeRole::Other(_) => {
                is_victim || is_held_by_tree(case, attribution)
            }
        }
    }
}

/// What building a line about a case needs, given what was seen of its processes, and what the file to be executed
/// begins with.
pub(super) fn world<'a, B: Backend>(
    tracer: &'a B,
    observer: &'a Observer,
    roots: &'a [u32],
    seen: &'a Seen,
    target_begins: Option<Vec<u8>>,
) -> World<'a> {
    World {
        seen,
        lineage: Box::new(|pid| tracer.lineage(pid)),
        cgroup: Box::new(|id| observer.cgroup(id)),
        realtime_offset_ns: realtime_offset_ns(),
        roots,
        target_begins,
    }
}

/// Whether a process of the tree is one of those that held the file, or run it.
fn is_held_by_tree(case: &Case, attribution: &Attribution) -> bool {
    let mut runners = case.running.iter().flat_map(|running| &running.runners);
    let mut seen = attribution.holders.iter().filter_map(|held| held.seen);
    runners.any(|runner| runner.in_tree) || seen.any(|seen| seen.in_tree != 0)
}

/// The same incident, short enough for one line.
fn bounded(mut incident: Incident) -> Incident {
    bounds::apply(&mut incident);
    incident
}
