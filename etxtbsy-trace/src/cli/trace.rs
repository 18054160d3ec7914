//! Tracing: the machine, some process trees, or a command; from the options to the exit status.

use std::{ffi::OsString, io};

use anyhow::Context as _;
use nix::sys::signal::Signal;
use tokio::sync::Notify;

use super::{
    args::Cli,
    presentation::Stream,
    streams::{present, recreates_file, say, sinks, state},
};
use crate::{
    check,
    command::Prepared,
    event::{Filter, Provoke, Summary},
    host::{
        memory::FAILED_TO_TRACE,
        privileges::{self, SessionKind},
        process_tree, stdio,
        user::Invoker,
    },
    output::{self, formats::Format},
    provoke::{Provocation, Provoker},
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
        model::live::Caption,
        terminal::{self, deferred_text::DeferredText},
    },
};

/// Undocumented: the size of the ring buffer. Tests use it to make the buffer overflow.
const RING_BYTES: &str = "ETXTBSY_TRACE_RING_BYTES";
/// Undocumented: the path of a new file for a copy of the records. Unit tests of the session replay it.
const RECORDS: &str = "ETXTBSY_TRACE_RECORDS";

const NO_NEW_PRIVS: &str = "--provoke without CAP_SYS_ADMIN sets no_new_privs: setuid programs such as sudo \
     run without their privileges in CMD; start etxtbsy-trace as root to avoid this";

/// A command to trace.
#[derive(Clone, Copy)]
pub(super) struct TracedCommand<'a> {
    /// Program and arguments.
    pub(super) argv: &'a [OsString],
    /// The user to run it as; `None` for the tracer's own user.
    pub(super) user: Option<&'a Invoker>,
    /// Whether to run it even if tracing cannot start.
    pub(super) best_effort: bool,
    /// Whether to end it when a limit has ended tracing.
    pub(super) kill_after_stop: bool,
    /// How its calls are delayed.
    pub(super) provocation: Option<Provocation>,
}

/// Traces the machine, some trees, or a command. `more` is an additional sink; the view shows `caption`.
pub(super) fn trace(
    cli: &Cli,
    command: Option<TracedCommand<'_>>,
    more: Option<Sink>,
    caption: Option<Caption>,
) -> anyhow::Result<u8> {
    let presentation = present(cli);
    let in_view = presentation.format == Format::Tui;
    let sudo_user = Invoker::of_sudo()?;
    if in_view {
        terminal::is_there()?;
    }
    let streams = (in_view && command.is_some()).then(Streams::new).transpose()?;
    let replaced = streams.as_ref().map(Streams::replace).unwrap_or_default();
    let provocation = command.and_then(|command| command.provocation);
    let provoker = provocation.as_ref().map(Provoker::start).transpose()?;
    warn_of_no_new_privs(provocation.as_ref())?;
    // First, so that the command inherits nothing that the tracer opens or changes.
    let prepared = command
        .map(|TracedCommand { argv, user, .. }| Prepared::new(argv, user, &replaced, provoker))
        .transpose()?;
    let provoke = provocation.map(Provoke::from);
    let after_view = DeferredText::default();
    // After the fork, so that the command keeps its own disposition.
    stdio::survive_file_limit().context("cannot ignore SIGXFSZ")?;
    let sinks = || sinks(cli, sudo_user.as_ref(), Some(&after_view));
    let started = start_tracing(
        cli,
        command.map(|command| command.argv),
        prepared.as_ref().map(Prepared::pid),
        sinks,
        SessionKind {
            command: prepared.is_some(),
            files: in_view || recreates_file(cli, prepared.is_some()),
            sudo: sudo_user.is_some(),
            loads: false,
        },
    );
    let (tracer, filter, mut sinks) = match (started, prepared.is_some()) {
        (Err(error), true) if command.is_some_and(|command| command.best_effort) => {
            say(&format!(
                "tracing cannot start, running CMD without it (--best-effort): {error:#}"
            ));
            if let Some(provoke) = &provoke {
                say(&output::text::provoking(provoke));
            }
            return untraced(prepared);
        }
        (started, _) => started?,
    };
    sinks.extend(more);
    let limits =
        Limits { duration: cli.options.duration, incidents: cli.options.stop_after.map(u64::from) };
    let ends_command = command.is_some_and(|command| command.kill_after_stop);
    let trace_run = TraceRun { tracer, filter, provoke, sinks, prepared, limits, ends_command };
    let Outcome { code, interrupted, traced } = if in_view {
        let mut view = state(cli, presentation);
        view.probes.caption = caption;
        let outcome = tui::run::run(trace_run, view, streams);
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
        trace_run.run(&Notify::new(), say)?
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
        (Some(0), Some(error)) if counts_as_error(&summary, cli.options.near_misses_too) => {
            error.get()
        }
        (code, _) => code.unwrap_or(0),
    })
}

/// Says what CMD loses by `--provoke` without CAP_SYS_ADMIN, if that is so.
pub(super) fn warn_of_no_new_privs(provocation: Option<&Provocation>) -> anyhow::Result<()> {
    if provocation.is_some() && Provoker::needs_no_new_privs()? {
        say(NO_NEW_PRIVS);
    }
    Ok(())
}

/// Whether a session saw what `--error-exitcode` is for.
fn counts_as_error(summary: &Summary, near_misses_too: bool) -> bool {
    summary.incidents > summary.repaired || near_misses_too && summary.near_misses > 0
}

/// Starts tracing, of the tree of `root` if there is one, which runs `argv`; then drops the privileges that are no longer needed.
pub(super) fn start_tracing(
    cli: &Cli,
    argv: Option<&[OsString]>,
    root: Option<u32>,
    sinks: impl FnOnce() -> anyhow::Result<Vec<Sink>>,
    kind: SessionKind,
) -> anyhow::Result<(Tracer, Filter, Vec<Sink>)> {
    check::start()?;
    let roots = cli
        .pids
        .iter()
        .map(|pid| process_tree::existing(*pid))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let sinks = sinks()?;
    // Up to 5.10, maps count against RLIMIT_MEMLOCK. If this fails and matters, loading fails.
    if let Err(errno) = memlock::lift() {
        log::info!("cannot raise RLIMIT_MEMLOCK: {errno}");
    }
    if let Err(errno) = nofile::raise() {
        log::info!("cannot raise RLIMIT_NOFILE: {errno}");
    }
    let tracked = match root {
        Some(root) => Some(vec![root]),
        None => (!roots.is_empty()).then(|| roots.clone()),
    };
    let ring_bytes = std::env::var(RING_BYTES).ok().and_then(|bytes| bytes.parse().ok());
    let options = Options {
        roots: tracked,
        role: cli.options.role,
        ring_bytes,
        stacks: cli.options.stacks,
        copy_to: std::env::var_os(RECORDS).map(Into::into),
        verbose: cli.options.verbose > 0,
    };
    let mut tracer = Tracer::start(&options).map_err(check::explain)?;
    // Returns the memory that reading the kernel's BTF took.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) releases only memory that the allocator has free.
    unsafe {
        libc::malloc_trim(0);
    }
    if !roots.is_empty() {
        tree::add_descendants(&mut tracer)?;
    }
    let kind = SessionKind { loads: tracer.may_load(), ..kind };
    privileges::give_up(kind, || tracer.reads_maps())?;
    let filter = Filter {
        pids: roots,
        command: argv
            .map(|argv| argv.iter().map(|word| word.to_string_lossy().into_owned()).collect()),
        role: cli.options.role,
    };
    Ok((tracer, filter, sinks))
}

/// Runs the command without tracing; returns its exit status.
fn untraced(prepared: Option<Prepared>) -> anyhow::Result<u8> {
    let Some(prepared) = prepared else { return Ok(FAILED_TO_TRACE) };
    let (code, interrupted) = trace_run::untraced(prepared)?;
    if interrupted {
        stdio::die_of(Signal::SIGINT);
    }
    Ok(code)
}
