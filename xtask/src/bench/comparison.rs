//! Tables that compare measurements: without a tracer, with the build from before, with the one of now.

use super::{
    condition::{Condition, PerCondition},
    sample::{self, Spread, time},
};
use crate::table::Table;

/// A table of times or speeds, one row for each thing that is measured.
pub(super) struct Comparison {
    table: Table,
    kind: Kind,
    against: bool,
}

/// What a row shows beside the ratio.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// The medians, and what the tracer adds.
    Added,
    /// The medians.
    Medians,
    /// The medians with their quartiles.
    Quartiles,
}

impl Comparison {
    pub(super) fn new(of: &str, kind: Kind, against: bool) -> Self {
        let head: &[&str] = match (kind, against) {
            (Kind::Added, false) => &["without", "with", "added", "ratio (quartiles)"],
            (Kind::Added, true) => &["without", "before (added)", "now (added)"],
            (Kind::Medians, false) => &["without", "with", "ratio (quartiles)"],
            (Kind::Medians, true) => &["without", "before", "now"],
            (Kind::Quartiles, false) => {
                &["without (quartiles)", "with (quartiles)", "ratio (quartiles)"]
            }
            (Kind::Quartiles, true) => {
                &["without (quartiles)", "before (quartiles)", "now (quartiles)"]
            }
        };
        let ratios: &[&str] =
            if against { &["now:without (quartiles)", "now:before (quartiles)"] } else { &[] };
        let table = Table::new([of].into_iter().chain([head, ratios].concat()));
        Self { table, kind, against }
    }

    /// Adds a row of times, in nanoseconds. One measurement of each condition makes a pair.
    pub(super) fn times(&mut self, name: String, measured: &PerCondition<Vec<f64>>) {
        self.row(name, measured, time);
    }

    /// Adds a row. An empty list stands for no measurement.
    pub(super) fn row(
        &mut self,
        name: String,
        measured: &PerCondition<Vec<f64>>,
        show: fn(f64) -> String,
    ) {
        let without = &measured[Condition::Without];
        let mut cells = vec![name, self.value(without, show)];
        for condition in Condition::traced(self.against) {
            let with = &measured[*condition];
            let added = optional(with, || {
                show(Spread::of_pairs(without, with, |without, with| with - without).median)
            });
            match (self.kind, self.against) {
                (Kind::Medians | Kind::Quartiles, _) => cells.push(self.value(with, show)),
                (Kind::Added, false) => cells.extend([self.value(with, show), added]),
                (Kind::Added, true) => {
                    cells.push(optional(with, || format!("{} ({added})", self.value(with, show))));
                }
            }
        }
        let now = &measured[Condition::Now];
        cells.push(ratio(without, now));
        if self.against {
            cells.push(ratio(&measured[Condition::Before], now));
        }
        self.table.row(cells);
    }

    /// Adds a row of texts for the conditions, and of how each of the others compares with the one of now.
    pub(super) fn texts(
        &mut self,
        name: &str,
        text: impl Fn(Condition) -> String,
        compared: impl Fn(Condition) -> String,
    ) {
        let conditions = Condition::all(self.against);
        let texts = conditions.iter().map(|condition| text(*condition));
        let others = conditions.iter().filter(|condition| **condition != Condition::Now);
        let compared = others.map(|other| compared(*other));
        self.table.row([name.to_owned()].into_iter().chain(texts).chain(compared));
    }

    fn value(&self, values: &[f64], show: fn(f64) -> String) -> String {
        optional(values, || match self.kind {
            Kind::Added | Kind::Medians => show(Spread::of(values).median),
            Kind::Quartiles => Spread::of(values).with(show),
        })
    }
}

impl From<Comparison> for Table {
    fn from(comparison: Comparison) -> Self {
        comparison.table
    }
}

/// The median of the pairs' ratios.
fn ratio(of: &[f64], to: &[f64]) -> String {
    optional(of, || optional(to, || Spread::of_pairs(of, to, |a, b| b / a).with(sample::ratio)))
}

fn optional(values: &[f64], shown: impl FnOnce() -> String) -> String {
    if values.is_empty() { String::new() } else { shown() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(before: &[f64]) -> PerCondition<Vec<f64>> {
        let mut measured = PerCondition::default();
        measured[Condition::Without] = vec![100.0, 200.0];
        measured[Condition::Before] = before.to_vec();
        measured[Condition::Now] = vec![150.0, 250.0];
        measured
    }

    fn shown(kind: Kind, against: bool, before: &[f64]) -> String {
        let mut table = Comparison::new("CPU time of", kind, against);
        table.times("open".into(), &measured(before));
        let shown = Table::from(table).shown(false);
        let row = shown.lines().nth(1).unwrap();
        row.split("  ").map(str::trim).filter(|it| !it.is_empty()).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn the_build_of_now_is_compared_with_no_tracer() {
        assert_eq!(
            shown(Kind::Added, false, &[]),
            "open | 150 ns | 200 ns | 50 ns | 1.38 (1.31–1.44)"
        );
        assert_eq!(
            shown(Kind::Quartiles, false, &[]),
            "open | 150 ns (125 ns–175 ns) | 200 ns (175 ns–225 ns) | 1.38 (1.31–1.44)"
        );
    }

    #[test]
    fn the_build_of_now_is_compared_with_the_one_from_before() {
        assert_eq!(
            shown(Kind::Added, true, &[300.0, 500.0]),
            "open | 150 ns | 400 ns (250 ns) | 200 ns (50 ns) | 1.38 (1.31–1.44) | 0.50 (0.50–0.50)"
        );
    }

    #[test]
    fn cells_of_what_is_not_measured_stay_empty() {
        assert_eq!(
            shown(Kind::Added, true, &[]),
            "open | 150 ns | 200 ns (50 ns) | 1.38 (1.31–1.44)"
        );
    }
}
