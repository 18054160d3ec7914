//! Tracing: the machine, some process trees, or a command; from the options to the exit status.

use std::{ffi::OsString, io};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::sync::Notify;

use super::{
    args::Cli,
    presentation::Stream,
    streams::{present, say, sinks, state},
};
use crate::{
    check,
    command::Prepared,
    event::Filter,
    host::{
        identity::Invoker,
        memory::FAILED_TO_TRACE,
        privileges::{self, SessionKind},
        process_tree, stdio,
    },
    output::formats::Format,
    session::{
        Ended, Limits, Sink,
        trace_run::{self, Outcome, TraceRun},
        tree,
    },
    tracer::{
        loader::{Options, Tracer},
        memlock, nofile,
    },
    tui::{
        self,
        command_output::Streams,
        terminal::{self, held::DeferredText},
    },
};

/// Undocumented: a size for the ring buffer, by which the tests make it overflow.
const RING_BYTES: &str = "ETXTBSY_TRACE_RING_BYTES";
/// Undocumented: a new file for a copy of the records, which the tests of the session replay.
const RECORDS: &str = "ETXTBSY_TRACE_RECORDS";

/// A command to trace.
#[derive(Clone, Copy)]
pub(super) struct ToRun<'a> {
    /// Its program and arguments.
    pub(super) argv: &'a [OsString],
    /// Whom to run it as, if not as ourselves.
    pub(super) user: Option<&'a Invoker>,
    /// Whether it runs even if tracing cannot start.
    pub(super) best_effort: bool,
    /// Whether it is ended when a limit has ended tracing.
    pub(super) ends: bool,
}

/// Traces the machine, some trees, or a command; lines go to one `more` sink, too.
pub(super) fn trace(
    cli: &Cli,
    command: Option<ToRun<'_>>,
    more: Option<Sink>,
) -> anyhow::Result<u8> {
    let presentation = present(cli);
    let in_view = presentation.format == Format::Tui;
    let sudo_user = Invoker::of_sudo()?;
    if in_view {
        terminal::is_there()?;
    }
    let streams = (in_view && command.is_some()).then(Streams::new).transpose()?;
    let replaced = streams.as_ref().map(Streams::replace).unwrap_or_default();
    // Before anything is opened or changed that it would inherit.
    let prepared =
        command.map(|ToRun { argv, user, .. }| Prepared::new(argv, user, &replaced)).transpose()?;
    let after_view = DeferredText::default();
    // From here on; the command has it as it was.
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let sinks = || sinks(cli, sudo_user.as_ref(), Some(&after_view));
    let begun = begin(
        cli,
        command.map(|command| command.argv),
        prepared.as_ref(),
        sinks,
        SessionKind {
            command: prepared.is_some(),
            view: in_view,
            sudo: sudo_user.is_some(),
            loads: false,
        },
    );
    let (tracer, filter, mut sinks) = match (begun, prepared.is_some()) {
        (Err(error), true) if command.is_some_and(|command| command.best_effort) => {
            say(&format!("not tracing, CMD runs all the same (--best-effort): {error:#}"));
            return untraced(prepared);
        }
        (begun, _) => begun?,
    };
    sinks.extend(more);
    let limits =
        Limits { duration: cli.options.duration, incidents: cli.options.stop_after.map(u64::from) };
    let ends_command = command.is_some_and(|command| command.ends);
    let job = TraceRun { tracer, filter, sinks, prepared, limits, ends_command };
    let Outcome { code, interrupted, traced } = if in_view {
        let outcome = tui::run::run(job, state(presentation), streams);
        match presentation.stream {
            Stream::Stdout => {
                after_view.write_to(io::stdout()).context("cannot write to stdout")?;
            }
            Stream::Stderr => {
                after_view.write_to(io::stderr()).context("cannot write to stderr")?;
            }
        }
        outcome?
    } else {
        job.run(&Notify::new(), say)?
    };
    if interrupted && !in_view {
        stdio::die_of(Signal::SIGINT);
    }
    let Ended { summary, unread, stalled } = traced;
    if let Some(stalled) = &stalled {
        say(stalled);
    }
    if code.is_none() && unread {
        stdio::die_of(Signal::SIGPIPE);
    }
    if code.is_none() && stalled.is_some() {
        return Ok(FAILED_TO_TRACE);
    }
    Ok(match (code, cli.options.error_exitcode) {
        (Some(0), Some(error)) if summary.incidents > summary.repaired => error.get(),
        (code, _) => code.unwrap_or(0),
    })
}

/// Makes tracing live, and gives up what it needs no more.
fn begin(
    cli: &Cli,
    argv: Option<&[OsString]>,
    prepared: Option<&Prepared>,
    sinks: impl FnOnce() -> anyhow::Result<Vec<Sink>>,
    work: SessionKind,
) -> anyhow::Result<(Tracer, Filter, Vec<Sink>)> {
    check::start()?;
    let roots = cli
        .pids
        .iter()
        .map(|pid| process_tree::existing(*pid))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let sinks = sinks()?;
    // Maps count against it up to 5.10; where raising is forbidden, loading says whether it matters.
    if let Err(errno) = memlock::lift() {
        log::info!("cannot raise RLIMIT_MEMLOCK: {errno}");
    }
    if let Err(errno) = nofile::raise() {
        log::info!("cannot raise RLIMIT_NOFILE: {errno}");
    }
    let tracked = match prepared {
        Some(prepared) => Some(vec![prepared.pid()]),
        None => (!roots.is_empty()).then(|| roots.clone()),
    };
    let ring_bytes = std::env::var(RING_BYTES).ok().and_then(|bytes| bytes.parse().ok());
    let options = Options {
        roots: tracked,
        role: cli.options.role,
        ring_bytes,
        copy_to: std::env::var_os(RECORDS).map(Into::into),
        verbose: cli.options.verbose > 0,
    };
    let mut tracer = Tracer::start(&options).map_err(check::explain)?;
    // What reading the kernel's BTF took is of no use any more.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) gives free memory back, and touches no other.
    unsafe {
        libc::malloc_trim(0);
    }
    if !roots.is_empty() {
        tree::add_descendants(&mut tracer)?;
    }
    let work = SessionKind { loads: tracer.may_load(), ..work };
    privileges::give_up(work, || tracer.reads_maps())?;
    let filter = Filter {
        pids: roots,
        command: argv
            .map(|argv| argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()),
        role: cli.options.role,
    };
    Ok((tracer, filter, sinks))
}

/// Runs the command, for which there is no tracing; its exit status.
fn untraced(prepared: Option<Prepared>) -> anyhow::Result<u8> {
    let Some(prepared) = prepared else { return Ok(FAILED_TO_TRACE) };
    let (code, interrupted) = trace_run::untraced(prepared)?;
    if interrupted {
        stdio::die_of(Signal::SIGINT);
    }
    Ok(code)
}
