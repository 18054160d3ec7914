//! A session with all it needs, run to its end: with the terminal left alone, or in the view.

use crate::{
    command::{Prepared, Started},
    kernel::tracer::Tracer,
    lines::Filter,
    process,
    session::{Ended, Limits, Session, Sink},
    tui::{
        command_output::Streams,
        feed::{End, Feed},
        live::{CommandLines, Event, Live, Traced},
        state::State,
        terminal::{self, Left, Signals},
    },
};
use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    io,
    sync::{Arc, mpsc},
    thread,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    runtime::Runtime,
    sync::Notify,
    task::JoinHandle,
};

/// What is traced, and where the lines go.
pub struct Job {
    /// Live, with its filter set.
    pub tracer: Tracer,
    /// The same filter, for the first line.
    pub filter: Filter,
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

impl Job {
    /// Traces until the end, or until `stop` is notified. `say` gets a line if tracing ends before the
    /// command does.
    pub fn run(self, stop: &Notify, say: impl Fn(&str)) -> Result<Outcome> {
        event_loop()?.block_on(self.trace(stop, say))
    }

    async fn trace(self, stop: &Notify, say: impl Fn(&str)) -> Result<Outcome> {
        let Self { mut tracer, filter, sinks, prepared, limits, ends_command } = self;
        let _log = show_log(&mut tracer)?;
        let mut session = Session::begin(tracer, filter, sinks)?;
        let started = match prepared.map(Prepared::start).transpose() {
            Ok(started) => started,
            Err(error) => {
                session.command_failed();
                // The command itself may have been the busy file: that is told first.
                session.end(limits).await?;
                return Err(error.into());
            }
        };
        let code = session.trace(started.as_ref(), limits, stop).await?;
        // Where tracing is over before the command is, it goes on, gets its signals, and keeps its exit
        // status.
        let (traced, code) = match (code, &started) {
            (None, Some(started)) => {
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

    /// Traces in the view, which stays until the user has seen enough. `streams` are what the
    /// command writes to; what it wrote is written to stdout in the end.
    pub fn run_in_view(mut self, mut state: State, streams: Option<Streams>) -> Result<Outcome> {
        let traced: Vec<Traced> = self.filter.pids.iter().map(|pid| root(*pid)).collect();
        let output = streams.as_ref().map(|_| CommandLines::default());
        state.live = Some(Live { traced, output, ..Live::default() });
        let has_command = self.prepared.is_some();
        let stop = Arc::new(Notify::new());
        let (tell_reading, reading) = mpsc::channel();
        let (tell_outcome, outcome) = mpsc::channel();
        let (pids, stopped) = (self.filter.pids.clone(), Arc::clone(&stop));
        let source = move |feed: Feed| {
            let reads = streams.map(|streams| streams.read(feed.clone())).transpose()?;
            let _ = tell_reading.send(reads);
            watch(pids, &feed);
            self.sinks.push(Sink::direct("the view", feed.live()));
            let outcome = self.run(&stopped, |text| log::warn!("{text}"));
            let end = end(&outcome);
            let _ = tell_outcome.send(outcome);
            Ok(end)
        };
        let whose = if has_command { Signals::Source } else { Signals::View };
        let left = terminal::show(state, whose, source, |_| Ok(()));
        let reading = reading.recv().ok().flatten();
        if let Some(reading) = &reading {
            reading.to_terminal()?;
        }
        if !has_command {
            stop.notify_one();
        } else if matches!(left, Ok(Left::Interrupt)) {
            // As the terminal would have done, had the view not taken the key.
            kill(Pid::from_raw(0), Signal::SIGINT).context("cannot interrupt the command")?;
        }
        let outcome = outcome.recv();
        if let Some(reading) = reading {
            reading.end();
        }
        left?;
        outcome.context("tracing ended early")?
    }
}

/// A process that is traced, as it is now.
fn root(pid: u32) -> Traced {
    let process = procfs::process::Process::new(pid.cast_signed());
    let comm = process.and_then(|process| process.stat()).ok().map(|stat| stat.comm);
    Traced { pid, comm, alive: process::is_alive(pid) }
}

/// Tells the view of the end of processes.
fn watch(pids: Vec<u32>, feed: &Feed) {
    for pid in pids {
        let feed = feed.clone();
        thread::spawn(move || {
            process::await_end(pid);
            feed.session(Event::Exited(pid));
        });
    }
}

/// What the view says when tracing is over.
fn end(outcome: &Result<Outcome>) -> End {
    /// The exit status of what a signal killed, as shells give it.
    const KILLED: [u8; 4] = [128 + 1, 128 + 2, 128 + 3, 128 + 15];
    match outcome {
        // What killed the command wanted us to end, too.
        Ok(Outcome { code, .. }) if code.is_some_and(|code| KILLED.contains(&code)) => End::quit(),
        Ok(Outcome { code: Some(code), .. }) => {
            End::stay(format!("the command ended with status {code}"))
        }
        Ok(Outcome { code: None, .. }) => End::stay("tracing has ended".to_owned()),
        Err(_) => End::quit(),
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

fn event_loop() -> Result<Runtime> {
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
