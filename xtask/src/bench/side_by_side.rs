//! Compares calls, builds, test runs and the race without a tracer, with this one, and with other tools.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context as _, Result};

use super::{
    Args, Operation,
    build::{Build, BuildTimes},
    observer::Observer,
    race::{self, Race},
    sample::{self, Spread, count, time},
    tracer::Output,
    worker::measured_by,
};
use crate::{command::command, table::Table};

/// The directory of the projects, removed when dropped.
struct ProjectDir(PathBuf);

/// One round of measurements under one observer.
struct Round {
    /// Nanoseconds per call, in the order of the operations.
    operations: Vec<f64>,
    builds: Vec<BuildTimes>,
    race: Option<Race>,
}

/// Measures everything, and prints the comparison.
pub(super) fn compare(args: &Args, tracer: &Path) -> Result<()> {
    let projects = ProjectDir::new(&args.dir)?;
    let builds = Build::all(&projects.0)?;
    let observers = Observer::installed();
    let output = Output::new()?;
    for build in &builds {
        // The first build also fills caches, so it is not counted.
        build.run(Observer::Nothing)?;
    }
    let mut rounds: Vec<Vec<Round>> = observers.iter().map(|_| Vec::new()).collect();
    for pair in 0..args.pairs as usize {
        eprintln!("round {} of {}", pair + 1, args.pairs);
        for turn in 0..observers.len() {
            // The order rotates, so that a machine that gets faster or slower favours none.
            let at = (turn + pair) % observers.len();
            let watch = observers[at].watch(tracer, &output)?;
            rounds[at].push(round(args, tracer, observers[at], &builds)?);
            watch.end(&output)?;
        }
    }
    show(args, &observers, &builds, &rounds);
    Ok(())
}

fn round(args: &Args, tracer: &Path, observer: Observer, builds: &[Build]) -> Result<Round> {
    let own = env::current_exe()?;
    let measure = |operation: &Operation| {
        let worker = observer.command(command(&own));
        anyhow::Ok(measured_by(args, worker, *operation)?.nanoseconds)
    };
    let operations = Operation::BASIC.iter().map(measure).collect::<Result<_>>()?;
    let builds = builds.iter().map(|build| build.run(observer)).collect::<Result<_>>()?;
    let race = Race::run(observer.command(command(tracer)), args.race, &args.dir)?;
    Ok(Round { operations, builds, race })
}

fn show(args: &Args, observers: &[Observer], builds: &[Build], rounds: &[Vec<Round>]) {
    let names = observers.iter().map(|observer| observer.name().to_owned());
    let mut table = Table::new(["ratio (quartiles)".to_owned()].into_iter().chain(names));
    let mut row = |name: String, of: &dyn Fn(&Round) -> Option<f64>, show: fn(f64) -> String| {
        let all: Vec<Vec<f64>> =
            rounds.iter().map(|rounds| rounds.iter().filter_map(of).collect()).collect();
        if all[0].is_empty() {
            return;
        }
        let ratio = |with: &Vec<f64>| {
            Spread::of_pairs(&all[0], with, |a, b| b / a).with(sample::fine_ratio)
        };
        let first = show(Spread::of(&all[0]).median);
        table.row([name, first].into_iter().chain(all[1..].iter().map(ratio)));
    };
    for (at, operation) in Operation::BASIC.iter().enumerate() {
        row(format!("{operation}: CPU time"), &|round| Some(round.operations[at]), time);
    }
    for (at, build) in builds.iter().enumerate() {
        row(format!("{build}: elapsed"), &|round| Some(round.builds[at].elapsed), time);
        row(format!("{build}: CPU time"), &|round| Some(round.builds[at].cpu), time);
    }
    row(
        "golang/go#22315: attempts a second".to_owned(),
        &|round| Some(round.race?.per_second()),
        count,
    );
    println!("{}", table.shown(args.markdown));

    let races = |rounds: &Vec<Round>| rounds.iter().filter_map(|it| it.race).collect::<Vec<_>>();
    let before = races(&rounds[0]);
    if before.is_empty() {
        return;
    }
    let mut table = Table::new(["golang/go#22315", "failures of attempts", "ratio"]);
    for (observer, rounds) in observers.iter().zip(rounds) {
        let after = races(rounds);
        let ratio = match observer {
            Observer::Nothing => String::new(),
            _ => race::risk_ratio(&before, &after),
        };
        table.row([observer.name().to_owned(), Race::sum(&after).to_string(), ratio]);
    }
    println!("{}", table.shown(args.markdown));
}

impl ProjectDir {
    fn new(dir: &Path) -> Result<Self> {
        let projects = dir.join(format!("etxtbsy-trace-bench-{}", process::id()));
        fs::create_dir(&projects).with_context(|| {
            format!("cannot create {}: choose another --dir", projects.display())
        })?;
        Ok(Self(projects))
    }
}

impl Drop for ProjectDir {
    fn drop(&mut self) {
        // It may be gone: another process may clean the directory.
        let _ = fs::remove_dir_all(&self.0);
    }
}
