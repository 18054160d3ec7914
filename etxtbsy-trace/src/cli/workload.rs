//! `workload`: only demos and tests run it. It is part of this program so that demos work where
//! only this one file is installed, and so that tests run what is shipped.

use std::{fs::File, path::PathBuf};

use anyhow::Context as _;
use etxtbsy_workload::Workload;
use nix::unistd::dup2_stdout;

/// The command line of `workload`.
#[derive(clap::Parser)]
#[command(name = "etxtbsy-trace workload")]
pub(super) struct WorkloadCli {
    /// Write the report to FILE instead of stdout.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    #[command(subcommand)]
    workload: Workload,
}

/// Runs a workload.
pub(super) fn run(WorkloadCli { report, workload }: WorkloadCli) -> anyhow::Result<u8> {
    if let Some(path) = report {
        let file = File::options().write(true).open(&path).context("cannot open --report")?;
        dup2_stdout(file).context("cannot make --report stdout")?;
    }
    workload.run()
}
