//! In which order the groups stand.

use crate::event::VerdictKind;
use crate::tui::model::incidents::Group;
use std::cmp::Ordering;

/// By what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The latest incident.
    #[default]
    Newest,
    /// How many there are.
    Count,
    /// The longest wait; what is still held is longer than all.
    Wait,
    /// What it comes to.
    Verdict,
    /// The busy file.
    Path,
}

/// An order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub by: By,
    /// Whether the other way round.
    pub inverted: bool,
}

impl Order {
    /// Goes on to the next one.
    pub fn next(&mut self) {
        self.by = match self.by {
            By::Newest => By::Count,
            By::Count => By::Wait,
            By::Wait => By::Verdict,
            By::Verdict => By::Path,
            By::Path => By::Newest,
        };
    }

    /// What stands first.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.by, self.inverted) {
            (By::Newest, false) => "newest first",
            (By::Newest, true) => "oldest first",
            (By::Count, false) => "most first",
            (By::Count, true) => "fewest first",
            (By::Wait, false) => "longest wait first",
            (By::Wait, true) => "shortest wait first",
            (By::Verdict, false) => "by verdict",
            (By::Verdict, true) => "by verdict, inverted",
            (By::Path, false) => "by path",
            (By::Path, true) => "by path, inverted",
        }
    }

    /// Whether the first group stands before the second; among equals, the newest is first.
    #[must_use]
    pub fn compare(self, a: &Group, b: &Group) -> Ordering {
        let newest = || b.latest().cmp(&a.latest());
        let order = match self.by {
            By::Newest => newest(),
            By::Count => b.passing().cmp(&a.passing()),
            By::Wait => longest(b).cmp(&longest(a)),
            By::Verdict => verdict(a).cmp(&verdict(b)),
            By::Path => path(a).cmp(&path(b)),
        };
        if self.inverted { order.reverse() } else { order }.then_with(newest)
    }
}

/// What a group is sorted by in the order of waits.
fn longest(group: &Group) -> (bool, Option<u64>) {
    (group.tally.endless > 0, group.tally.longest())
}

/// What a group is sorted by in the order of verdicts; that of all other groups comes last.
fn verdict(group: &Group) -> (bool, Option<VerdictKind>) {
    let verdict = group.cause.as_ref().map(|cause| cause.verdict);
    (verdict.is_none(), verdict)
}

/// What a group is sorted by in the order of paths; what has none comes last.
fn path(group: &Group) -> (bool, Option<String>) {
    let path = group.cause.as_ref().and_then(|_| group.tally.file.text());
    (path.is_none(), path)
}
