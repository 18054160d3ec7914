//! Runs a session in the view.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use procfs::{CurrentSI as _, KernelStats};
use tokio::sync::Notify;

use super::terminal::{self, Quit, SignalOwner};
use crate::tui::{
    command_output::Streams,
    feed::{End, Feed},
    model::{
        live::{CommandLines, Counter, Live, SessionEvent, Traced},
        state::State,
    },
};
use crate::{
    host::process,
    session::{
        Sink,
        trace_run::{Outcome, TraceRun},
    },
};

/// Traces in the view, which stays open until the user quits. `streams` are those of the command;
/// what it wrote is written to stdout at the end.
pub fn run(mut job: TraceRun, mut state: State, streams: Option<Streams>) -> Result<Outcome> {
    let traced: Vec<Traced> = job.filter.pids.iter().map(|pid| root(*pid)).collect();
    let output = streams.as_ref().map(|_| CommandLines::default());
    state.live = Some(Live { traced, output, ..Live::default() });
    state.probes.execs = job.tracer.exec_counter().ok();
    state.probes.forks = forks();
    let has_command = job.prepared.is_some();
    let stop = Arc::new(Notify::new());
    let (reading_sender, reading) = mpsc::channel();
    let (outcome_sender, outcome) = mpsc::channel();
    let (pids, stopped) = (job.filter.pids.clone(), Arc::clone(&stop));
    let source = move |feed: Feed| {
        let reads = streams.map(|streams| streams.read(feed.clone())).transpose()?;
        let _ = reading_sender.send(reads);
        watch(pids, &feed);
        job.sinks.push(Sink::direct("the view", feed.live()));
        let outcome = job.run(&stopped, |text| log::warn!("{text}"));
        let end = end(&outcome);
        let _ = outcome_sender.send(outcome);
        Ok(end)
    };
    let signals = if has_command { SignalOwner::Source } else { SignalOwner::View };
    let quit = terminal::show(state, signals, source, |_| Ok(()));
    let reading = reading.recv().ok().flatten();
    if let Some(reading) = &reading {
        reading.to_terminal()?;
    }
    if !has_command {
        stop.notify_one();
    } else if matches!(quit, Ok(Quit::Interrupt)) {
        // The view has taken the key, so the terminal did not send the signal.
        kill(Pid::from_raw(0), Signal::SIGINT).context("cannot interrupt the command")?;
    }
    let outcome = outcome.recv();
    if let Some(reading) = reading {
        reading.end();
    }
    quit?;
    outcome.context("tracing ended early")?
}

/// Counts the forks on the machine from now on, with those that make threads.
fn forks() -> Option<Counter> {
    let count = || Some(KernelStats::current().ok()?.processes);
    let before = count()?;
    Some(Box::new(move || count().unwrap_or(before).saturating_sub(before)))
}

/// The current state of a root of the traced trees.
fn root(pid: u32) -> Traced {
    let process = procfs::process::Process::new(pid.cast_signed());
    let comm = process.and_then(|process| process.stat()).ok().map(|stat| stat.comm);
    Traced { pid, comm, alive: process::is_alive(pid) }
}

/// Reports the end of processes to the view.
fn watch(pids: Vec<u32>, feed: &Feed) {
    for pid in pids {
        let feed = feed.clone();
        thread::spawn(move || {
            process::await_end(pid);
            feed.session(SessionEvent::Exited(pid));
        });
    }
}

/// What the view does when tracing has ended.
fn end(outcome: &Result<Outcome>) -> End {
    /// Exit statuses of a command that a signal killed, as shells report them.
    const KILLED: [u8; 4] = [128 + 1, 128 + 2, 128 + 3, 128 + 15];
    match outcome {
        // The signal that killed the command was for us, too.
        Ok(Outcome { code, .. }) if code.is_some_and(|code| KILLED.contains(&code)) => End::quit(),
        Ok(Outcome { code: Some(code), .. }) => {
            End::stay(format!("the command ended with status {code}"))
        }
        Ok(Outcome { code: None, .. }) => End::stay("tracing has ended".to_owned()),
        Err(_) => End::quit(),
    }
}
