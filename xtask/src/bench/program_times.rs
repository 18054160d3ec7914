//! What the tracer's programs take in each operation, by the kernel's statistics.

use std::{collections::BTreeMap, mem};

use anyhow::Result;

use super::{
    condition::{Condition, PerCondition},
    operation::Operation,
    programs::{self, Statistics},
    sample::{self, Spread, time},
    tracer::Tracer,
    worker::Worker,
};
use crate::table::Table;

/// The times of the programs in one operation, by the names of the programs.
type Times = BTreeMap<String, PerCall>;

/// What a program takes.
#[derive(Clone, Copy, Default)]
struct PerCall {
    /// How often it runs in a call.
    runs: f64,
    /// How long it runs in a call.
    nanoseconds: f64,
}

/// The measurements of some rounds.
pub(super) struct ProgramTimes {
    operations: Vec<Operation>,
    /// The rounds of each operation.
    measured: PerCondition<Vec<Vec<Times>>>,
}

impl ProgramTimes {
    pub(super) fn new() -> Self {
        let operations = Operation::observed();
        let mut measured = PerCondition::<Vec<Vec<Times>>>::default();
        for condition in Condition::traced(true) {
            measured[*condition].resize_with(operations.len(), Vec::new);
        }
        Self { operations, measured }
    }

    /// Measures a round with a tracer that runs. `worker` starts a process for an operation.
    pub(super) fn add(
        &mut self,
        condition: Condition,
        tracer: &Tracer,
        worker: impl Fn(Operation) -> Result<Worker>,
    ) -> Result<()> {
        let names = programs::names()?;
        let _counting = programs::enable_statistics()?;
        let mut statistics = Statistics::open(tracer.pid())?;
        for (operation, rounds) in self.operations.iter().zip(&mut self.measured[condition]) {
            let worker = worker(*operation)?;
            let before = statistics.runs()?;
            let (worker, measured) = worker.measure()?;
            let after = statistics.runs()?;
            worker.end()?;
            let calls = measured.calls as f64;
            let mut times = Times::new();
            for (tag, after) in after {
                let spent = after.since(before.get(&tag).copied().unwrap_or_default());
                let name = names.get(&tag).unwrap_or(&tag);
                let sum = times.entry(name.clone()).or_default();
                sum.runs += spent.runs as f64 / calls;
                sum.nanoseconds += spent.nanoseconds as f64 / calls;
            }
            rounds.push(times);
        }
        Ok(())
    }

    pub(super) fn table(&self, against: bool) -> Table {
        let mut head = vec!["time of programs in", "program", "runs a call", "a run", "a call"];
        head.extend(against.then_some(["a call, before", "now:before"]).into_iter().flatten());
        let mut table = Table::new(head);
        for (at, operation) in self.operations.iter().enumerate() {
            let mut name = operation.to_string();
            let now = medians(&self.measured[Condition::Now][at]);
            let before = medians(&self.measured[Condition::Before][at]);
            for row in rows(&now, &before) {
                let mut cells = vec![mem::take(&mut name), row.program];
                cells.extend([
                    row.now.map_or_else(String::new, |it| format!("{:.1}", it.runs)),
                    row.now.map_or_else(String::new, |it| time(it.nanoseconds / it.runs)),
                    row.now.map_or_else(String::new, |it| time(it.nanoseconds)),
                ]);
                if against {
                    let ratio = row
                        .now
                        .zip(row.before)
                        .map(|(now, before)| sample::ratio(now.nanoseconds / before.nanoseconds));
                    cells.push(row.before.map_or_else(String::new, |it| time(it.nanoseconds)));
                    cells.push(ratio.unwrap_or_default());
                }
                table.row(cells);
            }
        }
        table
    }
}

/// The times of one program, if it runs in the operation.
struct Row {
    program: String,
    now: Option<PerCall>,
    before: Option<PerCall>,
}

/// The rows of an operation: all programs together, then each, the one that takes longest first.
fn rows(now: &Times, before: &Times) -> Vec<Row> {
    let mut rows: Vec<Row> = now
        .keys()
        .chain(before.keys().filter(|name| !now.contains_key(*name)))
        .map(|name| {
            let of = |times: &Times| times.get(name).copied().filter(|it| it.runs > 0.0);
            Row { program: format!("`{name}`"), now: of(now), before: of(before) }
        })
        .filter(|row| [row.now, row.before].iter().flatten().any(PerCall::is_of_operation))
        .collect();
    rows.sort_by(|a, b| b.nanoseconds().total_cmp(&a.nanoseconds()));
    let sum = |of: fn(&Row) -> Option<PerCall>| {
        rows.iter().filter_map(of).reduce(|a, b| PerCall {
            runs: a.runs + b.runs,
            nanoseconds: a.nanoseconds + b.nanoseconds,
        })
    };
    let all =
        Row { program: "all".to_owned(), now: sum(|row| row.now), before: sum(|row| row.before) };
    if rows.len() > 1 {
        rows.insert(0, all);
    }
    rows
}

impl Row {
    fn nanoseconds(&self) -> f64 {
        self.now.or(self.before).map_or(0.0, |it| it.nanoseconds)
    }
}

impl PerCall {
    /// Whether the operation makes the program run. Fewer runs come from other processes on this machine.
    fn is_of_operation(&self) -> bool {
        self.runs >= 0.5
    }
}

/// The median of each program's times.
fn medians(rounds: &[Times]) -> Times {
    let names = rounds.iter().flat_map(BTreeMap::keys);
    names
        .map(|name| {
            let of = |value: fn(PerCall) -> f64| {
                let values =
                    rounds.iter().map(|it| value(it.get(name).copied().unwrap_or_default()));
                Spread::of(&values.collect::<Vec<_>>()).median
            };
            let median = PerCall { runs: of(|it| it.runs), nanoseconds: of(|it| it.nanoseconds) };
            (name.clone(), median)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times<const N: usize>(all: [(&str, f64, f64); N]) -> Times {
        all.map(|(name, runs, nanoseconds)| (name.to_owned(), PerCall { runs, nanoseconds })).into()
    }

    fn shown(rows: &[Row]) -> Vec<String> {
        let nanoseconds = |it: Option<PerCall>| it.map(|it| it.nanoseconds);
        rows.iter()
            .map(|it| {
                format!("{} {:?} {:?}", it.program, nanoseconds(it.now), nanoseconds(it.before))
            })
            .collect()
    }

    #[test]
    fn medians_are_taken_of_each_program_over_the_rounds() {
        let rounds = [
            times([("opened", 1.0, 100.0)]),
            times([("opened", 1.0, 900.0), ("forked", 3.0, 30.0)]),
            times([("opened", 2.0, 200.0), ("forked", 1.0, 10.0)]),
        ];
        let medians = medians(&rounds);
        assert_eq!((medians["opened"].runs, medians["opened"].nanoseconds), (1.0, 200.0));
        assert_eq!((medians["forked"].runs, medians["forked"].nanoseconds), (1.0, 10.0));
    }

    #[test]
    fn programs_are_listed_after_their_sum_and_the_longest_first() {
        let now = times([("closing", 1.0, 10.0), ("opened", 1.0, 30.0), ("forked", 0.1, 99.0)]);
        let before = times([("dup", 1.0, 20.0), ("opened", 1.0, 40.0)]);
        assert_eq!(
            shown(&rows(&now, &before)),
            [
                "all Some(40.0) Some(60.0)",
                "`opened` Some(30.0) Some(40.0)",
                "`dup` None Some(20.0)",
                "`closing` Some(10.0) None",
            ]
        );
    }

    #[test]
    fn one_program_needs_no_sum() {
        let rows = rows(&times([("opened", 1.0, 30.0)]), &Times::new());
        assert_eq!(shown(&rows), ["`opened` Some(30.0) None"]);
    }
}
