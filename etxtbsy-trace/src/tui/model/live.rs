//! What only a live session has: a clock, the traced processes, failures that are pending,
//! and what the traced command writes.

use crate::event::Incident;
use std::collections::VecDeque;

/// How many lines of the command's output are kept.
const LINES: usize = 1_000;
/// A line is broken after so many bytes.
const LONGEST: usize = 4_096;

/// A root of the traced trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Process.
    pub pid: u32,
    /// Its name when tracing began.
    pub comm: Option<String>,
    /// Whether it lives.
    pub alive: bool,
}

/// The session as it goes on.
#[derive(Debug, Default)]
pub struct Live {
    /// CLOCK_MONOTONIC as of the drawing, in nanoseconds.
    pub now_ns: u64,
    /// The roots of the traced trees; empty for the whole machine.
    pub traced: Vec<Traced>,
    /// Failures that are pending, the newest last.
    pub pending: Vec<Box<Incident>>,
    /// What the traced command wrote; `None` without one.
    pub output: Option<CommandLines>,
    /// Whether tracing is over.
    pub ended: bool,
}

/// Something that happens in a session besides its lines.
#[derive(Debug)]
pub enum Event {
    /// A pending failure.
    Pending(Box<Incident>),
    /// The traced command wrote something.
    Output(Vec<u8>),
    /// A root of the traced trees has ended.
    Exited(u32),
    /// An output, other than the view, has failed.
    OutputFailed(String),
    /// Tracing is over.
    Ended,
}

impl Live {
    /// Takes what happened.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Pending(incident) => self.pending.push(incident),
            Event::Output(bytes) => {
                if let Some(output) = &mut self.output {
                    output.add(&bytes);
                }
            }
            Event::Exited(pid) => {
                for traced in self.traced.iter_mut().filter(|traced| traced.pid == pid) {
                    traced.alive = false;
                }
            }
            // That is said to the user.
            Event::OutputFailed(_) => {}
            Event::Ended => {
                self.ended = true;
                self.pending.clear();
            }
        }
    }

    /// A failure is not pending any more.
    pub fn settle(&mut self, incident: &Incident) {
        self.pending.retain(|it| of(it) != of(incident));
    }

    /// Whether a failure is pending.
    #[must_use]
    pub fn is_pending(&self, incident: &Incident) -> bool {
        self.pending.iter().any(|it| of(it) == of(incident))
    }
}

/// What tells a failure from all others: a thread does one call at a time.
fn of(incident: &Incident) -> (u64, u32) {
    (incident.time_ns, incident.victim.tid)
}

/// The last lines of a text that comes in pieces.
#[derive(Debug, Default)]
pub struct CommandLines {
    lines: VecDeque<String>,
    /// The one that has not ended.
    last: Vec<u8>,
}

impl CommandLines {
    /// Takes a piece, which may end anywhere.
    pub fn add(&mut self, bytes: &[u8]) {
        let lines = bytes.split_inclusive(|byte| *byte == b'\n');
        for piece in lines.flat_map(|line| line.chunks(LONGEST)) {
            self.last.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.last.len() >= LONGEST {
                let line = std::mem::take(&mut self.last);
                self.lines.push_back(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
            }
        }
        let more = self.lines.len().saturating_sub(LINES);
        self.lines.drain(..more);
    }

    /// The lines there are, the one that has not ended last.
    #[must_use]
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = String> {
        let last =
            (!self.last.is_empty()).then(|| String::from_utf8_lossy(&self.last).into_owned());
        self.lines.iter().cloned().chain(last)
    }
}

#[cfg(test)]
impl Live {
    /// A session with a pending failure.
    pub(in crate::tui) fn pending(incident: Incident, now_ns: u64) -> Self {
        Self { now_ns, pending: vec![Box::new(incident)], ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn a_failure_is_pending_until_its_line_comes() {
        let mut live = Live::default();
        let (first, mut second) = (samples::race(), samples::race());
        second.victim.tid += 1;
        live.take(Event::Pending(Box::new(first.clone())));
        live.take(Event::Pending(Box::new(second.clone())));
        assert!(live.is_pending(&first));
        live.settle(&first);
        assert!(!live.is_pending(&first));
        assert_eq!(live.pending, [Box::new(second)]);
        live.take(Event::Ended);
        assert!(live.pending.is_empty());
    }

    #[test]
    fn the_end_of_a_root_is_noted() {
        let root = |pid, alive| Traced { pid, comm: None, alive };
        let mut live = Live { traced: vec![root(7, true), root(8, true)], ..Live::default() };
        live.take(Event::Exited(8));
        assert_eq!(live.traced, [root(7, true), root(8, false)]);
    }

    #[test]
    fn lines_come_in_pieces_and_the_last_are_kept() {
        let mut output = CommandLines::default();
        for piece in ["one\r\ntw", "o\nthr"] {
            output.add(piece.as_bytes());
        }
        assert_eq!(output.lines().collect::<Vec<_>>(), ["one", "two", "thr"]);
        output.add(&b"\n".repeat(3 * LINES));
        assert_eq!(output.lines().count(), LINES);
        output.add(&b"x".repeat(10 * LONGEST + 1));
        assert_eq!(output.lines().map(|line| line.len()).max(), Some(LONGEST));
    }
}
