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
    time::Duration,
};
use tokio::sync::Notify;

/// The most bytes that can wait, approximately. The largest line has less than a tenth of it.
const MOST_BYTES: usize = 16 << 20;

/// How often a line is written again for which the disk had no room.
const RETRY: Duration = Duration::from_millis(500);

/// The lines that wait for an output's thread.
pub struct Queue {
    shared: Arc<Shared>,
    /// Whether lines are dropped until half of the queue is free again.
    stalled: bool,
    /// Incidents and refusals that were dropped and not reported yet.
    dropped: u64,
    /// The same while the disk was full.
    dropped_full: u64,
    /// All incidents and refusals that were dropped.
    all_dropped: u64,
    /// `lost` lines for which there was no room.
    pending_lost: Vec<Lost>,
}

struct Shared {
    state: Mutex<State>,
    /// Notified when the thread has something to do.
    wake: Condvar,
    /// Notified when the thread has ended, or has a notice.
    ended: Arc<Notify>,
}

#[derive(Default)]
#[allow(clippy::struct_excessive_bools, reason = "the flags are independent")]
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
    /// Whether the first line waits until there is room on the disk.
    full: bool,
    /// Whether the output has to be opened again.
    reopen: bool,
    notices: Vec<Notice>,
}

/// What the user should know of an output that has not failed.
#[derive(Debug, PartialEq, Eq)]
pub enum Notice {
    /// The disk is full, with the system's words.
    Full(String),
    /// There is room again.
    HasRoom,
    /// A message of the output.
    Message(String),
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
    /// notified when the thread has ended (after the last line, or because the output failed), and when it
    /// has a notice.
    pub fn start(output: Box<dyn Output>, ended: Arc<Notify>) -> io::Result<Self> {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { state, wake: Condvar::new(), ended });
        let theirs = Arc::clone(&shared);
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let started =
            thread::Builder::new().name("output".to_owned()).spawn(move || theirs.write(output));
        mask.thread_set_mask()?;
        started?;
        Ok(Self {
            shared,
            stalled: false,
            dropped: 0,
            dropped_full: 0,
            all_dropped: 0,
            pending_lost: Vec::new(),
        })
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
                *(if state.full { &mut self.dropped_full } else { &mut self.dropped }) += 1;
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
        for (kind, what, dropped) in [
            (
                LossKind::OutputStalled,
                "lines: the reader of this output was too slow",
                &mut self.dropped,
            ),
            (
                LossKind::OutputFull,
                "lines: the disk of this output was full",
                &mut self.dropped_full,
            ),
        ] {
            let (count, what) = (std::mem::take(dropped), what.to_owned());
            if count > 0 {
                state.push(Arc::new(Line::Lost(Lost { kind, what, count })));
            }
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

    /// Has the output opened again by its name.
    pub fn reopen(&self) {
        self.shared.state().reopen = true;
        self.shared.wake.notify_one();
    }

    /// What the user should know, once.
    #[must_use]
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.shared.state().notices)
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
        while let Some(line) = self.next(&mut *output) {
            if matches!(*line, Line::Summary(_)) && self.state().command_failed {
                output.command_failed();
            }
            let written = self.write_line(&mut *output, &line);
            self.pass_on_message(&mut *output);
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

    /// Writes a line; if the disk is full, as soon as there is room, but once more at most when no more
    /// lines follow.
    fn write_line(&self, output: &mut dyn Output, line: &Line) -> io::Result<()> {
        loop {
            let is_last_try = self.state().closed;
            match output.line(line) {
                Err(error) if !is_last_try && output.can_retry(&error) => {
                    self.await_room(&error);
                    self.reopen_if_asked(output);
                }
                written => {
                    let mut state = self.state();
                    if written.is_ok() && std::mem::take(&mut state.full) {
                        state.notices.push(Notice::HasRoom);
                        drop(state);
                        self.ended.notify_one();
                    }
                    return written;
                }
            }
        }
    }

    /// Waits until it is time to try again to write to a full disk.
    fn await_room(&self, error: &io::Error) {
        let mut state = self.state();
        if !std::mem::replace(&mut state.full, true) {
            state.notices.push(Notice::Full(error.to_string()));
            self.ended.notify_one();
        }
        let waits = |state: &mut State| !state.closed && !state.reopen;
        drop(self.wake.wait_timeout_while(state, RETRY, waits));
    }

    fn reopen_if_asked(&self, output: &mut dyn Output) {
        if std::mem::take(&mut self.state().reopen) {
            output.reopen();
            self.pass_on_message(output);
        }
    }

    fn pass_on_message(&self, output: &mut dyn Output) {
        if let Some(message) = output.take_message() {
            self.state().notices.push(Notice::Message(message));
            self.ended.notify_one();
        }
    }

    /// Waits for the next line, which stays in the queue; `None` after the last.
    fn next(&self, output: &mut dyn Output) -> Option<Arc<Line>> {
        let mut state = self.state();
        loop {
            if state.reopen {
                drop(state);
                self.reopen_if_asked(output);
                state = self.state();
            }
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

    /// A disk with room for a number of lines.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<Line>)>>);

    impl Disk {
        fn add_room(&self, lines: usize) {
            self.0.lock().unwrap().0 += lines;
        }

        fn lines(&self) -> Vec<Line> {
            self.0.lock().unwrap().1.clone()
        }
    }

    impl Output for Disk {
        fn line(&mut self, line: &Line) -> io::Result<()> {
            let mut disk = self.0.lock().unwrap();
            disk.0 = disk.0.checked_sub(1).ok_or(io::ErrorKind::StorageFull)?;
            disk.1.push(line.clone());
            Ok(())
        }

        fn can_retry(&self, error: &io::Error) -> bool {
            error.kind() == io::ErrorKind::StorageFull
        }
    }

    /// Waits for a notice.
    fn notice(queue: &Queue, ended: &Notify) -> Notice {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        loop {
            if let Some(notice) = queue.take_notices().pop() {
                return notice;
            }
            runtime.block_on(ended.notified());
        }
    }

    /// A queue to a disk that was full after the first line.
    fn on_a_full_disk() -> (Disk, Queue, Arc<Notify>) {
        let disk = Disk::default();
        disk.add_room(1);
        let ended = Arc::new(Notify::new());
        let mut queue = Queue::start(Box::new(disk.clone()), Arc::clone(&ended)).unwrap();
        queue.line(&Arc::new(samples::meta().into()));
        queue.line(&heavy(1, 10));
        assert!(matches!(notice(&queue, &ended), Notice::Full(_)));
        (disk, queue, ended)
    }

    /// Closes a queue, and waits for its end.
    fn end(queue: &Queue, ended: &Notify) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        queue.close();
        while !queue.is_done() {
            runtime.block_on(ended.notified());
        }
    }

    #[test]
    fn lines_wait_for_room_on_the_disk_and_those_beyond_memory_are_counted() {
        const LINES: u64 = 40;
        let (disk, mut queue, ended) = on_a_full_disk();
        for id in 2..=LINES {
            queue.line(&heavy(id, 1 << 20));
        }
        disk.add_room(usize::MAX / 2);
        assert_eq!(notice(&queue, &ended), Notice::HasRoom);
        queue.line(&Arc::new(Line::Summary(crate::event::Summary::default())));
        end(&queue, &ended);
        assert!(queue.take_error().is_none());
        let lines = disk.lines();
        let [Line::Meta(_), incidents @ .., Line::Lost(lost), Line::Summary(end)] = &lines[..]
        else {
            panic!("{} lines", lines.len());
        };
        assert!(incidents.len() > 10, "{}", incidents.len());
        let dropped = LINES - incidents.len() as u64;
        assert_eq!((lost.kind, lost.count, end.lost), (LossKind::OutputFull, dropped, dropped));
    }

    #[test]
    fn a_disk_that_is_full_at_the_end_is_an_error() {
        let (_disk, queue, ended) = on_a_full_disk();
        end(&queue, &ended);
        assert_eq!(queue.take_error().unwrap().kind(), io::ErrorKind::StorageFull);
        assert_eq!(queue.written(), Written { lines: 1, incidents: 0 });
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
