//! The command line: its options ([`args`]), the output that they and the environment select
//! ([`presentation`]), and a file for each subcommand.
//!
//! This module turns arguments into calls, and results into exit statuses.

pub mod args;
mod check;
mod demo;
mod hunt;
pub mod presentation;
mod replay;
mod report;
mod run;
mod schema;
mod streams;
mod trace;
mod workload;

use std::{io, os::fd::AsFd as _, process::ExitCode};

use clap::Parser as _;
use nix::sys::signal::Signal;

use self::{
    args::{Cli, Command},
    streams::{present, say},
    workload::WorkloadCli,
};
use crate::{
    command::ExecError,
    host::{memory::FAILED_TO_TRACE, stdio},
    output::formats::Format,
    session::stacks::HELPER,
    tui::terminal::deferred_text::DeferredText,
};

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let mut args = std::env::args_os();
    let own = args.next().unwrap_or_default();
    let word = args.next().unwrap_or_default();
    if word == "workload" {
        return finish(workload::run(WorkloadCli::parse_from([own].into_iter().chain(args))));
    }
    if word == HELPER {
        return etxtbsy_stacks::helper::main();
    }
    let cli = match Cli::from_args(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let level = match cli.options.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        _ => log::LevelFilter::Debug,
    };
    let mut logger = env_logger::Builder::new();
    logger.filter(Some("etxtbsy_trace"), level);
    let held = DeferredText::default();
    if present(&cli).format == Format::Tui {
        logger.target(env_logger::Target::Pipe(Box::new(held.clone())));
    } else {
        logger.target(env_logger::Target::Pipe(Box::new(stdio::Log)));
    }
    logger.init();
    let result = dispatch(&cli);
    // If stderr is closed, the log has no reader.
    let _ = held.write_to(io::stderr());
    finish(result)
}

fn dispatch(cli: &Cli) -> anyhow::Result<u8> {
    match &cli.command {
        None => trace::trace(cli, None, None, None),
        Some(Command::Run(args)) => run::run(cli, args),
        Some(Command::Hunt(args)) => hunt::run(cli, args),
        Some(Command::Demo(args)) => demo::run(cli, args),
        Some(Command::Check) => check::run(cli),
        Some(Command::Replay(args)) => replay::run(cli, args),
        Some(Command::Report(args)) => report::run(args),
        Some(Command::Schema { of }) => schema::run(*of),
    }
}

/// Turns a result into an exit status, and prints an error as one line.
fn finish(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_unread_stdout(&error) => stdio::die_of(Signal::SIGPIPE),
        Err(error) => {
            let code = match error.downcast_ref::<ExecError>() {
                Some(error) => error.exit_code(),
                None => FAILED_TO_TRACE,
            };
            say(&format!("{error:#}"));
            ExitCode::from(code)
        }
    }
}

/// Whether the error came from a stdout whose reader has ended, as with `| head -1`.
fn is_unread_stdout(error: &anyhow::Error) -> bool {
    let is_broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        let error = cause.downcast_ref::<io::Error>();
        error.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    };
    error.chain().any(is_broken_pipe) && stdio::is_unread(io::stdout().as_fd())
}
