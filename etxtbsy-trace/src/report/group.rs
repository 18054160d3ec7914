//! A group of incidents: its counts, when it was seen, and examples.

use jiff::Timestamp;

use super::{contexts::Contexts, places::Places};
use crate::{
    analysis::{
        group::{Member, Tally},
        verdict::GroupAdvice,
        wait::Wait,
    },
    event::Incident,
    output::bounds,
};

/// How many incidents of a group are kept as examples, besides the one with the longest wait.
const EXAMPLES: usize = 3;
/// The most bytes of an example, as a JSON line. Lists and texts of a longer one are cut.
const EXAMPLE_BYTES: usize = 16 << 10;

/// Where an incident comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its place among all incidents of the report.
    pub sequence: u64,
    /// The index of its file among those of the report.
    pub file: usize,
    /// The index of its run.
    pub run: usize,
}

/// An incident that is shown in full.
#[derive(Clone, Debug)]
pub struct Example {
    /// Where it comes from.
    pub origin: Origin,
    /// The incident, shortened if its line is long.
    pub incident: Box<Incident>,
}

impl Example {
    fn new(incident: &Incident, origin: Origin) -> Self {
        let mut incident = Box::new(incident.clone());
        bounds::keep_own_frames(&mut incident);
        bounds::apply_within(&mut incident, EXAMPLE_BYTES);
        Self { origin, incident }
    }
}

/// The incidents of one group.
#[derive(Clone, Debug)]
pub struct Group {
    tally: Tally,
    sequence: u64,
    /// How many victims repaired the failure themselves.
    pub repaired: u64,
    /// How many are complete but not certain: a holder is only likely.
    pub likely: u64,
    /// When the first and the last of them failed, if their times can be read.
    pub seen: Option<(Timestamp, Timestamp)>,
    /// In how many runs they were.
    pub runs: u64,
    last_run: Option<usize>,
    /// What they belong to.
    pub contexts: Contexts,
    /// Where in the code the file was opened and the holder was forked.
    pub places: Places,
    /// The first incidents, those that are explained before others.
    pub examples: Vec<Example>,
    /// The incident with the longest wait, if it is not one of the examples.
    slowest: Option<Example>,
    longest: Option<Wait>,
}

impl Member for Group {
    type Origin = Origin;

    fn new(first: &Incident, origin: Origin) -> Self {
        Self {
            tally: Tally::new(first.id),
            sequence: origin.sequence,
            repaired: 0,
            likely: 0,
            seen: None,
            runs: 0,
            last_run: None,
            contexts: Contexts::default(),
            places: Places::default(),
            examples: Vec::new(),
            slowest: None,
            longest: None,
        }
    }

    fn add(&mut self, incident: &Incident, origin: Origin) {
        self.tally.add(incident);
        self.repaired += u64::from(incident.repaired.is_some());
        self.likely += u64::from(incident.complete && !incident.certain);
        if let Ok(time) = incident.time.parse::<Timestamp>() {
            let (first, last) = self.seen.unwrap_or((time, time));
            self.seen = Some((first.min(time), last.max(time)));
        }
        if self.last_run != Some(origin.run) {
            self.last_run = Some(origin.run);
            self.runs += 1;
        }
        self.contexts.add(incident);
        self.places.add(incident);
        self.keep(incident, origin);
    }

    fn tally(&self) -> &Tally {
        &self.tally
    }

    fn order(&self) -> (u64, u64) {
        (self.sequence, 0)
    }
}

impl Group {
    /// Keeps an incident if it says more than those that are kept.
    fn keep(&mut self, incident: &Incident, origin: Origin) {
        let wait = Wait::of(incident);
        let is_slowest = self.longest.is_none_or(|longest| wait > longest);
        if is_slowest {
            self.longest = Some(wait);
            self.slowest = None;
        }
        if self.examples.len() < EXAMPLES {
            self.examples.push(Example::new(incident, origin));
        } else if incident.complete
            && let Some(worse) = self.examples.iter().position(|it| !it.incident.complete)
        {
            let worse =
                std::mem::replace(&mut self.examples[worse], Example::new(incident, origin));
            if self.slowest.is_none()
                && !is_slowest
                && Some(Wait::of(&worse.incident)) == self.longest
            {
                self.slowest = Some(worse);
            }
        } else if is_slowest {
            self.slowest = Some(Example::new(incident, origin));
        }
        // Explained ones come first, each kind in the order of the recordings.
        self.examples.sort_by_key(|it| (!it.incident.complete, it.origin.sequence));
    }

    /// What is kept in full: the examples, and the one with the longest wait.
    pub fn kept(&self) -> impl Iterator<Item = &Example> {
        self.examples.iter().chain(&self.slowest)
    }

    /// The incident with the longest wait.
    #[must_use]
    pub fn slowest(&self) -> Option<&Example> {
        self.kept().max_by_key(|it| (Wait::of(&it.incident), std::cmp::Reverse(it.origin.sequence)))
    }

    /// What helps, and what people try that does not help here. It follows from the longest wait, which
    /// rules out the most.
    #[must_use]
    pub fn advice(&self) -> (Vec<String>, Vec<String>) {
        let advice = self.slowest().map(|example| GroupAdvice::of(&example.incident));
        let GroupAdvice { helps, in_vain } = advice.unwrap_or_default();
        (helps, in_vain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn origin(sequence: u64) -> Origin {
        Origin { sequence, file: 0, run: 0 }
    }

    fn group(incidents: &[Incident]) -> Group {
        let mut group = Group::new(&incidents[0], origin(1));
        for (sequence, incident) in (1..).zip(incidents) {
            group.add(incident, origin(sequence));
        }
        group
    }

    fn sequences(group: &Group) -> (Vec<u64>, Option<u64>) {
        let examples = group.examples.iter().map(|it| it.origin.sequence).collect();
        (examples, group.slowest().map(|it| it.origin.sequence))
    }

    fn waiting(ns: i64) -> Incident {
        let mut incident = samples::race();
        incident.holders[0].released.as_mut().unwrap().after_ns = ns;
        incident
    }

    #[test]
    fn the_first_examples_and_the_slowest_incident_are_kept() {
        let incidents: Vec<Incident> = [5, 4, 3, 2, 9, 1].map(waiting).into();
        assert_eq!(sequences(&group(&incidents)), (vec![1, 2, 3], Some(5)));
        assert_eq!(group(&incidents).kept().count(), 4);
        assert_eq!(sequences(&group(&incidents[..4])), (vec![1, 2, 3], Some(1)));
    }

    #[test]
    fn explained_incidents_replace_others_as_examples() {
        let mut unclear = waiting(9);
        unclear.complete = false;
        let incidents = [unclear.clone(), unclear.clone(), waiting(1), waiting(2), waiting(3)];
        let group = group(&incidents);
        assert_eq!(sequences(&group).0, [3, 4, 5]);
        assert!(!group.slowest().unwrap().incident.complete);
    }

    #[test]
    fn advice_is_without_pids_and_separate_from_what_does_not_help() {
        let (helps, in_vain) = group(&[samples::race()]).advice();
        assert!(helps[0].starts_with("write the file in a child"), "{helps:?}");
        assert!(in_vain[0].starts_with("fsync or sync_all, rename"), "{in_vain:?}");
        assert!(!helps.iter().chain(&in_vain).any(|it| it.contains("4310")), "{helps:?}");
    }

    /// A retry would have helped the first, but not the second.
    #[test]
    fn advice_that_one_incident_refutes_is_not_given() {
        let retry = |group: &Group| group.advice().0.iter().any(|it| it.contains("retry while"));
        assert!(retry(&group(&[waiting(5)])));
        assert!(!retry(&group(&[waiting(5), waiting(3_000_000_000)])));
    }

    #[test]
    fn an_example_is_bounded() {
        let mut incident = samples::race();
        incident.holders = vec![incident.holders[0].clone(); 500];
        let group = group(&[incident]);
        assert!(group.examples[0].incident.holders.len() < 50);
        assert!(group.examples[0].incident.left_out.is_some());
    }
}
