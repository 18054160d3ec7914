//! A session shown in the view.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use anyhow::{Context as _, Result};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::sync::Notify;

use super::terminal::{self, Left, Signals};
use crate::tui::{
    command_output::Streams,
    feed::{End, Feed},
    model::{
        live::{CommandLines, Event, Live, Traced},
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

/// Traces in the view, which stays until the user has seen enough. `streams` are what the
/// command writes to; what it wrote is written to stdout in the end.
pub fn run(mut job: TraceRun, mut state: State, streams: Option<Streams>) -> Result<Outcome> {
    let traced: Vec<Traced> = job.filter.pids.iter().map(|pid| root(*pid)).collect();
    let output = streams.as_ref().map(|_| CommandLines::default());
    state.live = Some(Live { traced, output, ..Live::default() });
    let has_command = job.prepared.is_some();
    let stop = Arc::new(Notify::new());
    let (tell_reading, reading) = mpsc::channel();
    let (tell_outcome, outcome) = mpsc::channel();
    let (pids, stopped) = (job.filter.pids.clone(), Arc::clone(&stop));
    let source = move |feed: Feed| {
        let reads = streams.map(|streams| streams.read(feed.clone())).transpose()?;
        let _ = tell_reading.send(reads);
        watch(pids, &feed);
        job.sinks.push(Sink::direct("the view", feed.live()));
        let outcome = job.run(&stopped, |text| log::warn!("{text}"));
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
