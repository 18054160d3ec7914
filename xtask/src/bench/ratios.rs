//! The tables that compare the blocks of all conditions.

use super::{
    block::Block,
    comparison::{Comparison, Kind},
    condition::{Condition, PerCondition},
    operation::Operation,
    race::{self, Race},
    sample::count,
};
use crate::table::Table;

/// `floor` has the times of a call that is not traced while perf counts another one, in nanoseconds.
pub(super) fn tables(
    against: bool,
    blocks: &PerCondition<Vec<Block>>,
    floor: &[f64],
) -> Vec<Table> {
    let mut tables = vec![cpu_times(against, blocks, floor)];
    let windows = blocks.map(|of| of.iter().filter_map(|it| it.window).collect::<Vec<_>>());
    if !windows[Condition::Without].is_empty() {
        tables.push(window(against, &windows));
    }
    let races = blocks.map(|of| of.iter().filter_map(|it| it.race).collect::<Vec<_>>());
    if !races[Condition::Without].is_empty() {
        tables.push(race(against, &races));
    }
    tables
}

fn cpu_times(against: bool, blocks: &PerCondition<Vec<Block>>, floor: &[f64]) -> Table {
    let mut table = Comparison::new("CPU time of", Kind::Added, against);
    for (index, operation) in Operation::paired().iter().enumerate() {
        let times = blocks.map(|of| of.iter().map(|it| it.operations[index]).collect());
        table.times(operation.to_string(), &times);
        if operation.word == Operation::NULL_CALL.word && !floor.is_empty() {
            let mut perf = PerCondition::<Vec<f64>>::default();
            perf[Condition::Without].clone_from(&times[Condition::Without]);
            perf[Condition::Now] = floor.to_vec();
            table.times("the same, with perf counting another call instead".into(), &perf);
        }
    }
    table.into()
}

fn window(against: bool, windows: &PerCondition<Vec<f64>>) -> Table {
    let mut table = Comparison::new("as forks see it", Kind::Quartiles, against);
    table.times(Operation::WINDOW.to_string(), windows);
    table.into()
}

fn race(against: bool, races: &PerCondition<Vec<Race>>) -> Table {
    let mut table = Comparison::new("golang/go#22315", Kind::Medians, against);
    let speeds = races.map(|of| of.iter().map(Race::per_second).collect());
    table.row("attempts a second".into(), &speeds, count);
    table.texts(
        "failures of attempts",
        |of| Race::sum(&races[of]).to_string(),
        |other| race::risk_ratio(&races[other], &races[Condition::Now]),
    );
    table.into()
}
