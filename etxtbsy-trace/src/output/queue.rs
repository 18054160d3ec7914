//! An output with a thread of its own, so that a stalled reader delays nothing else.

use super::Output;
use crate::event::weight;
use crate::event::{Line, LossKind, Lost};
use nix::sys::signal::{SigSet, SigmaskHow};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};
use tokio::sync::Notify;

/// The most bytes that can wait, approximately. The largest line has less than a tenth of it.
const MOST_BYTES: usize = 16 << 20;

/// The lines that wait for an output's thread.
pub struct Queue {
    shared: Arc<Shared>,
    /// Whether lines are dropped until half of the queue is free again.
    stalled: bool,
    /// Incidents and refusals that were dropped and not reported yet.
    dropped: u64,
    /// All incidents and refusals that were dropped.
    all_dropped: u64,
    /// `lost` lines for which there was no room.
    pending_lost: Vec<Lost>,
}

struct Shared {
    state: Mutex<State>,
    /// Notified when the thread has something to do.
    wake: Condvar,
    /// Notified when the thread has ended.
    ended: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// The first one is being written.
    lines: VecDeque<(Arc<Line>, usize)>,
    bytes: usize,
    written: Written,
    /// Whether the command to trace could not be started.
    command_failed: bool,
    /// Whether no more lines follow.
    closed: bool,
    /// Whether the thread has ended.
    done: bool,
    error: Option<io::Error>,
}

/// What an output has written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// All lines.
    pub lines: u64,
    /// The incidents among them.
    pub incidents: u64,
}

impl Queue {
    /// Starts the thread, which blocks all signals because other threads handle them. `ended` is
    /// notified when the thread has ended: after the last line, or because the output failed.
    pub fn start(output: Box<dyn Output>, ended: Arc<Notify>) -> io::Result<Self> {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { state, wake: Condvar::new(), ended });
        let theirs = Arc::clone(&shared);
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let started =
            thread::Builder::new().name("output".to_owned()).spawn(move || theirs.write(output));
        mask.thread_set_mask()?;
        started?;
        Ok(Self { shared, stalled: false, dropped: 0, all_dropped: 0, pending_lost: Vec::new() })
    }

    /// Queues a line, or counts it if there is no room. The first and the last line are always queued.
    pub fn line(&mut self, line: &Arc<Line>) {
        let bytes = weight::line(line);
        let mut state = self.shared.state();
        if state.done {
            return;
        }
        let room = if self.stalled { MOST_BYTES / 2 } else { MOST_BYTES };
        let has_room = state.bytes == 0 || state.bytes + bytes <= room;
        match &**line {
            Line::Lost(lost) if !has_room => {
                match self
                    .pending_lost
                    .iter_mut()
                    .find(|pending| (pending.kind, &pending.what) == (lost.kind, &lost.what))
                {
                    Some(pending) => pending.count += lost.count,
                    None => self.pending_lost.push(lost.clone()),
                }
                self.stalled = true;
                return;
            }
            Line::Incident(_) | Line::NearMiss(_) | Line::Refusal(_) if !has_room => {
                self.dropped += 1;
                self.all_dropped += 1;
                self.stalled = true;
                return;
            }
            _ => {}
        }
        self.stalled = false;
        for lost in self.pending_lost.drain(..) {
            state.push(Arc::new(Line::Lost(lost)));
        }
        if self.dropped > 0 {
            let what = "lines: the reader of this output was too slow".to_owned();
            let count = std::mem::take(&mut self.dropped);
            state.push(Arc::new(Line::Lost(Lost { kind: LossKind::OutputStalled, what, count })));
        }
        match &**line {
            Line::Summary(summary) if self.all_dropped > 0 => {
                let mut summary = summary.clone();
                summary.lost += self.all_dropped;
                state.push(Arc::new(Line::Summary(summary)));
            }
            _ => state.push(Arc::clone(line)),
        }
        drop(state);
        self.shared.wake.notify_one();
    }

    /// Reports that the command could not be started: [`Output::command_failed`], before the last
    /// line.
    pub fn command_failed(&self) {
        self.shared.state().command_failed = true;
    }

    /// Reports that no more lines follow.
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.shared.wake.notify_one();
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shared.state().done
    }

    /// What the output has written so far.
    #[must_use]
    pub fn written(&self) -> Written {
        self.shared.state().written
    }

    /// Why the output failed, once; `None` if it has not.
    #[must_use]
    pub fn take_error(&self) -> Option<io::Error> {
        self.shared.state().error.take()
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

impl State {
    fn push(&mut self, line: Arc<Line>) {
        let bytes = weight::line(&line);
        self.bytes += bytes;
        self.lines.push_back((line, bytes));
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the lines as they arrive.
    fn write(&self, mut output: Box<dyn Output>) {
        while let Some(line) = self.next() {
            if matches!(*line, Line::Summary(_)) && self.state().command_failed {
                output.command_failed();
            }
            let written = output.line(&line);
            let mut state = self.state();
            let bytes = state.lines.pop_front().map_or(0, |(_, bytes)| bytes);
            state.bytes -= bytes;
            if let Err(error) = written {
                state.error = Some(error);
                break;
            }
            state.written.lines += 1;
            state.written.incidents += u64::from(matches!(*line, Line::Incident(_)));
        }
        let ended = output.end();
        let mut state = self.state();
        if let (None, Err(error)) = (&state.error, ended) {
            state.error = Some(error);
        }
        state.lines.clear();
        state.done = true;
        drop(state);
        self.ended.notify_one();
    }

    /// Waits for the next line, which stays in the queue; `None` after the last.
    fn next(&self) -> Option<Arc<Line>> {
        let mut state = self.state();
        loop {
            if let Some((line, _)) = state.lines.front() {
                return Some(Arc::clone(line));
            }
            if state.closed {
                return None;
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{json::Json, samples};
    use std::io::{BufRead as _, BufReader, pipe};

    /// An incident of about that many bytes.
    fn heavy(id: u64, bytes: usize) -> Arc<Line> {
        let mut incident = samples::race();
        incident.id = id;
        incident.path = Some("x".repeat(bytes));
        Arc::new(incident.into())
    }

    #[test]
    fn dropped_lines_are_counted_and_reported_once_there_is_room() {
        const LINES: u64 = 100;
        let (reader, writer) = pipe().unwrap();
        let ended = Arc::new(Notify::new());
        let mut queue = Queue::start(Box::new(Json::new(writer)), Arc::clone(&ended)).unwrap();
        queue.line(&Arc::new(samples::meta().into()));
        for id in 1..=LINES {
            queue.line(&heavy(id, 1 << 20));
        }
        let lost = |count| Lost { kind: LossKind::RecordsRingFull, what: "x".to_owned(), count };
        queue.line(&Arc::new(Line::Lost(lost(2))));
        queue.line(&Arc::new(Line::Lost(lost(3))));
        queue.line(&Arc::new(Line::Summary(crate::event::Summary::default())));
        queue.close();
        let lines: Vec<Line> = BufReader::new(reader)
            .lines()
            .map(|line| serde_json::from_str(&line.unwrap()).unwrap())
            .collect();
        let [
            Line::Meta(_),
            incidents @ ..,
            Line::Lost(pending),
            Line::Lost(dropped),
            Line::Summary(end),
        ] = &lines[..]
        else {
            panic!("{} lines", lines.len());
        };
        assert!(incidents.len() < 17, "{}", incidents.len());
        assert_eq!(*pending, lost(5));
        assert_eq!(dropped.kind, LossKind::OutputStalled);
        assert_eq!(dropped.count, LINES - incidents.len() as u64);
        assert_eq!(end.lost, dropped.count);
    }

    #[test]
    fn an_error_ends_the_thread_and_is_returned_once() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let ended = Arc::new(Notify::new());
        let mut queue = Queue::start(Box::new(Json::new(writer)), Arc::clone(&ended)).unwrap();
        queue.line(&heavy(1, 10));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(ended.notified());
        assert!(queue.is_done());
        assert_eq!(queue.take_error().unwrap().kind(), io::ErrorKind::BrokenPipe);
        assert!(queue.take_error().is_none());
        assert_eq!(queue.written(), Written::default());
        queue.line(&heavy(2, 10));
    }
}
