//! The tasks of this repository: `cargo xtask demo` and `cargo xtask test` are all a newcomer needs.

mod apt;
mod bench;
mod command;
mod component;
mod fuzz;
#[cfg(test)]
mod layers;
mod linker;
mod picture;
mod setup;
mod skipped;
mod soak;
mod table;
mod test;
mod tmux;
mod toolchain;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use command::{cargo, root, run, step};

/// Every task first installs what the eBPF programs are built with, where that is missing
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds etxtbsy-trace and shows it at work (as root, by sudo if need be)
    Demo {
        /// For `etxtbsy-trace demo`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Format, lints, unit tests, then the tests on the live kernel (as root, by sudo if need be)
    Test {
        /// For `cargo test`, which is then all that runs, as root: `-- --test live -- fork`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Leaves target/release/etxtbsy-trace
    Build,
    /// Draws docs/view.svg, the view of a real session (as root, by sudo if need be; takes tmux)
    Picture,
    /// Installs what is missing, and nothing else
    Setup,
    /// Measures what tracing costs (as root, by sudo if need be)
    Bench(bench::Args),
    /// Watches the tracer for long under a load of which everything is known (as root, by sudo if need
    /// be)
    Soak(soak::Args),
    /// Looks for bytes that a reader cannot take, and keeps those worth trying again in fuzz/corpus
    Fuzz(fuzz::Args),
    /// Runs the tests on other kernels, in virtual machines (takes no root)
    Vm(vm::Args),
}

fn main() -> ExitCode {
    match start(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("xtask: error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(task: Task) -> Result<()> {
    // These build nothing.
    if let Task::Bench(args) = &task {
        if let Some(operation) = args.operation {
            return bench::repeat(args, operation);
        }
        if let Some(tracer) = &args.tracer {
            return bench::run(args, tracer);
        }
    }
    if let Task::Soak(args) = &task
        && let Some(tracer) = &args.tracer
    {
        return soak::run(args, tracer);
    }
    let toolchain = setup::run()?;
    match task {
        Task::Setup => {
            let (name, place) = (toolchain.name, toolchain.sysroot.display());
            step(&format!("ready: {name} in {place} and bpf-linker build the eBPF programs"));
            Ok(())
        }
        Task::Build => build(),
        Task::Picture => build().and_then(|()| picture::draw()),
        Task::Test { args } => test::run(&toolchain, &args),
        Task::Bench(args) => {
            build().and_then(|()| bench::run(&args, &command::built("etxtbsy-trace")?))
        }
        Task::Soak(args) => {
            build().and_then(|()| soak::run(&args, &command::built("etxtbsy-trace")?))
        }
        Task::Fuzz(args) => fuzz::fuzz(&args),
        Task::Vm(args) => vm::run(&args),
        Task::Demo { args } => {
            build()?;
            step("demo, as root: loading eBPF programs takes root");
            run(root(command::built("etxtbsy-trace")?).arg("demo").args(args))
        }
    }
}

fn build() -> Result<()> {
    step("building etxtbsy-trace and its eBPF programs");
    run(&mut cargo(["build", "--release", "--locked", "--package", "etxtbsy-trace"]))
}
