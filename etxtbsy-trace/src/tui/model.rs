//! What came in: counts of everything, and the details of the latest incidents.

use super::feed::Skipped;
use crate::{
    lines::{Incident, Line, Meta, Summary},
    output::story::{STORIES, Story, Tally},
};
use std::collections::{HashMap, VecDeque};

/// How many incidents are kept whole; of those before only the counts are.
const KEPT: usize = 10_000;

/// The incidents of one story.
pub struct Group {
    /// The story; `None` for all those beyond the ones told apart.
    pub story: Option<Story>,
    /// What is counted.
    pub tally: Tally,
    /// The latest, the newest last; never empty.
    pub kept: VecDeque<Box<Incident>>,
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
    /// How many incidents there were.
    pub incidents: u64,
    /// How many of them are complete.
    pub explained: u64,
    /// When the latest call failed.
    pub latest_ns: Option<u64>,
    /// The stories, in the order they were first seen.
    groups: Vec<Group>,
    places: HashMap<Option<Story>, usize>,
    /// The group of each incident that is kept, the oldest first.
    order: VecDeque<usize>,
}

impl Model {
    /// Takes a line.
    pub fn add(&mut self, line: Line) {
        match line {
            Line::Meta(meta) => self.meta = Some(meta),
            Line::Incident(incident) => self.incident(incident),
            Line::Lost(lost) => self.lost += lost.count,
            Line::Summary(summary) => self.summary = Some(summary),
        }
    }

    /// Counts incidents that there is no room for.
    pub fn skip(&mut self, Skipped { incidents, explained, lost }: Skipped) {
        self.incidents += incidents;
        self.explained += explained;
        self.lost += lost;
    }

    fn incident(&mut self, incident: Box<Incident>) {
        self.incidents += 1;
        self.explained += u64::from(incident.complete);
        self.latest_ns = self.latest_ns.max(Some(incident.time_ns));
        let mut story = Some(Story::of(&incident));
        if self.groups.len() >= STORIES && !self.places.contains_key(&story) {
            story = None;
        }
        let place = *self.places.entry(story.clone()).or_insert_with(|| {
            let tally = Tally::new(incident.id);
            self.groups.push(Group { story, tally, kept: VecDeque::new() });
            self.groups.len() - 1
        });
        let group = &mut self.groups[place];
        group.tally.add(&incident);
        group.kept.push_back(incident);
        self.order.push_back(place);
        self.fold();
    }

    /// Lets go of the oldest, but not of the last one of a story.
    fn fold(&mut self) {
        while self.order.len() > KEPT {
            let Some(place) = self.order.pop_front() else { break };
            let kept = &mut self.groups[place].kept;
            if kept.len() > 1 {
                kept.pop_front();
            } else {
                self.order.push_back(place);
            }
        }
    }

    /// The group at a place.
    #[must_use]
    pub fn group(&self, place: usize) -> Option<&Group> {
        self.groups.get(place)
    }

    /// The places of the groups, the one with the newest incident first.
    #[must_use]
    pub fn newest_first(&self) -> Vec<usize> {
        let mut places: Vec<usize> = (0..self.groups.len()).collect();
        places.sort_by_key(|place| std::cmp::Reverse(self.groups[*place].tally.ids.1));
        places
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
    fn incidents_are_grouped_by_story_the_newest_first() {
        let mut model = Model::default();
        for line in samples::every_line() {
            model.add(line);
        }
        assert_eq!((model.incidents, model.explained, model.lost), (6, 4, 3));
        let ids: Vec<_> = model
            .newest_first()
            .into_iter()
            .map(|place| model.group(place).unwrap().tally.ids)
            .collect();
        // The first and the fifth differ only in how many holders they have.
        assert_eq!(ids, [(6, 6), (1, 5), (4, 4), (3, 3), (2, 2)]);
    }

    #[test]
    fn the_oldest_are_folded_into_counts_but_each_story_keeps_one() {
        let mut model = Model::default();
        model.add(race(1, "/rare"));
        let many = KEPT as u64 + 500;
        for id in 2..=many {
            model.add(race(id, "/tmp/often-7"));
        }
        let (rare, often) = (model.group(0).unwrap(), model.group(1).unwrap());
        assert_eq!((rare.kept.len(), rare.tally.count), (1, 1));
        assert_eq!((often.kept.len(), often.tally.count), (KEPT - 1, many - 1));
        assert_eq!(often.kept.back().map(|incident| incident.id), Some(many));
        assert_eq!(model.incidents, many);
    }

    #[test]
    fn stories_beyond_the_bound_share_a_group() {
        let mut model = Model::default();
        for id in 0..STORIES as u64 + 20 {
            // Letters only: digits would be folded.
            let name: String = id.to_string().bytes().map(|b| char::from(b + 55)).collect();
            model.add(race(id + 1, &format!("/{name}")));
        }
        assert_eq!(model.newest_first().len(), STORIES + 1);
        let other = model.group(STORIES).unwrap();
        assert_eq!((&other.story, other.tally.count), (&None, 20));
    }
}
