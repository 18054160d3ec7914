//! A session with all it needs, run to its end.

use crate::{
    command::{Prepared, Started},
    event::{Filter, Provoke},
    tracer::loader::Tracer,
};

use super::{Ended, Limits, Session, Sink};
use anyhow::{Context as _, Result};
use std::io;
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Runtime,
    sync::Notify,
    task::JoinHandle,
};

/// What is traced, and where the lines go.
pub struct TraceRun {
    /// Live, with its filter set.
    pub tracer: Tracer,
    /// The same filter, for the first line.
    pub filter: Filter,
    /// How calls of the command are delayed, for the first line.
    pub provoke: Option<Provoke>,
    /// Where the lines go.
    pub sinks: Vec<Sink>,
    /// The command to trace.
    pub prepared: Option<Prepared>,
    /// When to end.
    pub limits: Limits,
    /// Whether the command is ended when a limit has ended tracing.
    pub ends_command: bool,
}

/// How a session ended.
pub struct Outcome {
    /// The command's exit status, if there is one.
    pub code: Option<u8>,
    /// Whether an interrupt killed the command that was ours as well.
    pub interrupted: bool,
    /// How tracing ended.
    pub traced: Ended,
}

impl TraceRun {
    /// Traces until the end, or until `stop` is notified. `say` gets a line if tracing ends before the
    /// command does.
    pub fn run(self, stop: &Notify, say: impl Fn(&str)) -> Result<Outcome> {
        event_loop()?.block_on(self.trace(stop, say))
    }

    async fn trace(self, stop: &Notify, say: impl Fn(&str)) -> Result<Outcome> {
        let Self { mut tracer, filter, provoke, sinks, prepared, limits, ends_command } = self;
        let _log = show_log(&mut tracer)?;
        let mut session = Session::begin(tracer, filter, provoke, sinks)?;
        let started = match prepared.map(Prepared::start).transpose() {
            Ok(started) => started,
            Err(error) => {
                session.command_failed();
                // The command itself may have been the busy file: that incident comes first.
                session.end(limits).await?;
                return Err(error.into());
            }
        };
        let code = session.trace(started.as_ref().map(Started::wait), limits, stop).await?;
        // Where tracing is over before the command is, it goes on, gets its signals, and keeps its exit
        // status.
        let (traced, code) = match (code, &started) {
            (None, Some(started)) => {
                started.stop_provoking();
                say(&stopped(limits, session.incidents(), ends_command));
                if ends_command {
                    started.terminate_tree();
                }
                let (traced, code) = tokio::join!(session.end(limits), wait(started));
                (traced, Some(code?))
            }
            (code, _) => (session.end(limits).await, code),
        };
        let interrupted = started.as_ref().is_some_and(Started::died_of_interrupt);
        Ok(Outcome { code, interrupted, traced: traced? })
    }
}

/// Runs a command without tracing it: its exit status, and whether an interrupt killed it that was ours
/// as well.
pub fn untraced(prepared: Prepared) -> Result<(u8, bool)> {
    event_loop()?.block_on(async {
        let started = prepared.start()?;
        let code = wait(&started).await?;
        Ok((code, started.died_of_interrupt()))
    })
}

/// Starts the event loop, of this thread alone.
pub(crate) fn event_loop() -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("cannot start the event loop")
}

/// What is said when a limit has ended tracing before the command has ended.
fn stopped(limits: Limits, incidents: u64, ends_command: bool) -> String {
    let limit = match limits {
        Limits { incidents: Some(most), .. } if incidents >= most => {
            format!("--stop-after {most}")
        }
        Limits { duration: Some(duration), .. } => format!("--duration {}", duration.as_secs_f64()),
        Limits { .. } => "stopped".to_owned(),
    };
    let command = if ends_command {
        "ending CMD and its descendants with SIGTERM (--kill-after-stop)"
    } else {
        "CMD runs on untraced"
    };
    format!("tracing ended ({limit}); {command}")
}

/// Waits for the command.
async fn wait(started: &Started) -> Result<u8> {
    started.wait().await.context("cannot wait for the command")
}

/// Shows the diagnostics of the eBPF programs as they come, until the handle is dropped.
fn show_log(tracer: &mut Tracer) -> Result<Option<JoinHandle<()>>> {
    let Some(logger) = tracer.take_log() else { return Ok(None) };
    // SAFETY: the logger owns its fd, and closes it when it is dropped.
    let mut logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
        .map_err(io::Error::from)
        .context("cannot wait for diagnostics")?;
    Ok(Some(tokio::spawn(async move {
        while let Ok(mut readable) = logger.readable_mut().await {
            readable.get_inner_mut().flush();
            readable.clear_ready();
        }
    })))
}
