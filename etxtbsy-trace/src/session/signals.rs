//! The signals that end a session, or have its file opened again.

use std::{future::ready, io};

use tokio::signal::unix::{SignalKind, signal};

use crate::host::stdio;

/// The signals that end tracing, where there is no command that they are for.
pub(crate) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hangup: tokio::signal::unix::Signal,
    /// Whether SIGHUP can say that our terminal has gone.
    has_terminal: bool,
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asks {
    /// To end.
    End,
    /// To open the file again, as a service does; to end if there is none.
    Reopen,
}

impl Signals {
    /// Catches them from now on, within a tokio runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            has_terminal: stdio::has_terminal(),
        })
    }

    /// Forgets those that have come, because somebody else has seen them.
    pub(crate) async fn forget(&mut self) {
        loop {
            tokio::select! {
                biased;
                _ = self.next() => {}
                () = ready(()) => return,
            }
        }
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) -> Asks {
        tokio::select! {
            _ = self.interrupt.recv() => Asks::End,
            _ = self.terminate.recv() => Asks::End,
            _ = self.hangup.recv() => if self.has_terminal { Asks::End } else { Asks::Reopen },
        }
    }
}
