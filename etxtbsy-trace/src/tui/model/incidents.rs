//! What came in: counts of everything, and the details of the latest incidents.

use super::{
    rate::{Axis, Rate},
    statistics::Statistics,
};
use crate::{
    analysis::group::{Cause, GROUPS, Tally},
    event::{Incident, Line, Meta, Summary, weight::incident as weight},
};
use std::collections::{HashMap, VecDeque};

/// How many incidents are kept whole; of those before only the counts are.
const KEPT: usize = 10_000;
/// How many bytes they take at most, about.
const BYTES: usize = 256 << 20;

/// Incidents that are counted and not shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub incidents: u64,
    /// How many of them are complete.
    pub explained: u64,
    /// How many things were dropped meanwhile.
    pub lost: u64,
}

/// An incident that is kept whole.
pub struct Kept {
    /// How many incidents came in before it; its `id` is its own in one recording only.
    pub number: u64,
    /// The incident.
    pub incident: Box<Incident>,
    passes: bool,
}

/// The incidents of one group.
pub struct Group {
    /// What they have in common; `None` for the incidents of all groups beyond [`GROUPS`].
    pub cause: Option<Cause>,
    /// What is counted.
    pub tally: Tally,
    /// When they came.
    pub rate: Rate,
    /// The latest, the newest last; never empty.
    kept: VecDeque<Kept>,
    /// How many of those pass the filter.
    passing: usize,
    /// The number of the latest that does, if any.
    latest: u64,
}

impl Group {
    /// None yet, from incident `id` on.
    fn new(cause: Option<Cause>, id: u64) -> Self {
        let (tally, rate) = (Tally::new(id), Rate::default());
        Self { cause, tally, rate, kept: VecDeque::new(), passing: 0, latest: 0 }
    }

    /// How many of those that are kept pass the filter.
    #[must_use]
    pub fn passing(&self) -> usize {
        self.passing
    }

    /// The number of the latest that passes, if one does.
    #[must_use]
    pub fn latest(&self) -> Option<u64> {
        (self.passing > 0).then_some(self.latest)
    }

    /// Those that are kept, the oldest first.
    #[must_use]
    pub fn all(&self) -> &VecDeque<Kept> {
        &self.kept
    }

    /// Those of them that pass.
    #[must_use]
    pub fn all_passing(&self) -> impl DoubleEndedIterator<Item = &Kept> {
        self.kept.iter().filter(|kept| kept.passes)
    }

    /// The one of a number, if it is still kept.
    #[must_use]
    pub fn find(&self, number: u64) -> Option<&Kept> {
        let place = self.kept.binary_search_by_key(&number, |kept| kept.number).ok()?;
        self.kept.get(place)
    }

    fn push(&mut self, kept: Kept) {
        if kept.passes {
            self.passing += 1;
            self.latest = kept.number;
        }
        self.kept.push_back(kept);
    }
}

/// All that came in.
#[derive(Default)]
pub struct Model {
    /// The first line.
    pub meta: Option<Meta>,
    /// The last one.
    pub summary: Option<Summary>,
    /// How many things were dropped.
    pub lost: u64,
    /// How many other calls failed, which are only counted.
    pub refusals: u64,
    /// How many incidents there were.
    pub incidents: u64,
    /// How many of them are complete.
    pub explained: u64,
    /// When the latest call failed.
    pub latest_ns: Option<u64>,
    /// Sums over all incidents.
    pub statistics: Statistics,
    /// The time that the groups' rates are counted over.
    axis: Option<Axis>,
    /// The groups, in the order they were first seen.
    groups: Vec<Group>,
    places: HashMap<Option<Cause>, usize>,
    /// The group of each incident that is kept, the oldest first.
    order: VecDeque<usize>,
    /// How many bytes those take, about.
    bytes: usize,
}

impl Model {
    /// Takes a line; `passes` is the filter.
    pub fn add(&mut self, line: Line, passes: impl FnOnce(&Incident) -> bool) {
        match line {
            Line::Meta(meta) => self.meta = Some(meta),
            Line::Incident(incident) => {
                let passes = passes(&incident);
                self.incident(incident, passes);
            }
            Line::Refusal(refusal) => {
                self.refusals = self.refusals.saturating_add(refusal.count);
            }
            Line::Lost(lost) => self.lost = self.lost.saturating_add(lost.count),
            Line::Summary(summary) => self.summary = Some(summary),
        }
    }

    /// Counts incidents that there is no room for.
    pub fn skip(&mut self, Skipped { incidents, explained, lost }: Skipped) {
        self.incidents += incidents;
        self.explained += explained;
        self.lost = self.lost.saturating_add(lost);
    }

    fn incident(&mut self, incident: Box<Incident>, passes: bool) {
        let number = self.incidents;
        self.incidents += 1;
        self.explained += u64::from(incident.complete);
        self.latest_ns = self.latest_ns.max(Some(incident.time_ns));
        self.statistics.add(&incident);
        let mut cause = Some(Cause::of(&incident));
        if self.groups.len() >= GROUPS && !self.places.contains_key(&cause) {
            cause = None;
        }
        let place = *self.places.entry(cause.clone()).or_insert_with(|| {
            self.groups.push(Group::new(cause, incident.id));
            self.groups.len() - 1
        });
        let start_ns = self.meta.as_ref().map_or(incident.time_ns, |meta| meta.time_ns);
        let axis = self.axis.get_or_insert_with(|| Axis::new(start_ns));
        let (bucket, doublings) = axis.bucket(incident.time_ns);
        for _ in 0..doublings {
            self.groups.iter_mut().for_each(|group| group.rate.double());
        }
        let group = &mut self.groups[place];
        group.rate.add(bucket);
        group.tally.add(&incident);
        self.bytes += weight(&incident);
        group.push(Kept { number, incident, passes });
        self.order.push_back(place);
        self.fold();
    }

    /// Lets go of the oldest, but not of the last one of a group.
    fn fold(&mut self) {
        while (self.order.len() > KEPT || self.bytes > BYTES)
            && self.order.len() > self.groups.len()
        {
            let Some(place) = self.order.pop_front() else { break };
            let group = &mut self.groups[place];
            if group.kept.len() == 1 {
                self.order.push_back(place);
            } else if let Some(folded) = group.kept.pop_front() {
                group.passing -= usize::from(folded.passes);
                self.bytes -= weight(&folded.incident);
            }
        }
    }

    /// Applies another filter to all that are kept.
    pub fn sift(&mut self, mut passes: impl FnMut(&Incident) -> bool) {
        for group in &mut self.groups {
            group.passing = 0;
            for mut kept in std::mem::take(&mut group.kept) {
                kept.passes = passes(&kept.incident);
                group.push(kept);
            }
        }
    }

    /// How many incidents are kept whole.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.order.len()
    }

    /// The group at a place.
    #[must_use]
    pub fn group(&self, place: usize) -> Option<&Group> {
        self.groups.get(place)
    }

    /// All groups, in the order they were first seen.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// How frequent the incidents of a group were until a moment: [`Rate::bar`].
    #[must_use]
    pub fn bar(&self, group: &Group, until_ns: u64, columns: usize, most: usize) -> Vec<usize> {
        self.axis.map_or_else(Vec::new, |axis| group.rate.bar(axis, until_ns, columns, most))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    /// The race, as incident `id` of a file.
    fn race(id: u64, file: &str) -> Line {
        let mut incident = samples::race();
        incident.id = id;
        incident.file.path = Some(file.to_owned());
        incident.into()
    }

    #[test]
    fn incidents_are_grouped_by_cause() {
        let mut model = Model::default();
        for line in samples::every_line() {
            model.add(line, |_| true);
        }
        assert_eq!((model.incidents, model.explained, model.lost), (6, 4, 3));
        let ids: Vec<_> = model.groups().iter().map(|group| group.tally.ids).collect();
        // The first and the fifth differ only in how many holders they have.
        assert_eq!(ids, [(1, 5), (2, 2), (3, 3), (4, 4), (6, 6)]);
    }

    #[test]
    fn the_oldest_are_folded_into_counts_but_each_group_keeps_one() {
        let mut model = Model::default();
        model.add(race(1, "/rare"), |_| true);
        let many = KEPT as u64 + 500;
        for id in 2..=many {
            model.add(race(id, "/tmp/often-7"), |_| true);
        }
        let (rare, often) = (model.group(0).unwrap(), model.group(1).unwrap());
        assert_eq!((rare.kept.len(), rare.tally.count), (1, 1));
        assert_eq!((often.kept.len(), often.tally.count), (KEPT - 1, many - 1));
        assert_eq!(often.kept.back().map(|kept| kept.incident.id), Some(many));
        assert_eq!((model.incidents, model.kept()), (many, KEPT));
        assert_eq!(often.find(0).map(|kept| kept.incident.id), None);
        assert_eq!(often.find(many - 1).map(|kept| kept.incident.id), Some(many));
        assert_eq!(model.statistics.tally.count, many);
    }

    #[test]
    fn groups_beyond_the_bound_share_a_group() {
        let mut model = Model::default();
        for id in 0..GROUPS as u64 + 20 {
            // Letters only: digits would be folded.
            let name: String = id.to_string().bytes().map(|b| char::from(b + 55)).collect();
            model.add(race(id + 1, &format!("/{name}/tool")), |_| true);
        }
        assert_eq!(model.groups().len(), GROUPS + 1);
        let other = model.group(GROUPS).unwrap();
        assert_eq!((&other.cause, other.tally.count), (&None, 20));
    }

    #[test]
    fn what_is_heavy_is_folded_earlier() {
        let mut model = Model::default();
        for id in 1..=40 {
            let mut incident = samples::race();
            incident.holders[0].argv = Some(vec!["x".repeat(16 << 20)]);
            incident.id = id;
            model.add(incident.into(), |_| true);
        }
        assert_eq!((model.incidents, model.kept()), (40, 15));
    }

    #[test]
    fn what_passes_is_counted_whatever_is_folded() {
        let mut model = Model::default();
        let even = |incident: &Incident| incident.id.is_multiple_of(2);
        for id in 1..=9 {
            model.add(race(id, "/tmp/often-7"), even);
        }
        let group = |model: &Model| {
            let group = model.group(0).unwrap();
            assert_eq!(group.all_passing().count(), group.passing());
            (group.passing(), group.latest())
        };
        assert_eq!(group(&model), (4, Some(7)));
        model.sift(|incident| incident.id == 1);
        assert_eq!(group(&model), (1, Some(0)));
        for id in 10..=KEPT as u64 + 1 {
            model.add(race(id, "/tmp/often-7"), |_| false);
        }
        assert_eq!(group(&model), (0, None));
        model.sift(even);
        assert_eq!(group(&model), (KEPT / 2, Some(KEPT as u64 - 1)));
    }
}
