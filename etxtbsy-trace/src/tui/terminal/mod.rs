//! The terminal: set up, drawn when something changes, and restored however the program ends.

pub mod deferred_text;
mod effect;
mod mouse;
mod writer;

use crate::tui::{
    feed::{End, Feed, Message},
    input::keys,
    model::{effect::Effect, export::Scope, live::SessionEvent, state::State},
    view,
};
use crate::{
    event::Line,
    host::{clock::now_ns, user::Invoker},
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

/// The shortest time between two frames, unless a key was pressed.
const FRAME: Duration = Duration::from_millis(40);
/// How often the clock is drawn: while an incident is pending, while counts or a caption are shown, and
/// otherwise.
const TICKS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_secs(1), Duration::from_secs(60)];
/// How long restoring the terminal may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// The most messages in the queue of the view.
const WAITING: usize = 1024;

/// Who handles the signals that end a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalOwner {
    /// The view: they close it.
    View,
    /// The source, until it has ended.
    Source,
}

/// How the view was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quit {
    /// By the quit key, a signal or the source.
    Normal,
    /// By Ctrl-C.
    Interrupt,
}

/// Fails if stdout is not a terminal.
pub fn is_there() -> anyhow::Result<()> {
    if !io::stdout().is_terminal() {
        bail!("stdout is not a terminal: use --format text or --json");
    }
    Ok(())
}

/// The terminal, and its writer with the bytes that are still waiting.
struct Screen {
    terminal: Terminal<CrosstermBackend<Writer>>,
    writer: Writer,
}

/// Shows what `source` sends from its own thread, until the user quits. Each line also goes to `seen`.
///
/// From here on, this thread blocks the signals that end, stop and continue a program.
pub fn show(
    mut state: State,
    signals: SignalOwner,
    source: impl FnOnce(Feed) -> anyhow::Result<End> + Send + 'static,
    seen: impl FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<Quit> {
    use Signal::{SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2};
    let (ends, stops) = ([SIGINT, SIGQUIT, SIGTERM, SIGHUP], [SIGTSTP, SIGCONT]);
    // Before there are threads, which inherit the mask. SIGUSR1 and SIGUSR2 are for the command.
    let all: SigSet = ends.into_iter().chain(stops).chain([SIGUSR1, SIGUSR2]).collect();
    all.thread_block().context("cannot block signals")?;
    let (sender, receiver) = sync_channel(WAITING);
    restore_on_panic();
    let mut screen = set_up(state.mouse).context("cannot set up the terminal")?;
    await_signals(stops.into_iter().collect(), sender.clone());
    if signals == SignalOwner::View {
        await_signals(ends.into_iter().collect(), sender.clone());
    }
    let keys = sender.clone();
    thread::spawn(move || {
        while let Ok(event) = event::read()
            && keys.send(Message::Terminal(event)).is_ok()
        {}
        // The keys cannot be read, or the loop has ended.
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
        if signals == SignalOwner::Source {
            await_signals(ends.into_iter().collect(), sender);
        }
    });
    let result = run(&mut screen, &mut state, &receiver, seen);
    if !restore() {
        // Later messages must not wait for this terminal either.
        writer::abandon().context("cannot restore the terminal")?;
    }
    result
}

/// Sends blocked signals to the loop.
fn await_signals(signals: SigSet, sender: SyncSender<Message>) {
    thread::spawn(move || {
        while let Ok(signal) = signals.wait()
            && sender.send(Message::Signal(signal)).is_ok()
        {}
    });
}

/// Waits for the hang-up of the terminal, which reading from it does not report.
fn await_hangup() {
    let stdout = io::stdout();
    // No events are needed: poll always reports a hang-up.
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
}

/// Handles messages and draws changes until the view closes.
fn run(
    screen: &mut Screen,
    state: &mut State,
    receiver: &Receiver<Message>,
    mut seen: impl FnMut(&Line) -> anyhow::Result<()>,
) -> anyhow::Result<Quit> {
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
            Ok(Message::Session(SessionEvent::OutputFailed(message))) => {
                state.notice = Some(message);
            }
            Ok(Message::Session(event)) => {
                if let Some(live) = &mut state.live {
                    live.apply(event);
                }
            }
            Ok(Message::End(end)) => {
                let End { message, quit } = end?;
                state.ended = Some(message);
                state.quit |= quit;
                if let Some(live) = &mut state.live {
                    live.apply(SessionEvent::Ended);
                }
            }
            Ok(Message::Terminal(Event::Key(key))) => {
                at_once = true;
                match key {
                    _ if keys::interrupts(key) => return Ok(Quit::Interrupt),
                    _ if suspends(key) => {
                        // To the whole process group, as the terminal would have done.
                        kill(Pid::from_raw(0), Signal::SIGTSTP).context("cannot stop")?;
                    }
                    _ if redraws(key) => *screen = set_up(state.mouse).context("cannot draw")?,
                    _ => {
                        if let Some(effect) = state.key(key) {
                            let done = carry_out(&effect, state, &mut screen.writer);
                            if done.is_ok() && effect == Effect::Export(Scope::All) {
                                state.mark_exported();
                            }
                            state.notice = Some(done.unwrap_or_else(|error| format!("{error:#}")));
                        }
                    }
                }
            }
            Ok(Message::Terminal(Event::Mouse(event))) => {
                at_once = true;
                state.mouse(event);
            }
            Ok(Message::Terminal(Event::Resize(..))) | Err(RecvTimeoutError::Timeout) => {
                at_once = true;
            }
            Ok(Message::Terminal(_)) => continue,
            Ok(Message::Signal(Signal::SIGTSTP)) => {
                restore();
                raise(Signal::SIGSTOP).context("cannot stop")?;
                continue;
            }
            Ok(Message::Signal(Signal::SIGCONT)) => {
                // The shell may have changed the settings while we were stopped.
                disable_raw_mode().context("cannot set up the terminal")?;
                *screen = set_up(state.mouse).context("cannot set up the terminal")?;
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
    Ok(Quit::Normal)
}

/// Carries out an effect; returns the notice.
fn carry_out(effect: &Effect, state: &State, writer: &mut Writer) -> anyhow::Result<String> {
    let owner = Invoker::of_sudo()?;
    effect::carry_out(effect, state, writer, Path::new(""), owner.as_ref())
}

/// Draws the current state; false if the terminal has not accepted the previous frame yet.
fn draw(screen: &mut Screen, state: &mut State) -> anyhow::Result<bool> {
    if !screen.writer.push().context("cannot draw")? {
        return Ok(false);
    }
    if let Some(live) = state.live.as_mut().filter(|live| !live.ended) {
        live.now_ns = now_ns(ClockId::CLOCK_MONOTONIC);
    }
    if state.live.as_ref().is_none_or(|live| !live.ended) {
        state.probed = state.probes.read();
    }
    state.refresh();
    let mut room = state.room;
    screen.terminal.draw(|frame| room = view::draw(frame, state)).context("cannot draw")?;
    state.room = room;
    Ok(true)
}

/// Sets up the terminal, and its mouse if it is used.
fn set_up(mouse: bool) -> io::Result<Screen> {
    enable_raw_mode()?;
    let mut writer = Writer::new()?;
    execute!(writer, EnterAlternateScreen, Clear(ClearType::All))?;
    if mouse {
        execute!(writer, mouse::Report(true))?;
    }
    let terminal = Terminal::new(CrosstermBackend::new(writer.clone()))?;
    Ok(Screen { terminal, writer })
}

/// Restores the terminal and its cursor; false if the terminal accepts nothing. Waiting bytes are
/// discarded: they belong to the closed screen.
fn restore() -> bool {
    let _ = disable_raw_mode();
    let leave = || {
        let mut writer = Writer::new()?;
        // Also without the mouse, where it has no effect.
        execute!(writer, mouse::Report(false), LeaveAlternateScreen, Show)?;
        writer.push_within(PATIENCE)
    };
    // An error means that the terminal is gone.
    leave().unwrap_or(true)
}

/// Restores the terminal before a panic of this thread, which draws, is reported. A panic of another
/// thread goes to the log, which is printed after the view has closed.
fn restore_on_panic() {
    let draws = thread::current().id();
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == draws {
            restore();
            report(info);
        } else {
            log::error!("{info}");
        }
    }));
}

/// When to draw although no message has arrived.
fn tick(state: &State) -> Option<Duration> {
    let live = state.live.as_ref().filter(|live| !live.ended)?;
    let [growing, counting, clock] = TICKS;
    Some(match live.pending.is_empty() {
        false => growing,
        true if state.page.is_some() => clock,
        true if state.is_empty() || state.probes.caption.is_some() => counting,
        true => clock,
    })
}

/// Whether this is Ctrl-Z.
fn suspends(event: KeyEvent) -> bool {
    event.modifiers.contains(KeyModifiers::CONTROL) && event.code == KeyCode::Char('z')
}

/// Whether this is Ctrl-L.
fn redraws(event: KeyEvent) -> bool {
    event.modifiers.contains(KeyModifiers::CONTROL) && event.code == KeyCode::Char('l')
}
