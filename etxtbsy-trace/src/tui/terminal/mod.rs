//! The terminal: taken over, drawn on when something changed, and given back however it ends.

mod effect;
pub mod held;
mod writer;

use crate::tui::{
    feed::{End, Feed, Message},
    input::keys,
    model::{effect::Effect, live, state::State},
    view,
};
use crate::{
    event::Line,
    host::{clock::now_ns, identity::Invoker},
};
use anyhow::{Context as _, bail};
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal, kill, raise},
    time::ClockId,
    unistd::Pid,
};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor::Show,
        event::{self, Event, KeyCode, KeyEvent, KeyModifiers},
        execute,
        terminal::{
            Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
            enable_raw_mode,
        },
    },
};
use std::{
    io::{self, IsTerminal as _},
    os::fd::AsFd as _,
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};
use writer::Writer;

/// How long after a drawing the next one comes at the soonest, unless a key was pressed.
const FRAME: Duration = Duration::from_millis(40);
/// How often a clock is drawn that nothing else moves: while an incident is pending, and else.
const TICKS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];
/// How long the terminal may take to be given back.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many messages wait at most.
const WAITING: usize = 1024;

/// Whose the signals are that end a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signals {
    /// They end the view.
    View,
    /// The source reads them until it is through.
    Source,
}

/// Who ended the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The user, by a key for that, or a signal, or the source.
    Quit,
    /// The user, by Ctrl-C.
    Interrupt,
}

/// Fails if there is no terminal to show anything on.
pub fn is_there() -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        bail!("stdout is not a terminal; --format text or --json writes to anything");
    }
    Ok(())
}

/// The terminal, and what it has no room for yet.
struct Screen {
    terminal: Terminal<CrosstermBackend<Writer>>,
    writer: Writer,
}

/// Shows what `source` feeds, from a thread of its own, until the user quits; each line goes to
/// `seen`, too.
///
/// The signals that end a program, and those that stop and continue it, are blocked in this thread
/// from here on.
pub fn show(
    mut state: State,
    whose: Signals,
    source: impl FnOnce(Feed) -> anyhow::Result<End> + Send + 'static,
    seen: impl FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<Left> {
    use Signal::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
    let (ends, stops) = ([SIGINT, SIGQUIT, SIGTERM, SIGHUP], [SIGTSTP, SIGCONT]);
    // Before there are threads, which inherit it. The last two are the traced command's.
    let all: SigSet = ends.into_iter().chain(stops).chain([SIGUSR1, SIGUSR2]).collect();
    all.thread_block().context("cannot block signals")?;
    let (sender, receiver) = sync_channel(WAITING);
    restore_on_panic();
    let mut screen = take().context("cannot take over the terminal")?;
    await_signals(stops.into_iter().collect(), sender.clone());
    if whose == Signals::View {
        await_signals(ends.into_iter().collect(), sender.clone());
    }
    let keys = sender.clone();
    thread::spawn(move || {
        while let Ok(event) = event::read()
            && keys.send(Message::Terminal(event)).is_ok()
        {}
        // They cannot be read, or the loop has gone.
        let _ = keys.send(Message::Signal(SIGHUP));
    });
    let hangup = sender.clone();
    thread::spawn(move || {
        await_hangup();
        let _ = hangup.send(Message::Signal(SIGHUP));
    });
    thread::spawn(move || {
        let feed = Feed(sender.clone());
        let end = catch_unwind(AssertUnwindSafe(|| source(feed)));
        let end = end.unwrap_or_else(|_| bail!("the source of the view panicked"));
        let _ = sender.send(Message::End(end));
        if whose == Signals::Source {
            await_signals(ends.into_iter().collect(), sender);
        }
    });
    let result = run(&mut screen, &mut state, &receiver, seen);
    if !give_back() {
        // What else there is to say must not wait for it either.
        writer::abandon().context("cannot leave the terminal")?;
    }
    result
}

/// Tells the loop of signals, which are blocked.
fn await_signals(signals: SigSet, loop_: SyncSender<Message>) {
    thread::spawn(move || {
        while let Ok(signal) = signals.wait()
            && loop_.send(Message::Signal(signal)).is_ok()
        {}
    });
}

/// Waits until the terminal has gone, which those who read from it are not told.
fn await_hangup() {
    let stdout = io::stdout();
    // No event: a hang-up is told anyhow.
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
}

/// Takes messages and draws what has changed, until it is to end. Idle, it only waits.
fn run(
    screen: &mut Screen,
    state: &mut State,
    receiver: &Receiver<Message>,
    mut seen: impl FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<Left> {
    let mut changed = !draw(screen, state)?;
    let mut drawn = Instant::now();
    while !state.quit {
        let wait = if changed || screen.writer.is_behind() { Some(FRAME) } else { tick(state) };
        let message = match wait {
            Some(wait) => receiver.recv_timeout(wait.saturating_sub(drawn.elapsed())),
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let mut at_once = false;
        match message {
            Ok(Message::Line(line)) => {
                seen(&line)?;
                state.add(*line);
            }
            Ok(Message::Skipped(skipped)) => state.model.skip(skipped),
            Ok(Message::Session(live::Event::OutputFailed(words))) => state.notice = Some(words),
            Ok(Message::Session(event)) => {
                if let Some(live) = &mut state.live {
                    live.take(event);
                }
            }
            Ok(Message::End(end)) => {
                let End { words, quit } = end?;
                state.ended = Some(words);
                state.quit |= quit;
                if let Some(live) = &mut state.live {
                    live.take(live::Event::Ended);
                }
            }
            Ok(Message::Terminal(Event::Key(key))) => {
                at_once = true;
                match key {
                    _ if keys::interrupts(key) => return Ok(Left::Interrupt),
                    _ if suspends(key) => {
                        // To all that the key would have stopped, ourselves included.
                        kill(Pid::from_raw(0), Signal::SIGTSTP).context("cannot stop")?;
                    }
                    _ => {
                        if let Some(effect) = state.key(key) {
                            state.notice = Some(carry_out(&effect, state, &mut screen.writer));
                        }
                    }
                }
            }
            Ok(Message::Terminal(Event::Resize(..))) | Err(RecvTimeoutError::Timeout) => {
                at_once = true;
            }
            Ok(Message::Terminal(_)) => continue,
            Ok(Message::Signal(Signal::SIGTSTP)) => {
                give_back();
                raise(Signal::SIGSTOP).context("cannot stop")?;
                continue;
            }
            Ok(Message::Signal(Signal::SIGCONT)) => {
                // Whoever stopped us may have changed its settings since.
                disable_raw_mode().context("cannot take over the terminal")?;
                *screen = take().context("cannot take over the terminal")?;
                at_once = true;
            }
            Ok(Message::Signal(_)) | Err(RecvTimeoutError::Disconnected) => break,
        }
        changed = true;
        if at_once || drawn.elapsed() >= FRAME {
            changed = !draw(screen, state)?;
            drawn = Instant::now();
        }
    }
    Ok(Left::Quit)
}

/// Does what a key asked for; gives back what to say about it.
fn carry_out(effect: &Effect, state: &State, writer: &mut Writer) -> String {
    match Invoker::of_sudo() {
        Ok(owner) => effect::carry_out(effect, state, writer, Path::new(""), owner.as_ref()),
        Err(error) => format!("{error:#}"),
    }
}

/// Draws, as of now; false if the terminal has not taken what was drawn before.
fn draw(screen: &mut Screen, state: &mut State) -> anyhow::Result<bool> {
    if !screen.writer.push().context("cannot draw")? {
        return Ok(false);
    }
    if let Some(live) = state.live.as_mut().filter(|live| !live.ended) {
        live.now_ns = now_ns(ClockId::CLOCK_MONOTONIC);
    }
    let mut room = state.room;
    screen.terminal.draw(|frame| room = view::draw(frame, state)).context("cannot draw")?;
    state.room = room;
    Ok(true)
}

/// Takes the terminal over.
fn take() -> io::Result<Screen> {
    enable_raw_mode()?;
    let mut writer = Writer::new()?;
    execute!(writer, EnterAlternateScreen, Clear(ClearType::All))?;
    let terminal = Terminal::new(CrosstermBackend::new(writer.clone()))?;
    Ok(Screen { terminal, writer })
}

/// Gives the terminal back, its cursor shown; false if it takes nothing. What waits for it is left out: it
/// was on the screen that goes.
fn give_back() -> bool {
    let _ = disable_raw_mode();
    let give_back = || {
        let mut writer = Writer::new()?;
        execute!(writer, LeaveAlternateScreen, Show)?;
        writer.push_within(PATIENCE)
    };
    // One that has gone is no reason to wait.
    give_back().unwrap_or(true)
}

/// Has a panic of this thread, which draws, give the terminal back before it is told. One of
/// another thread waits with the log until the view has ended.
fn restore_on_panic() {
    let draws = thread::current().id();
    let told = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == draws {
            give_back();
            told(info);
        } else {
            log::error!("{info}");
        }
    }));
}

/// When to draw although nothing came.
fn tick(state: &State) -> Option<Duration> {
    let live = state.live.as_ref().filter(|live| !live.ended)?;
    let [growing, clock] = TICKS;
    Some(if live.pending.is_empty() { clock } else { growing })
}

/// Whether this is Ctrl-Z.
fn suspends(event: KeyEvent) -> bool {
    event.modifiers.contains(KeyModifiers::CONTROL) && event.code == KeyCode::Char('z')
}
