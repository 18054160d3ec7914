//! Several workloads, one after the other, each in a process of its own.

use anyhow::{Context, Result, ensure};
use std::process::Command;

/// Arguments of `tour`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// A workload with its arguments, all in one word, such as `'go22315 --failures 3'`.
    #[arg(required = true)]
    stops: Vec<String>,
}

/// Each prints its own report.
pub(super) fn run(args: &Args) -> Result<()> {
    let this = std::env::current_exe().context("cannot find this program's own file")?;
    for stop in &args.stops {
        let status =
            Command::new(&this).arg("workload").args(stop.split_ascii_whitespace()).status()?;
        ensure!(status.success(), "workload {stop}: {status}");
    }
    Ok(())
}
