//! What only a live session has: a clock, the traced processes, pending failures, and the output of
//! the traced command.

use crate::event::Incident;
use std::collections::VecDeque;

/// The most lines of the command's output in memory.
const LINES: usize = 1_000;
/// A longer line is split.
const LONGEST: usize = 4_096;

/// A root of the traced trees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traced {
    /// Its pid.
    pub pid: u32,
    /// Its name when tracing began.
    pub comm: Option<String>,
    /// Whether it is alive.
    pub alive: bool,
}

/// The state of a live session.
#[derive(Debug, Default)]
pub struct Live {
    /// CLOCK_MONOTONIC at the time of drawing, in nanoseconds.
    pub now_ns: u64,
    /// The roots of the traced trees; empty for the whole machine.
    pub traced: Vec<Traced>,
    /// Pending failures, the newest last.
    pub pending: Vec<Box<Incident>>,
    /// The output of the traced command, if there is one.
    pub output: Option<CommandLines>,
    /// Whether tracing has ended.
    pub ended: bool,
}

/// A caption, such as that of the demo that runs.
pub type Caption = Box<dyn Fn() -> String + Send>;

/// A count that grows.
pub type Counter = Box<dyn Fn() -> u64 + Send>;

/// What is read before each frame, because no line reports it.
#[derive(Default)]
pub struct Probes {
    /// The execs in what is traced.
    pub execs: Option<Counter>,
    /// The forks on the machine.
    pub forks: Option<Counter>,
    /// What runs.
    pub caption: Option<Caption>,
}

/// What [`Probes`] gave last.
#[derive(Clone, Debug, Default)]
pub struct Probed {
    /// The execs in what is traced.
    pub execs: Option<u64>,
    /// The forks on the machine.
    pub forks: Option<u64>,
    /// What runs.
    pub caption: Option<String>,
}

impl Probes {
    /// Reads all of them.
    #[must_use]
    pub fn read(&self) -> Probed {
        let count = |counter: &Option<Counter>| counter.as_ref().map(|counter| counter());
        Probed {
            execs: count(&self.execs),
            forks: count(&self.forks),
            caption: self.caption.as_ref().map(|caption| caption()),
        }
    }
}

/// An event of a session that is not a line.
#[derive(Debug)]
pub enum SessionEvent {
    /// A call has failed; its line follows later.
    Pending(Box<Incident>),
    /// The traced command wrote something.
    Output(Vec<u8>),
    /// A root of the traced trees has ended.
    Exited(u32),
    /// Another output has failed.
    OutputFailed(String),
    /// Tracing has ended.
    Ended,
}

impl Live {
    /// Applies an event.
    pub fn apply(&mut self, event: SessionEvent) {
        match event {
            SessionEvent::Pending(incident) => self.pending.push(incident),
            SessionEvent::Output(bytes) => {
                if let Some(output) = &mut self.output {
                    output.add(&bytes);
                }
            }
            SessionEvent::Exited(pid) => {
                for traced in self.traced.iter_mut().filter(|traced| traced.pid == pid) {
                    traced.alive = false;
                }
            }
            // The footer shows it.
            SessionEvent::OutputFailed(_) => {}
            SessionEvent::Ended => {
                self.ended = true;
                self.pending.clear();
            }
        }
    }

    /// Removes a failure that is no longer pending.
    pub fn remove_pending(&mut self, incident: &Incident) {
        self.pending.retain(|it| key(it) != key(incident));
    }

    /// Whether a failure is pending.
    #[must_use]
    pub fn is_pending(&self, incident: &Incident) -> bool {
        self.pending.iter().any(|it| key(it) == key(incident))
    }
}

/// Identifies a failure: a thread makes one call at a time.
fn key(incident: &Incident) -> (u64, u32) {
    (incident.time_ns, incident.victim.tid)
}

/// The last lines of a text that arrives in pieces.
#[derive(Debug, Default)]
pub struct CommandLines {
    lines: VecDeque<String>,
    /// The line that is not complete.
    last: Vec<u8>,
}

impl CommandLines {
    /// Adds a piece, which may end anywhere.
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

    /// All lines; the last one may not be complete.
    #[must_use]
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = String> {
        let last =
            (!self.last.is_empty()).then(|| String::from_utf8_lossy(&self.last).into_owned());
        self.lines.iter().cloned().chain(last)
    }
}

#[cfg(test)]
impl Live {
    /// A session with one pending failure.
    pub(in crate::tui) fn pending(incident: Incident, now_ns: u64) -> Self {
        Self { now_ns, pending: vec![Box::new(incident)], ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn a_failure_is_pending_until_its_line_arrives() {
        let mut live = Live::default();
        let (first, mut second) = (samples::race(), samples::race());
        second.victim.tid += 1;
        live.apply(SessionEvent::Pending(Box::new(first.clone())));
        live.apply(SessionEvent::Pending(Box::new(second.clone())));
        assert!(live.is_pending(&first));
        live.remove_pending(&first);
        assert!(!live.is_pending(&first));
        assert_eq!(live.pending, [Box::new(second)]);
        live.apply(SessionEvent::Ended);
        assert!(live.pending.is_empty());
    }

    #[test]
    fn the_exit_of_a_root_is_recorded() {
        let root = |pid, alive| Traced { pid, comm: None, alive };
        let mut live = Live { traced: vec![root(7, true), root(8, true)], ..Live::default() };
        live.apply(SessionEvent::Exited(8));
        assert_eq!(live.traced, [root(7, true), root(8, false)]);
    }

    #[test]
    fn lines_arrive_in_pieces_and_the_last_ones_are_kept() {
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
