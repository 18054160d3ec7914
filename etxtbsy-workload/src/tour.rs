//! Several workloads, one after the other, each in its own process.

use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Arguments of `tour`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// A workload with its arguments in one word, such as `'go22315 --failures 3'`.
    #[arg(required = true)]
    stops: Vec<String>,
}

/// Runs the workloads; each prints its own report.
pub(super) fn run(args: &Args) -> Result<()> {
    let this = std::env::current_exe().context("cannot find the executable of this program")?;
    for stop in &args.stops {
        let status =
            Command::new(&this).arg("workload").args(stop.split_ascii_whitespace()).status()?;
        ensure!(status.success(), "workload {stop}: {status}");
    }
    Ok(())
}
