//! The order of the groups in the list.

use crate::event::VerdictKind;
use crate::tui::model::incidents::Group;
use std::cmp::Ordering;

/// A criterion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The latest incident.
    #[default]
    Newest,
    /// The number of incidents.
    Count,
    /// The longest wait; a file that is still held counts as the longest.
    Wait,
    /// The verdict.
    Verdict,
    /// The busy file.
    Path,
}

/// An order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The criterion.
    pub by: By,
    /// Whether the order is reversed.
    pub inverted: bool,
}

impl Order {
    /// Changes to the next criterion.
    pub fn next(&mut self) {
        self.by = match self.by {
            By::Newest => By::Count,
            By::Count => By::Wait,
            By::Wait => By::Verdict,
            By::Verdict => By::Path,
            By::Path => By::Newest,
        };
    }

    /// Its name in the title of the list.
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
            (By::Verdict, true) => "by verdict, reversed",
            (By::Path, false) => "by path",
            (By::Path, true) => "by path, reversed",
        }
    }

    /// Compares two groups; of equal groups, the newest comes first.
    #[must_use]
    pub fn compare(self, a: &Group, b: &Group) -> Ordering {
        let newest = || b.latest().cmp(&a.latest());
        let order = match self.by {
            By::Newest => newest(),
            By::Count => b.count().cmp(&a.count()),
            By::Wait => longest(b).cmp(&longest(a)),
            By::Verdict => verdict(a).cmp(&verdict(b)),
            By::Path => path(a).cmp(&path(b)),
        };
        if self.inverted { order.reverse() } else { order }.then_with(newest)
    }
}

/// The key for the order of waits.
fn longest(group: &Group) -> (bool, Option<u64>) {
    (group.tally.endless > 0, group.tally.longest())
}

/// The key for the order of verdicts; the group of all other groups comes last.
fn verdict(group: &Group) -> (bool, Option<VerdictKind>) {
    let verdict = group.cause.as_ref().map(|cause| cause.verdict);
    (verdict.is_none(), verdict)
}

/// The key for the order of paths; a group without a path comes last.
fn path(group: &Group) -> (bool, Option<String>) {
    let path = group.cause.as_ref().and_then(|_| group.tally.file.text());
    (path.is_none(), path)
}
