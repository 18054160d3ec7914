//! The report: everything that any format shows, in bounded memory.

use super::{
    group::{Group, Origin},
    runs::Runs,
};
use crate::{
    analysis::{group::Groups, verdict::ChangeFirst},
    event::Line,
    output::{look::Look, near_miss},
};

/// What was read from some recordings.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The names of the files, not escaped.
    pub files: Vec<String>,
    /// What was traced.
    pub runs: Runs,
    /// The groups of incidents.
    pub groups: Groups<Group>,
    /// How many incidents there are.
    pub incidents: u64,
    /// How many of them are complete.
    pub explained: u64,
    /// How many of them the victim repaired itself.
    pub repaired: u64,
    /// The execs that succeeded, but could have failed.
    pub(super) near_misses: near_miss::Tally,
    change_first: ChangeFirst,
    /// What was skipped while reading, in sentences.
    pub notes: Vec<String>,
}

/// A report, and that of a baseline to compare it with.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The report.
    pub now: Report,
    /// The baseline.
    pub before: Option<Report>,
}

impl Document {
    /// What was skipped while reading, in sentences.
    pub fn notes(&self) -> impl Iterator<Item = &String> {
        self.now.notes.iter().chain(self.before.iter().flat_map(|before| &before.notes))
    }
}

impl Report {
    /// The next lines come from that file.
    pub fn file(&mut self, name: &str) {
        self.files.push(name.to_owned());
        self.runs.file(self.current());
    }

    /// The index of the file that lines come from.
    fn current(&self) -> usize {
        self.files.len().saturating_sub(1)
    }

    /// Adds a line.
    pub fn add(&mut self, line: &Line) {
        match line {
            Line::Meta(meta) => self.runs.begin(self.current(), meta),
            Line::Incident(incident) => {
                let run = self.runs.incident();
                self.incidents += 1;
                self.explained += u64::from(incident.complete);
                self.repaired += u64::from(incident.repaired.is_some());
                self.change_first.add(incident);
                let origin = Origin { sequence: self.incidents, file: self.current(), run };
                self.groups.add_from(incident, origin);
            }
            Line::NearMiss(near) => self.near_misses.add(near),
            Line::Refusal(refusal) => self.runs.refusal(refusal),
            Line::Lost(lost) => self.runs.lost(lost),
            Line::Summary(summary) => self.runs.end(summary),
        }
    }

    /// The near misses, a line for each kind.
    #[must_use]
    pub fn near_misses(&self) -> Vec<String> {
        self.near_misses.lines(Look::PLAIN)
    }

    /// The remedy that would fix the most incidents.
    #[must_use]
    pub fn change_first(&self) -> Option<String> {
        self.change_first.text()
    }

    /// The name of a file.
    #[must_use]
    pub fn name(&self, file: usize) -> &str {
        self.files.get(file).map_or("?", String::as_str)
    }
}
