//! Measures remedies against the race: threads write a script, close it, and spawn it, first without the
//! remedy, then with it.

mod pipe;
mod protection;
mod spawn;

use super::comparison::{Comparison, Side};
use super::race::{self, Outcome, RaceLimits};
use super::report::{Race, Task};
use super::stage;
use anyhow::Result;
use protection::{Kit, Protection, Run};
use spawn::Spawn;
use std::path::PathBuf;
use std::time::Duration;

/// Arguments of `remedy`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// The remedy to try.
    protection: Protection,
    /// How the threads spawn.
    #[arg(long, value_enum, default_value_t = Spawn::PosixSpawn)]
    spawn: Spawn,
    /// Number of threads.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Duration of each side.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Time between the close of a script and its spawn: the longer, the fewer execs fail.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    pause: u64,
    /// Leave out the side without the remedy.
    #[arg(long)]
    alone: bool,
    /// Name of the workload in the report, instead of that of the remedy.
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// Where to create the directories for the scripts.
    #[arg(long, value_name = "DIR", default_value = stage::DEFAULT_DIR)]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Comparison> {
    let sides = [Protection::None, args.protection];
    let sides = if args.alone { &sides[1..] } else { &sides };
    let name = || <&str>::from(args.protection).to_owned();
    Ok(Comparison {
        scenario: args.scenario.clone().unwrap_or_else(name),
        sides: sides
            .iter()
            .copied()
            .map(|protection| side(args, protection))
            .collect::<Result<_>>()?,
    })
}

/// The counts of a thread.
#[derive(Default)]
struct ThreadCounts {
    tid: u32,
    runs: u64,
    given_up: u64,
    longest: Duration,
}

/// Measures one side.
fn side(args: &Args, protection: Protection) -> Result<Side> {
    let dir = stage::directory(&args.dir)?;
    let limits = RaceLimits { seconds: args.seconds, failures: None, writing_takes: 0 };
    let pause = Duration::from_micros(args.pause);
    let kit = Kit::new(protection, args.spawn, args.threads, pause)?;
    let Outcome { attempts, failures, seconds, threads } = race::run(
        args.threads,
        &limits,
        || Ok(()),
        |index, counts| {
            let mut run_once = kit.racer(dir.path().join(format!("fork-exec-{index}")), counts)?;
            let mut counted = ThreadCounts { tid: Task::current().tid, ..ThreadCounts::default() };
            while counts.should_continue() {
                let Run { ran, tried_for } = run_once()?;
                counted.runs += 1;
                counted.given_up += u64::from(!ran);
                counted.longest = counted.longest.max(tried_for);
            }
            Ok(counted)
        },
    )?;
    let longest = threads.iter().map(|counted| counted.longest).max().unwrap_or_default();
    Ok(Side {
        name: <&str>::from(protection).to_owned(),
        runs: threads.iter().map(|counted| counted.runs).sum(),
        given_up: threads.iter().map(|counted| counted.given_up).sum(),
        longest_ns: longest.as_nanos() as u64,
        race: Race {
            scenario: "remedy".into(),
            pid: Task::current().pid,
            dir: dir.path().into(),
            attempts,
            failures,
            seconds,
            threads: threads.into_iter().map(|counted| counted.tid).collect(),
        },
    })
}
