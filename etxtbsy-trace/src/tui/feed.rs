//! Passes lines and other events to the view. A recording waits for the view; a live session never
//! does.

use crate::tui::model::{incidents::Skipped, live::SessionEvent};
use crate::{
    event::{Incident, Line},
    output::Output,
};
use nix::sys::signal::Signal;
use ratatui::crossterm::event::Event;
use std::{
    collections::HashSet,
    io,
    sync::mpsc::{SyncSender, TrySendError},
};

/// The most pending failures that are shown at once.
const PENDING: usize = 16;

/// An input of the view.
pub(in crate::tui) enum Message {
    Line(Box<Line>),
    /// The view was too slow for these.
    Skipped(Skipped),
    /// An event of a live session.
    Session(SessionEvent),
    /// No more lines follow.
    End(anyhow::Result<End>),
    Terminal(Event),
    Signal(Signal),
}

/// How the input ended.
#[derive(Debug)]
pub struct End {
    /// The message for the footer.
    pub message: String,
    /// Whether the view closes, too.
    pub quit: bool,
}

impl End {
    /// The view stays open.
    #[must_use]
    pub fn stay(message: String) -> Self {
        Self { message, quit: false }
    }

    /// The view closes.
    #[must_use]
    pub fn quit() -> Self {
        Self { message: String::new(), quit: true }
    }
}

/// The sender to the view.
#[derive(Clone)]
pub struct Feed(pub(in crate::tui) SyncSender<Message>);

impl Feed {
    /// Sends a line, and waits for room; false once the view has closed.
    #[must_use]
    pub fn line(&self, line: Line) -> bool {
        self.send(Message::Line(Box::new(line)))
    }

    /// Sends an event of a session.
    pub fn session(&self, event: SessionEvent) {
        // A closed view ignores it.
        let _ = self.send(Message::Session(event));
    }

    /// The view as an output of a session. Lines without room are counted; a closed view discards all
    /// lines.
    #[must_use]
    pub fn live(self) -> impl Output {
        Live { feed: self, skipped: Skipped::default(), pending: HashSet::new() }
    }

    fn send(&self, message: Message) -> bool {
        self.0.send(message).is_ok()
    }
}

/// The output of a session that is shown in the view.
struct Live {
    feed: Feed,
    skipped: Skipped,
    /// The pending failures that are shown, by time and thread.
    pending: HashSet<(u64, u32)>,
}

impl Live {
    /// Sends a message if there is room.
    fn offer(&mut self, message: Message) -> bool {
        if self.skipped != Skipped::default() {
            match self.feed.0.try_send(Message::Skipped(self.skipped)) {
                Ok(()) => self.skipped = Skipped::default(),
                Err(_) => return false,
            }
        }
        !matches!(self.feed.0.try_send(message), Err(TrySendError::Full(_)))
    }
}

impl Output for Live {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        match line {
            Line::Incident(incident) => {
                self.pending.remove(&(incident.time_ns, incident.victim.tid));
                if !self.offer(Message::Line(Box::new(line.clone()))) {
                    self.skipped.incidents += 1;
                    self.skipped.explained += u64::from(incident.complete);
                }
            }
            Line::NearMiss(near) => {
                if !self.offer(Message::Line(Box::new(line.clone()))) {
                    self.skipped.near_misses += near.count;
                }
            }
            Line::Refusal(_) => {
                if !self.offer(Message::Line(Box::new(line.clone()))) {
                    self.skipped.lost += 1;
                }
            }
            Line::Lost(lost) => {
                if !self.offer(Message::Line(Box::new(line.clone()))) {
                    self.skipped.lost += lost.count;
                }
            }
            // The first line has room; after the last one, waiting delays nothing.
            Line::Meta(_) | Line::Summary(_) => {
                let skipped = std::mem::take(&mut self.skipped);
                let _ = self.feed.send(Message::Skipped(skipped)) && self.feed.line(line.clone());
            }
        }
        Ok(())
    }

    fn failed(&mut self, message: &str) {
        self.offer(Message::Session(SessionEvent::OutputFailed(message.to_owned())));
    }

    fn pending(&mut self, incident: &dyn Fn() -> Incident) {
        if self.pending.len() < PENDING {
            let incident = incident();
            let place = (incident.time_ns, incident.victim.tid);
            if self.offer(Message::Session(SessionEvent::Pending(Box::new(incident)))) {
                self.pending.insert(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;
    use std::sync::mpsc::sync_channel;

    fn live(sender: SyncSender<Message>) -> Live {
        Live { feed: Feed(sender), skipped: Skipped::default(), pending: HashSet::new() }
    }

    #[test]
    fn lines_without_room_are_counted_and_reported_later() {
        let (sender, receiver) = sync_channel(1);
        let mut live = live(sender);
        let race = Line::from(samples::race());
        for _ in 0..3 {
            live.line(&race).unwrap();
        }
        assert!(matches!(receiver.try_recv(), Ok(Message::Line(_))));
        live.line(&race).unwrap();
        let Ok(Message::Skipped(skipped)) = receiver.try_recv() else { panic!("not reported") };
        assert_eq!(skipped, Skipped { incidents: 2, explained: 2, near_misses: 0, lost: 0 });
        // The report about the others has taken the room of this line.
        assert_eq!(live.skipped.incidents, 1);
    }

    #[test]
    fn a_closed_view_discards_all_lines() {
        let (sender, receiver) = sync_channel(1);
        drop(receiver);
        let mut live = live(sender);
        for line in samples::no_near_misses() {
            live.line(&line).unwrap();
        }
        assert_eq!(live.skipped, Skipped::default());
    }

    #[test]
    fn the_number_of_pending_failures_shown_is_limited() {
        let (sender, receiver) = sync_channel(1000);
        let mut live = live(sender);
        let nth = |time_ns| {
            let mut race = samples::race();
            race.time_ns = time_ns;
            race
        };
        for time_ns in 0..100 {
            live.pending(&|| nth(time_ns));
        }
        assert_eq!(receiver.try_iter().count(), PENDING);
        live.line(&nth(3).into()).unwrap();
        live.pending(&|| nth(100));
        assert_eq!(receiver.try_iter().count(), 2);
    }
}
