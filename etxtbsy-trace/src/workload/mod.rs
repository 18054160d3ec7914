//! Programs that make ETXTBSY happen, each in a known form, and then say what is true of it.
//!
//! `etxtbsy-trace workload NAME` runs one; the demos and the live tests run them under the tracer
//! and compare. The races ([`Race`]) count their own failures; the scenes ([`Scene`]) make one
//! call fail and know every pid, thread and fd of it. Each ends with one JSON line on stdout.

mod between_fork_and_exec;
mod busy_interpreter;
mod child;
mod fork_in_progress;
mod go22315;
mod leaked_daemon;
mod other_names;
mod passed_fd;
mod report;
mod running_executable;
mod rust114554;
mod several_holders;
mod shared_mapping;
mod stage;
mod still_open;

pub use report::{Holder, Race, Scene, Task};

use anyhow::Result;
use serde::Serialize;
use std::io::{self, Write};

/// The workloads, by the name and arguments they have on the command line.
#[derive(Clone, Debug, PartialEq, clap::Subcommand)]
pub enum Workload {
    /// golang/go#22315: threads that each write a script of their own, fork and exec it.
    Go22315(go22315::Args),
    /// rust-lang/rust#114554: one thread spawns /bin/true, another writes a script and runs it.
    Rust114554(rust114554::Args),
    /// The opener itself still has the file open.
    StillOpen {
        /// Once the file is open, print a line and wait for a line on stdin.
        #[arg(long)]
        wait_for_go: bool,
    },
    /// A child held between its fork and its exec has a copy of the fd.
    BetweenForkAndExec,
    /// A child still being made by a fork of a large process has a copy of the fd.
    ForkInProgress(fork_in_progress::Args),
    /// A daemon whose parents have ended inherited an fd that is not close-on-exec.
    LeakedDaemon,
    /// Two processes opened the file, one of them has two fds of it.
    SeveralHolders,
    /// The fd was sent over a socket.
    PassedFd,
    /// A mapping keeps the file after its fd was closed.
    SharedMapping,
    /// What is busy is the interpreter in a script's `#!` line.
    BusyScriptInterpreter(busy_interpreter::Args),
    /// What is busy is the interpreter in an ELF file's header.
    BusyElfInterpreter(busy_interpreter::Args),
    /// The exec goes by a symbolic link.
    BySymlink,
    /// The exec goes by a path relative to the working directory.
    ByRelativePath,
    /// The exec is an execveat of an fd with an empty path.
    ExecveatEmptyPath,
    /// The exec goes by `/proc/self/fd/N`.
    ProcSelfFd,
    /// A program that runs is opened for writing.
    OpenRunning,
    /// A program that runs is truncated.
    TruncateRunning,
}

impl Workload {
    /// Runs it to its end and prints its report, a [`Race`] or a [`Scene`], as one line of JSON.
    ///
    /// It forks: the process must have no other thread when this is called.
    pub fn run(self) -> Result<()> {
        match self {
            Self::Go22315(args) => print(&go22315::run(&args)?),
            Self::Rust114554(args) => print(&rust114554::run(&args)?),
            Self::StillOpen { wait_for_go } => print(&still_open::run(wait_for_go)?),
            Self::BetweenForkAndExec => print(&between_fork_and_exec::run()?),
            Self::ForkInProgress(args) => print(&fork_in_progress::run(&args)?),
            Self::LeakedDaemon => print(&leaked_daemon::run()?),
            Self::SeveralHolders => print(&several_holders::run()?),
            Self::PassedFd => print(&passed_fd::run()?),
            Self::SharedMapping => print(&shared_mapping::run()?),
            Self::BusyScriptInterpreter(args) => print(&busy_interpreter::script(&args)?),
            Self::BusyElfInterpreter(args) => print(&busy_interpreter::elf(&args)?),
            Self::BySymlink => print(&other_names::symlink()?),
            Self::ByRelativePath => print(&other_names::relative_path()?),
            Self::ExecveatEmptyPath => print(&other_names::execveat_empty_path()?),
            Self::ProcSelfFd => print(&other_names::proc_self_fd()?),
            Self::OpenRunning => print(&running_executable::open()?),
            Self::TruncateRunning => print(&running_executable::truncate()?),
        }
    }
}

fn print(report: &impl Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    Ok(io::stdout().write_all(&line)?)
}
