//! The signals that end a session.

use std::{future::ready, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end tracing, where there is no command that they are for.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Catches them from now on, within a tokio runtime.
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Forgets those that have come, because somebody else has seen them.
    pub(crate) async fn forget(&mut self) {
        loop {
            tokio::select! {
                biased;
                () = self.next() => {}
                () = ready(()) => return,
            }
        }
    }

    /// Waits for one.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
