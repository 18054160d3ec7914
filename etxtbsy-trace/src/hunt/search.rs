//! The hunt itself: one run after the other, under one session.

use std::{fs::File, io, os::unix::fs::FileExt as _, time::Duration};

use anyhow::{Context as _, Result, bail};
use tokio::{
    sync::Notify,
    time::{Instant, interval, sleep},
};

use super::{
    collected::Collected,
    launcher::{Launcher, Line, RunEnd},
    plan::{Plan, Planned},
    progress::Progress,
};
use crate::{
    event::{Filter, Provoke, Run},
    report::model::Report,
    session::{Ended, Limits, RunFound, Session, Sink, signals::Signals, trace_run::event_loop},
    tracer::loader::Tracer,
};

/// How long the command has to end by itself after Ctrl-C, which it gets as well.
const AFTER_INTERRUPT: Duration = Duration::from_secs(2);
/// How many runs' outputs are kept, and how many bytes of each: its end.
const OUTPUTS: usize = 3;
const OUTPUT_BYTES: u64 = 64 << 10;

/// A hunt with all it needs.
pub struct Hunt {
    /// Live; the launcher is the root of its tree.
    pub tracer: Tracer,
    /// The same filter, for the first line.
    pub filter: Filter,
    /// How calls of provoked runs are delayed, for the first line.
    pub provoke: Option<Provoke>,
    /// Where the lines go.
    pub sinks: Vec<Sink>,
    /// What starts the command.
    pub launcher: Launcher,
    /// Which runs there are.
    pub plan: Plan,
    /// After how many incidents it ends.
    pub incidents: Option<u64>,
    /// Whether stderr is a terminal for the progress.
    pub shows_progress: bool,
}

/// How a hunt ended.
pub struct Outcome {
    /// How tracing ended.
    pub traced: Ended,
    /// All lines, for the report.
    pub report: Report,
    /// The outputs of the first runs that failed.
    pub outputs: Vec<KeptOutput>,
    /// Why the command could not be started, and the exit status for that.
    pub not_started: Option<(u8, String)>,
    /// Whether the last run was cut short.
    pub cut_short: bool,
}

/// The output of a run that failed.
#[derive(Debug)]
pub struct KeptOutput {
    /// The run.
    pub run: Run,
    /// The exit status of its command.
    pub code: u8,
    /// What was found in it.
    pub found: RunFound,
    /// The end of its output.
    pub text: Vec<u8>,
    /// How many bytes came before.
    pub skipped: u64,
}

/// What happened while a run went on.
enum Event {
    End(Option<RunEnd>),
    Interrupted,
}

impl Hunt {
    /// Runs the command until the plan, a limit or a signal ends the hunt.
    pub fn run(self) -> Result<Outcome> {
        event_loop()?.block_on(self.search())
    }

    async fn search(self) -> Result<Outcome> {
        let Self { tracer, filter, provoke, mut sinks, launcher, plan, incidents, .. } = self;
        let collected = Collected::default();
        sinks.push(Sink::direct("the hunt", collected.clone()));
        let line = launcher.line().context("cannot wait for the process that starts CMD")?;
        let mut signals = Signals::catch().context("cannot catch signals")?;
        let deadline = plan.time.map(|time| Instant::now() + time);
        let mut progress = Progress::new(self.shows_progress, deadline);
        let mut session = Session::begin(tracer, filter, provoke, sinks)?;
        let (mut outputs, mut not_started, mut cut_short) = (Vec::new(), None, false);
        let mut done = 0;
        while let Some(planned) = plan.next(done) {
            let duration = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if duration.is_some_and(|left| left.is_zero()) {
                break;
            }
            session.begin_run(planned.run);
            let limits = Limits { duration, incidents };
            let run = one_run(&line, planned, &progress, &mut signals);
            let code = match session.trace(Some(run), limits, &Notify::new()).await? {
                Some(Event::End(Some(RunEnd::Ended { code }))) => code,
                Some(Event::End(Some(RunEnd::NotStarted { code, why }))) => {
                    session.end_run(None);
                    session.command_failed();
                    not_started = Some((code, why));
                    break;
                }
                Some(Event::End(None)) => {
                    bail!("the process that starts CMD has ended: was it killed?")
                }
                interrupted => {
                    if interrupted.is_some() {
                        // The command got the same signal, if it came from the terminal.
                        let ended = async {
                            tokio::select! {
                                end = line.end() => { end?; }
                                _ = signals.next() => {}
                                () = sleep(AFTER_INTERRUPT) => {}
                            }
                            Ok(())
                        };
                        session.trace(Some(ended), Limits::default(), &Notify::new()).await?;
                    }
                    line.stop();
                    let ended = async {
                        while line.end().await?.is_some() {}
                        Ok(())
                    };
                    session.trace(Some(ended), Limits::default(), &Notify::new()).await?;
                    session.end_run(None);
                    cut_short = true;
                    break;
                }
            };
            let found = session.end_run(Some(code == 0));
            progress.take(|| session.hunted());
            done += 1;
            if (code != 0 || found.failures > 0) && outputs.len() < OUTPUTS {
                let output = launcher.output().and_then(|file| tail(&file));
                let (text, skipped) = output.context("cannot read the output of CMD")?;
                outputs.push(KeptOutput { run: planned.run, code, found, text, skipped });
            }
            if plan.is_met(found.failures, found.near_misses) {
                break;
            }
        }
        progress.clear();
        drop(launcher);
        let traced = session.end(Limits { duration: None, incidents }).await?;
        Ok(Outcome { traced, report: collected.take(), outputs, not_started, cut_short })
    }
}

/// One run, with its progress.
async fn one_run(
    line: &Line,
    Planned { run, provocation }: Planned,
    progress: &Progress,
    signals: &mut Signals,
) -> io::Result<Event> {
    line.ask(provocation).await?;
    let mut second = interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            end = line.end() => return Ok(Event::End(end?)),
            _ = signals.next() => return Ok(Event::Interrupted),
            _ = second.tick() => progress.show(run),
        }
    }
}

/// The end of a file, and how many bytes come before.
fn tail(file: &File) -> io::Result<(Vec<u8>, u64)> {
    let length = file.metadata()?.len();
    let skipped = length.saturating_sub(OUTPUT_BYTES);
    let mut text = vec![0; (length - skipped) as usize];
    let mut read = 0;
    while read < text.len() {
        match file.read_at(&mut text[read..], skipped + read as u64) {
            // What is left of an earlier run may empty it.
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    text.truncate(read);
    Ok((text, skipped))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_long_output_is_kept() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"short", 0).unwrap();
        assert_eq!(tail(&file).unwrap(), (b"short".to_vec(), 0));
        file.write_all_at(b"end", 3 * OUTPUT_BYTES - 3).unwrap();
        let (text, skipped) = tail(&file).unwrap();
        assert_eq!((text.len() as u64, skipped), (OUTPUT_BYTES, 2 * OUTPUT_BYTES));
        assert!(text.ends_with(b"\0end"));
    }
}
