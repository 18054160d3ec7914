//! golang/go#22315: threads that each write a script of their own, close it, fork, and exec it.
//! The child that one thread forks has a copy of what another has open at that moment.

use super::child::{Program, fork, wait};
use super::race::{self, Counts, Course, Crowd};
use super::report::{Race, Task};
use super::stage;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// Arguments of `go22315`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    #[command(flatten)]
    crowd: Crowd,
    /// Where to make the directory for the scripts.
    #[arg(long, value_name = "DIR", default_value = stage::PLACE)]
    dir: PathBuf,
    /// Once the threads have started, print a line and wait for a line on stdin.
    #[arg(long)]
    wait_for_go: bool,
}

pub(super) fn run(args: &Args) -> Result<Race> {
    let Crowd { threads, course } = &args.crowd;
    let dir = stage::directory(&args.dir)?;
    let ready = || if args.wait_for_go { stage::wait_for_go() } else { Ok(()) };
    let outcome = race::run(*threads, course, ready, |index, counts| {
        write_and_run(&dir.path().join(format!("fork-exec-{index}")), course, counts)?;
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

fn write_and_run(path: &Path, course: &Course, counts: &Counts) -> Result<()> {
    let program = Program::new(path)?;
    while counts.goes_on() {
        let script = stage::rewrite_script(path)?;
        course.write();
        drop(script);
        counts.attempt(wait(fork(|| program.exec() as i32)?)?)?;
    }
    Ok(())
}
