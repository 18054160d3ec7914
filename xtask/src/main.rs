//! The tasks of this repository. Start with `cargo xtask demo` and `cargo xtask test`.

mod apt;
mod bench;
mod command;
mod component;
mod dist;
mod fuzz;
#[cfg(test)]
mod layers;
mod linker;
mod package;
mod picture;
mod setup;
mod skipped;
mod soak;
mod table;
mod target;
mod test;
mod tmux;
#[path = "../../etxtbsy-trace/build/toolchain.rs"]
mod toolchain;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use command::{cargo, root, run, step};

/// Tasks of this repository. Every task first installs missing tools for building the eBPF programs
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds etxtbsy-trace and runs its demo (as root, with sudo if needed)
    Demo {
        /// Arguments of `etxtbsy-trace demo`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Checks format, lints and unit tests, then runs the live tests (as root, with sudo if needed)
    Test {
        /// Arguments of `cargo test`: runs only that, as root, for example `-- --test live -- fork`
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Builds target/release/etxtbsy-trace
    Build,
    /// Builds what a release consists of, into target/dist: static programs in archives, Debian packages
    Dist(dist::Args),
    /// Makes the packages of the crates that are published, into target/package, with compiled eBPF programs
    Package(package::Args),
    /// Draws docs/view.svg, the view of a real session (as root, with sudo if needed; needs tmux)
    Picture,
    /// Only installs missing tools
    Setup,
    /// Measures what tracing costs (as root, with sudo if needed)
    Bench(bench::Args),
    /// Runs the tracer for long under loads with known failures, and checks memory and results (as root,
    /// with sudo if needed)
    Soak(soak::Args),
    /// Fuzzes the readers of untrusted bytes; keeps inputs that reach new code in fuzz/corpus
    Fuzz(fuzz::Args),
    /// Runs the live tests on other kernels, in virtual machines (needs no root)
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
    // The measuring processes, which build nothing.
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
            let (name, sysroot) = (toolchain.name, toolchain.sysroot.display());
            step(&format!("ready: {name} in {sysroot} and bpf-linker build the eBPF programs"));
            Ok(())
        }
        Task::Build => build(),
        Task::Dist(args) => dist::run_dist(&args),
        Task::Package(args) => package::run_package(&args),
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
            step("demo, as root: loading eBPF programs needs root");
            run(root(command::built("etxtbsy-trace")?).arg("demo").args(args))
        }
    }
}

fn build() -> Result<()> {
    step("building etxtbsy-trace and its eBPF programs");
    run(&mut cargo(["build", "--release", "--locked", "--package", "etxtbsy-trace"]))
}
