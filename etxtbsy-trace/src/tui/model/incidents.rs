//! The received incidents: counts of all, and the details of the latest ones.

use super::{
    near::Near,
    rate::{Axis, Rate},
    search::Search,
    statistics::Statistics,
};
use crate::{
    analysis::{
        group::{Cause, GROUPS, Tally},
        near_miss::as_incident,
    },
    event::{Incident, Line, Meta, NearMiss, Summary, weight::incident as weight},
};
use std::collections::{HashMap, VecDeque};

/// The most incidents in memory; older ones are only counted.
const KEPT: usize = 10_000;
/// The most bytes that they take, approximately.
const BYTES: usize = 256 << 20;

/// Incidents that are counted but not shown, because the view was too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// The number of incidents.
    pub incidents: u64,
    /// The complete ones among them.
    pub explained: u64,
    /// The number of near misses.
    pub near_misses: u64,
    /// The number of losses.
    pub lost: u64,
}

/// An incident in memory.
pub struct Kept {
    /// The number of incidents and near misses before it. (Its `id` is unique only within one recording.)
    pub number: u64,
    /// The incident, or a near miss in its shape.
    pub incident: Box<Incident>,
    /// What a near miss has besides.
    pub near: Option<Near>,
    passes: bool,
    found: bool,
}

impl Kept {
    /// Whether the search finds it.
    #[must_use]
    pub fn is_found(&self) -> bool {
        self.found
    }

    /// Its line, as it was received.
    #[must_use]
    pub fn line(&self) -> Line {
        let Some(Near { margin_ns, count }) = self.near else {
            return Line::Incident(self.incident.clone());
        };
        let Incident { time, time_ns, path, path_b64, file, victim, holders, run, .. } =
            Incident::clone(&self.incident);
        Line::NearMiss(Box::new(NearMiss {
            time,
            time_ns,
            path,
            path_b64,
            file,
            victim,
            holders,
            margin_ns,
            count,
            run,
        }))
    }
}

/// The incidents of one group.
pub struct Group {
    /// What they have in common; `None` for all incidents beyond [`GROUPS`] groups.
    pub cause: Option<Cause>,
    /// The counts.
    pub tally: Tally,
    /// Their number over time.
    pub rate: Rate,
    /// The incidents in memory, the newest last; never empty.
    kept: VecDeque<Kept>,
    /// How many of them pass the filter.
    passing: usize,
    /// The number of the latest one that passes, if any.
    latest: u64,
}

impl Group {
    /// An empty group whose first incident is `id`.
    fn new(cause: Option<Cause>, id: u64) -> Self {
        let (tally, rate) = (Tally::new(id), Rate::default());
        Self { cause, tally, rate, kept: VecDeque::new(), passing: 0, latest: 0 }
    }

    /// How many of the incidents in memory pass the filter.
    #[must_use]
    pub fn passing(&self) -> usize {
        self.passing
    }

    /// The number of the latest incident that passes the filter.
    #[must_use]
    pub fn latest(&self) -> Option<u64> {
        (self.passing > 0).then_some(self.latest)
    }

    /// The order of groups in which the view follows the newest: near misses come before any incident.
    #[must_use]
    pub fn newest(&self) -> (bool, Option<u64>) {
        (self.kept.back().is_some_and(|kept| kept.near.is_none()), self.latest())
    }

    /// How many incidents its row counts: all, or those in memory that pass the filter.
    #[must_use]
    pub fn count(&self) -> u64 {
        if self.passing == self.kept.len() { self.tally.count } else { self.passing as u64 }
    }

    /// The incidents in memory, the oldest first.
    #[must_use]
    pub fn all(&self) -> &VecDeque<Kept> {
        &self.kept
    }

    /// The incidents in memory that pass the filter.
    #[must_use]
    pub fn all_passing(&self) -> impl DoubleEndedIterator<Item = &Kept> {
        self.kept.iter().filter(|kept| kept.passes)
    }

    /// The incident with that number, if it is still in memory.
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

/// All that the view received.
#[derive(Default)]
pub struct Model {
    /// The first line.
    pub meta: Option<Meta>,
    /// The last one.
    pub summary: Option<Summary>,
    /// The number of losses.
    pub lost: u64,
    /// The number of failed calls that are only counted.
    pub refusals: u64,
    /// The number of incidents.
    pub incidents: u64,
    /// The number of execs that succeeded, but could have failed.
    pub near_misses: u64,
    /// The complete ones among them.
    pub explained: u64,
    /// The time of the latest failure.
    pub latest_ns: Option<u64>,
    /// Totals of all incidents.
    pub statistics: Statistics,
    /// The text that is searched for.
    search: Search,
    /// The time axis of the groups' rates.
    axis: Option<Axis>,
    /// The groups, in the order of their first incidents.
    groups: Vec<Group>,
    places: HashMap<Option<Cause>, usize>,
    /// The group of each incident in memory, the oldest first.
    order: VecDeque<usize>,
    /// How many incidents and near misses have arrived.
    arrived: u64,
    /// How many lines had the near misses.
    near_miss_lines: u64,
    /// The approximate bytes of these incidents.
    bytes: usize,
}

impl Model {
    /// Adds a line; `passes` is the filter.
    pub fn add(&mut self, line: Line, passes: impl FnOnce(&Incident) -> bool) {
        match line {
            Line::Meta(meta) => self.meta = Some(meta),
            Line::Incident(incident) => {
                let passes = passes(&incident);
                self.incidents += 1;
                self.explained += u64::from(incident.complete);
                self.statistics.add(&incident);
                self.keep(incident, None, passes);
            }
            Line::Refusal(refusal) => {
                self.refusals = self.refusals.saturating_add(refusal.count);
            }
            Line::NearMiss(near) => {
                let extra = Near { margin_ns: near.margin_ns, count: near.count };
                let incident = Box::new(as_incident(*near));
                let passes = passes(&incident);
                self.near_misses = self.near_misses.saturating_add(extra.count);
                self.near_miss_lines += 1;
                self.keep(incident, Some(extra), passes);
            }
            Line::Lost(lost) => self.lost = self.lost.saturating_add(lost.count),
            Line::Summary(summary) => self.summary = Some(summary),
        }
    }

    /// Counts incidents that the view was too slow for.
    pub fn skip(&mut self, Skipped { incidents, explained, near_misses, lost }: Skipped) {
        self.incidents += incidents;
        self.explained += explained;
        self.near_misses = self.near_misses.saturating_add(near_misses);
        self.lost = self.lost.saturating_add(lost);
    }

    fn keep(&mut self, incident: Box<Incident>, near: Option<Near>, passes: bool) {
        let number = self.arrived;
        self.arrived += 1;
        self.latest_ns = self.latest_ns.max(Some(incident.time_ns));
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
        let like_it = near.map_or(0, |near| near.count.saturating_sub(1));
        group.tally.count = group.tally.count.saturating_add(like_it);
        self.bytes += weight(&incident);
        let found = self.search.finds(&incident, near);
        group.push(Kept { number, incident, near, passes, found });
        self.order.push_back(place);
        self.evict();
    }

    /// Removes the oldest incidents, but keeps at least one of each group.
    fn evict(&mut self) {
        while (self.order.len() > KEPT || self.bytes > BYTES)
            && self.order.len() > self.groups.len()
        {
            let Some(place) = self.order.pop_front() else { break };
            let group = &mut self.groups[place];
            if group.kept.len() == 1 {
                self.order.push_back(place);
            } else if let Some(evicted) = group.kept.pop_front() {
                group.passing -= usize::from(evicted.passes);
                self.bytes -= weight(&evicted.incident);
            }
        }
    }

    /// Applies another filter to all incidents in memory.
    pub fn apply_filter(&mut self, mut passes: impl FnMut(&Incident) -> bool) {
        for group in &mut self.groups {
            group.passing = 0;
            for mut kept in std::mem::take(&mut group.kept) {
                kept.passes = passes(&kept.incident);
                group.push(kept);
            }
        }
    }

    /// What is searched for.
    #[must_use]
    pub fn search(&self) -> &Search {
        &self.search
    }

    /// Searches for another text.
    pub fn search_for(&mut self, text: &str) {
        self.search.set(text);
        for kept in self.groups.iter_mut().flat_map(|group| &mut group.kept) {
            kept.found = self.search.finds(&kept.incident, kept.near);
        }
    }

    /// How many lines of incidents and near misses there were, in memory or not.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.incidents + self.near_miss_lines
    }

    /// The number of incidents and near misses in memory.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.order.len()
    }

    /// The group at a place.
    #[must_use]
    pub fn group(&self, place: usize) -> Option<&Group> {
        self.groups.get(place)
    }

    /// All groups, in the order of their first incidents.
    #[must_use]
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// The bar of a group's rate until a time: [`Rate::bar`].
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
        for line in samples::no_near_misses() {
            model.add(line, |_| true);
        }
        assert_eq!((model.incidents, model.explained, model.lost), (6, 4, 3));
        let ids: Vec<_> = model.groups().iter().map(|group| group.tally.ids).collect();
        // The first and the fifth differ only in how many holders they have.
        assert_eq!(ids, [(1, 5), (2, 2), (3, 3), (4, 4), (6, 6)]);
    }

    #[test]
    fn near_misses_have_groups_of_their_own_and_are_no_incidents() {
        let mut model = Model::default();
        for near in [samples::near_miss(), NearMiss { count: 41, ..samples::near_miss() }] {
            model.add(Line::NearMiss(Box::new(near)), |_| true);
        }
        model.add(race(1, "/tmp/often-7"), |_| true);
        assert_eq!((model.incidents, model.near_misses, model.groups().len()), (1, 42, 2));
        assert_eq!(model.statistics.tally.count, 1);
        let group = model.group(0).unwrap();
        assert_eq!((group.count(), group.newest().0), (42, false));
        let lines: Vec<Line> = group.all().iter().map(Kept::line).collect();
        assert_eq!(lines[0], Line::NearMiss(Box::new(samples::near_miss())));
    }

    #[test]
    fn the_oldest_incidents_are_evicted_but_each_group_keeps_one() {
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
    fn groups_beyond_the_limit_share_one_group() {
        let mut model = Model::default();
        for id in 0..GROUPS as u64 + 20 {
            // Only letters, because groups ignore digits.
            let name: String = id.to_string().bytes().map(|b| char::from(b + 55)).collect();
            model.add(race(id + 1, &format!("/{name}/tool")), |_| true);
        }
        assert_eq!(model.groups().len(), GROUPS + 1);
        let other = model.group(GROUPS).unwrap();
        assert_eq!((&other.cause, other.tally.count), (&None, 20));
    }

    #[test]
    fn large_incidents_are_evicted_earlier() {
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
    fn passing_incidents_are_counted_across_evictions() {
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
        model.apply_filter(|incident| incident.id == 1);
        assert_eq!(group(&model), (1, Some(0)));
        for id in 10..=KEPT as u64 + 1 {
            model.add(race(id, "/tmp/often-7"), |_| false);
        }
        assert_eq!(group(&model), (0, None));
        model.apply_filter(even);
        assert_eq!(group(&model), (KEPT / 2, Some(KEPT as u64 - 1)));
    }
}
