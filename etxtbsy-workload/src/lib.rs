//! Workloads: programs that make known ETXTBSY failures, and report what is true of them.
//!
//! `etxtbsy-trace workload NAME` runs one. The demos and the live tests run them under the tracer and
//! compare. A race ([`Race`]) counts its failures. A scene ([`Scene`]) makes one call fail, and knows all
//! pids, threads and fds. A comparison ([`Comparison`]) does one task in several ways. A storm ([`Storm`])
//! does one thing many times at once. Each prints one JSON line to stdout at the end.

mod child;
mod clock;
mod closed_again;
mod comparison;
mod elf;
mod go22315;
mod ground_truth;
mod java;
mod judge;
mod mixed;
mod race;
mod refusals;
mod remedy;
mod report;
mod rewrite_in_place;
mod rust114554;
mod scene;
mod stage;
mod storm;
mod tour;

pub use comparison::{Comparison, Side};
pub use judge::{Tally, WriteTally, compare, compare_refusals};
pub use report::{
    BusyExec, FailedExec, GroundTruth, HeldBy, Holder, Inheritor, Mixed, PossibleHolder,
    PossibleRunner, Race, Refusal, Refusals, Scene, Storm, Task, Unheld, WonExec,
};

use anyhow::{Result, bail};
use serde::Serialize;
use std::error::Error;
use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};

/// The workloads, with their names and arguments on the command line.
#[derive(Clone, Debug, PartialEq, clap::Subcommand)]
pub enum Workload {
    /// golang/go#22315: threads each write their own script, fork, and exec it.
    Go22315(go22315::Args),
    /// The same race; the children record which fds they inherited.
    GroundTruth(ground_truth::Args),
    /// Several processes hold a few files in all possible ways, and exec them.
    Mixed(mixed::Args),
    /// Programs run for a moment each, while threads try to write them.
    Refusals(refusals::Args),
    /// A process receives an fd of the file and closes it, repeatedly, while another holds the file.
    ClosedAgain(closed_again::Args),
    /// Compares a report of `mixed` or `refusals` with the tracer's output.
    Compare(judge::Args),
    /// rust-lang/rust#114554: one thread spawns /bin/true, another writes a script and runs it.
    Rust114554(rust114554::Args),
    /// JDK-8068370: threads of a Java program write scripts and run them.
    Java(java::Args),
    /// The race without and with a remedy.
    Remedy(remedy::Args),
    /// An executable is rewritten in three ways while another process runs it.
    RewriteInPlace,
    /// Several workloads, one after the other.
    Tour(tour::Args),
    /// One thing on all CPUs as fast as possible.
    Storm(storm::Args),
    /// The opener still has the file open.
    StillOpen {
        /// Print a line when the file is open, then wait for a line on stdin.
        #[arg(long)]
        wait_for_go: bool,
    },
    /// A child has a copy of the fd while the fork of a large process is in progress.
    ForkInProgress(scene::fork_in_progress::Args),
    /// The interpreter in a script's `#!` line is busy.
    BusyScriptInterpreter(scene::interpreter::Args),
    /// The interpreter in an ELF file's header is busy.
    BusyElfInterpreter(scene::interpreter::Args),
    /// The pids of processes that held the file are reused. Prints a line, and waits for a line on
    /// stdin; after the report, waits for the end of stdin.
    ReusedPid,
    /// A 32-bit program prints a line, then waits for a line on stdin.
    #[command(name = "wait-in-32-bits")]
    WaitIn32Bits,
    /// 32-bit programs start one after the other without a pause; one call of each fails.
    #[command(name = "fail-in-32-bits")]
    FailIn32Bits(scene::compat::Args),
    /// Any other scene, by its name.
    #[command(external_subcommand)]
    Scene(Vec<String>),
}

/// The exit status of a workload that cannot run on this kernel, or as this user.
pub const UNSUPPORTED: u8 = 77;

/// What this kernel or this user cannot do, so that a workload cannot run.
#[derive(Debug)]
struct Unsupported(String);

impl Display for Unsupported {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unsupported {}

impl Workload {
    /// Runs the workload and prints its report as one line of JSON. Returns the exit status: 0, or
    /// [`UNSUPPORTED`] after a line on stderr with the reason.
    ///
    /// It forks, so the process must have no other thread.
    pub fn run(self) -> Result<u8> {
        match self.run_and_print() {
            Ok(()) => Ok(0),
            Err(error) => match error.downcast::<Unsupported>() {
                Ok(unsupported) => {
                    writeln!(
                        io::stderr(),
                        "etxtbsy-trace: this workload cannot run here: {unsupported}"
                    )?;
                    Ok(UNSUPPORTED)
                }
                Err(error) => Err(error),
            },
        }
    }

    fn run_and_print(self) -> Result<()> {
        match self {
            Self::Go22315(args) => print(&go22315::run(&args)?),
            Self::GroundTruth(args) => print(&ground_truth::run(&args)?),
            Self::Mixed(args) => print(&mixed::run(&args)?),
            Self::Refusals(args) => print(&refusals::run(&args)?),
            Self::ClosedAgain(args) => print(&closed_again::run(&args)?),
            Self::Compare(args) => match judge::run(&args)? {
                judge::Comparison::Mixed(tally) => print(&tally),
                judge::Comparison::Refusals(tally) => print(&tally),
            },
            Self::Rust114554(args) => print(&rust114554::run(&args)?),
            Self::Java(args) => print(&java::run(&args)?),
            Self::Remedy(args) => print(&remedy::run(&args)?),
            Self::RewriteInPlace => print(&rewrite_in_place::run()?),
            Self::Tour(args) => tour::run(&args),
            Self::Storm(args) => storm::run(&args, print),
            Self::StillOpen { wait_for_go } => print(&scene::still_open(wait_for_go)?),
            Self::ForkInProgress(args) => print(&scene::fork_in_progress::run(&args)?),
            Self::BusyScriptInterpreter(args) => print(&scene::interpreter::script(&args)?),
            Self::BusyElfInterpreter(args) => print(&scene::interpreter::elf(&args)?),
            Self::ReusedPid => scene::reused::pid(print),
            Self::WaitIn32Bits => scene::compat::wait(),
            Self::FailIn32Bits(args) => print(&scene::compat::fail(&args)?),
            Self::Scene(words) => match &words[..] {
                [name] => print(&scene::play(name)?),
                _ => bail!("the workload takes no arguments, leave them out: {}", words.join(" ")),
            },
        }
    }
}

fn print(report: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    Ok(io::stdout().write_all(&line)?)
}
