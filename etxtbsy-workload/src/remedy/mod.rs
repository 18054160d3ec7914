//! Remedies against the race, measured: threads that write a script, close it, and spawn it, first
//! without protection, then with it.

mod pipe;
mod protection;
mod spawn;

use super::comparison::{Comparison, Side};
use super::race::{self, Course, Outcome};
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
    /// What is tried.
    protection: Protection,
    /// How the threads spawn.
    #[arg(long, value_enum, default_value_t = Spawn::PosixSpawn)]
    spawn: Spawn,
    /// How many threads.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// How long each half goes.
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Where to make the directories for the scripts.
    #[arg(long, value_name = "DIR", default_value = stage::PLACE)]
    dir: PathBuf,
}

pub(super) fn run(args: &Args) -> Result<Comparison> {
    let sides = [Protection::None, args.protection];
    Ok(Comparison {
        scenario: <&str>::from(args.protection).to_owned(),
        sides: sides.into_iter().map(|protection| side(args, protection)).collect::<Result<_>>()?,
    })
}

/// What a thread came to.
#[derive(Default)]
struct Sum {
    tid: u32,
    runs: u64,
    given_up: u64,
    longest: Duration,
}

/// One half.
fn side(args: &Args, protection: Protection) -> Result<Side> {
    let dir = stage::directory(&args.dir)?;
    let course = Course { seconds: args.seconds, failures: None, writing_takes: 0 };
    let kit = Kit::new(protection, args.spawn, args.threads)?;
    let Outcome { attempts, failures, seconds, threads } = race::run(
        args.threads,
        &course,
        || Ok(()),
        |index, counts| {
            let mut racer = kit.racer(dir.path().join(format!("fork-exec-{index}")), counts)?;
            let mut sum = Sum { tid: Task::current().tid, ..Sum::default() };
            while counts.goes_on() {
                let Run { ran, tried } = racer()?;
                sum.runs += 1;
                sum.given_up += u64::from(!ran);
                sum.longest = sum.longest.max(tried);
            }
            Ok(sum)
        },
    )?;
    let longest = threads.iter().map(|sum| sum.longest).max().unwrap_or_default();
    Ok(Side {
        name: <&str>::from(protection).to_owned(),
        runs: threads.iter().map(|sum| sum.runs).sum(),
        given_up: threads.iter().map(|sum| sum.given_up).sum(),
        longest_ns: longest.as_nanos() as u64,
        race: Race {
            scenario: "remedy".into(),
            pid: Task::current().pid,
            dir: dir.path().into(),
            attempts,
            failures,
            seconds,
            threads: threads.into_iter().map(|sum| sum.tid).collect(),
        },
    })
}
