//! How lines, and what else happens, get to the view: from a recording, which waits for the view,
//! and from a live session, which never does.

use crate::tui::model::{incidents::Skipped, live};
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

/// How many failures at once are shown while they are pending.
const PENDING: usize = 16;

/// What the view waits for.
pub(in crate::tui) enum Message {
    Line(Box<Line>),
    /// The view was too slow for these.
    Skipped(Skipped),
    /// What only a live session has.
    Session(live::Event),
    /// There are no more lines; what to say about it, or why.
    End(anyhow::Result<End>),
    Terminal(Event),
    Signal(Signal),
}

/// How the lines came to an end.
#[derive(Debug)]
pub struct End {
    /// What to say.
    pub words: String,
    /// Whether the view is to end, too.
    pub quit: bool,
}

impl End {
    /// The view stays for the user to look.
    #[must_use]
    pub fn stay(words: String) -> Self {
        Self { words, quit: false }
    }

    /// The view ends.
    #[must_use]
    pub fn quit() -> Self {
        Self { words: String::new(), quit: true }
    }
}

/// Where lines for the view go.
#[derive(Clone)]
pub struct Feed(pub(in crate::tui) SyncSender<Message>);

impl Feed {
    /// Hands over a line, and waits for room; false once the view has gone.
    #[must_use]
    pub fn line(&self, line: Line) -> bool {
        self.send(Message::Line(Box::new(line)))
    }

    /// Tells what happened in a session.
    pub fn session(&self, event: live::Event) {
        // A view that has gone need not know.
        let _ = self.send(Message::Session(event));
    }

    /// The view as one more output of a session: what finds no room is counted, and a view that
    /// has gone takes everything.
    #[must_use]
    pub fn live(self) -> impl Output {
        Live { feed: self, skipped: Skipped::default(), pending: HashSet::new() }
    }

    fn send(&self, message: Message) -> bool {
        self.0.send(message).is_ok()
    }
}

/// A session's output that is shown.
struct Live {
    feed: Feed,
    skipped: Skipped,
    /// The failures shown while they are pending, by time and thread.
    pending: HashSet<(u64, u32)>,
}

impl Live {
    /// Hands over a message if there is room.
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
            // The first finds room, and at the last tracing is over.
            Line::Meta(_) | Line::Summary(_) => {
                let skipped = std::mem::take(&mut self.skipped);
                let _ = self.feed.send(Message::Skipped(skipped)) && self.feed.line(line.clone());
            }
        }
        Ok(())
    }

    fn failed(&mut self, words: &str) {
        self.offer(Message::Session(live::Event::OutputFailed(words.to_owned())));
    }

    fn pending(&mut self, incident: &dyn Fn() -> Incident) {
        if self.pending.len() < PENDING {
            let incident = incident();
            let place = (incident.time_ns, incident.victim.tid);
            if self.offer(Message::Session(live::Event::Pending(Box::new(incident)))) {
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
    fn what_finds_no_room_is_counted_and_told_later() {
        let (sender, receiver) = sync_channel(1);
        let mut live = live(sender);
        let race = Line::from(samples::race());
        for _ in 0..3 {
            live.line(&race).unwrap();
        }
        assert!(matches!(receiver.try_recv(), Ok(Message::Line(_))));
        live.line(&race).unwrap();
        let Ok(Message::Skipped(skipped)) = receiver.try_recv() else { panic!("not told") };
        assert_eq!(skipped, Skipped { incidents: 2, explained: 2, lost: 0 });
        // That one found the room taken by the word about the others.
        assert_eq!(live.skipped.incidents, 1);
    }

    #[test]
    fn a_view_that_has_gone_takes_everything() {
        let (sender, receiver) = sync_channel(1);
        drop(receiver);
        let mut live = live(sender);
        for line in samples::every_line() {
            live.line(&line).unwrap();
        }
        assert_eq!(live.skipped, Skipped::default());
    }

    #[test]
    fn only_so_many_are_shown_while_they_are_pending() {
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
