//! The groups of a report, each next to the same group of the baseline.

use super::{group::Group, model::Document};
use crate::analysis::group::{Cause, Member as _};

/// What became of a group since the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The baseline does not have it.
    New,
    /// Only the baseline has it.
    Gone,
    /// It has more incidents than in the baseline.
    More,
    /// It has fewer.
    Fewer,
    /// It has as many.
    Same,
}

impl Change {
    /// From the numbers of incidents.
    #[must_use]
    pub fn of(before: u64, now: u64) -> Self {
        match (before, now) {
            (0, _) => Self::New,
            (_, 0) => Self::Gone,
            _ if now > before => Self::More,
            _ if now < before => Self::Fewer,
            _ => Self::Same,
        }
    }

    /// In a word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Gone => "gone",
            Self::More => "more",
            Self::Fewer => "fewer",
            Self::Same => "same",
        }
    }
}

/// A group of the report, of the baseline, or of both.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its number, from 1.
    pub number: usize,
    /// Its cause; `None` for the incidents of all groups that are not kept one by one.
    pub cause: Option<&'a Cause>,
    /// The group in the report.
    pub now: Option<&'a Group>,
    /// The group in the baseline.
    pub before: Option<&'a Group>,
    /// Whether there is a baseline.
    pub is_compared: bool,
}

impl<'a> Row<'a> {
    /// How many incidents the report and the baseline have.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        let count = |group: Option<&Group>| group.map_or(0, |group| group.tally().count);
        (count(self.now), count(self.before))
    }

    /// What became of it, if there is a baseline.
    #[must_use]
    pub fn change(&self) -> Option<Change> {
        let (now, before) = self.counts();
        self.is_compared.then(|| Change::of(before, now))
    }

    /// The group that examples and advice are taken from.
    #[must_use]
    pub fn group(&self) -> Option<&'a Group> {
        self.now.or(self.before)
    }
}

/// All groups: those of the report, the most frequent first, then those that only the baseline has.
#[must_use]
pub fn rows(document: &Document) -> Vec<Row<'_>> {
    let (now, before) = (&document.now.groups, document.before.as_ref().map(|it| &it.groups));
    let is_compared = before.is_some();
    let row = |cause, now, before| Row { number: 0, cause, now, before, is_compared };
    let mut rows: Vec<Row<'_>> = now
        .all()
        .into_iter()
        .map(|(cause, group)| row(Some(cause), Some(group), before.and_then(|it| it.of(cause))))
        .collect();
    let gone = before.map(|before| before.all()).unwrap_or_default();
    let gone = gone.into_iter().filter(|(cause, _)| now.of(cause).is_none());
    rows.extend(gone.map(|(cause, group)| row(Some(cause), None, Some(group))));
    let (other, other_before) = (now.other(), before.and_then(|it| it.other()));
    if other.is_some() || other_before.is_some() {
        rows.push(row(None, other, other_before));
    }
    for (number, row) in (1..).zip(&mut rows) {
        row.number = number;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::Incident, output::samples, report::model::Report};

    fn report(incidents: &[Incident]) -> Report {
        let mut report = Report::default();
        report.file("x");
        for incident in incidents {
            report.add(&incident.clone().into());
        }
        report
    }

    fn changes(now: &[Incident], before: &[Incident]) -> Vec<(&'static str, (u64, u64))> {
        let document = Document { now: report(now), before: Some(report(before)) };
        let rows = rows(&document);
        rows.iter().map(|row| (row.change().unwrap().word(), row.counts())).collect()
    }

    #[test]
    fn each_group_is_next_to_its_own_in_the_baseline() {
        let (race, leak, open) = (samples::race(), samples::leaked(), samples::still_open());
        assert_eq!(
            changes(
                &[race.clone(), race.clone(), leak.clone()],
                &[race.clone(), open.clone(), open.clone()]
            ),
            [("more", (2, 1)), ("new", (1, 0)), ("gone", (0, 2))]
        );
        assert_eq!(
            changes(&[race.clone(), leak.clone()], &[leak.clone(), race.clone(), race]),
            [("fewer", (1, 2)), ("same", (1, 1))]
        );
        assert_eq!(changes(&[], &[]), []);
    }

    #[test]
    fn without_a_baseline_nothing_changed() {
        let document = Document { now: report(&[samples::race()]), before: None };
        let rows = rows(&document);
        assert_eq!((rows.len(), rows[0].number, rows[0].change()), (1, 1, None));
    }
}
