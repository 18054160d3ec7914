//! The terminal: taken over, drawn on when something changed, and given back however it ends.

use super::{state::State, view};
use crate::lines::Line;
use anyhow::Context as _;
use nix::sys::signal::{SigSet, Signal};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

/// How long after a drawing the next one comes at the soonest, unless a key was pressed.
const FRAME: Duration = Duration::from_millis(40);
/// How many messages wait at most; a reader of lines that is faster waits for us.
const WAITING: usize = 1024;

/// What the loop waits for.
enum Message {
    Line(Box<Line>),
    /// There are no more lines; what to say about it, or why.
    End(anyhow::Result<Option<String>>),
    Terminal(Event),
    /// A signal wants us to end.
    Stop,
}

/// Where lines for the view go.
pub struct Feed(SyncSender<Message>);

impl Feed {
    /// Hands over a line; false once the view has gone.
    #[must_use]
    pub fn line(&self, line: Line) -> bool {
        self.0.send(Message::Line(Box::new(line))).is_ok()
    }
}

/// Shows what `source` feeds, from a thread of its own, until the user quits; each line goes to
/// `seen`, too. `source` gives back what to say when it is through.
pub fn show(
    color: bool,
    source: impl FnOnce(&Feed) -> anyhow::Result<Option<String>> + Send + 'static,
    seen: impl FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        signals.add(signal);
    }
    // Before there are threads, which inherit it.
    signals.thread_block().context("cannot block signals")?;
    let (sender, receiver) = sync_channel(WAITING);
    // Its hook gives the terminal back on a panic.
    let mut terminal = ratatui::try_init().context("cannot take over the terminal")?;
    let (stop, keys) = (sender.clone(), sender.clone());
    thread::spawn(move || signals.wait().map(|_| stop.send(Message::Stop)));
    thread::spawn(move || {
        while let Ok(event) = event::read()
            && keys.send(Message::Terminal(event)).is_ok()
        {}
        // The terminal has gone, or the loop.
        let _ = keys.send(Message::Stop);
    });
    thread::spawn(move || {
        let feed = Feed(sender);
        let end = source(&feed);
        feed.0.send(Message::End(end))
    });
    let mut state = State::new(view::COUNT, color);
    let result = run(&mut terminal, &mut state, &receiver, seen);
    ratatui::restore();
    result
}

/// Takes messages and draws what has changed, until it is to end. Idle, it only waits.
fn run(
    terminal: &mut DefaultTerminal,
    state: &mut State,
    receiver: &Receiver<Message>,
    mut seen: impl FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut draw = |state: &State| -> anyhow::Result<Instant> {
        terminal.draw(|frame| view::draw(frame, state)).context("cannot draw")?;
        Ok(Instant::now())
    };
    let mut drawn = draw(state)?;
    let mut changed = false;
    while !state.quit {
        let message = if changed {
            receiver.recv_timeout(FRAME.saturating_sub(drawn.elapsed()))
        } else {
            receiver.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        let mut at_once = false;
        match message {
            Ok(Message::Line(line)) => {
                seen(&line)?;
                state.add(*line);
            }
            Ok(Message::End(end)) => {
                state.ended = Some(end?.unwrap_or_else(|| "end of the recording".to_owned()));
            }
            Ok(Message::Terminal(Event::Key(key))) => {
                state.key(key);
                at_once = true;
            }
            Ok(Message::Terminal(Event::Resize(..))) => at_once = true,
            Ok(Message::Terminal(_)) => continue,
            Ok(Message::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        changed = true;
        if at_once || drawn.elapsed() >= FRAME {
            drawn = draw(state)?;
            changed = false;
        }
    }
    Ok(())
}
