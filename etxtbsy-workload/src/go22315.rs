//! golang/go#22315: threads each write their own script, close it, fork, and exec it. A child that one
//! thread forks has copies of the fds that other threads have open at that moment.

use super::child::{Program, fork, wait};
use super::race::{self, Counts, RaceArgs, RaceLimits};
use super::report::{Race, Task};
use super::stage;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Arguments of `go22315`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    #[command(flatten)]
    race: RaceArgs,
    /// Where to create the directory for the scripts.
    #[arg(long, value_name = "DIR", default_value = stage::DEFAULT_DIR)]
    dir: PathBuf,
    /// Print a line when the threads have started, then wait for a line on stdin.
    #[arg(long)]
    wait_for_go: bool,
}

pub(super) fn run(args: &Args) -> Result<Race> {
    let RaceArgs { threads, limits } = &args.race;
    let dir = stage::directory(&args.dir)?;
    let ready = || if args.wait_for_go { stage::wait_for_go() } else { Ok(()) };
    let outcome = race::run(*threads, limits, ready, |index, counts| {
        write_and_run(&dir.path().join(format!("fork-exec-{index}")), limits, counts)?;
        Ok(Task::current().tid)
    })?;
    Ok(Race {
        scenario: "go22315".into(),
        pid: Task::current().pid,
        dir: dir.path().into(),
        attempts: outcome.attempts,
        failures: outcome.failures,
        seconds: outcome.seconds,
        threads: outcome.threads,
    })
}

fn write_and_run(path: &Path, limits: &RaceLimits, counts: &Counts) -> Result<()> {
    let program = Program::new(path)?;
    while counts.should_continue() {
        let script = stage::rewrite_script(path)?;
        limits.pause_while_open();
        drop(script);
        counts.attempt(wait(fork(|| program.exec() as i32)?)?)?;
    }
    Ok(())
}
