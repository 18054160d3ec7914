//! A command that runs: waiting for it, and signals on the way to it.

use super::{child::Child, signals::CommandSignals};
use crate::{
    host::{pidfd, process_tree},
    provoke::Provoker,
};
use libc::c_int;
use nix::{errno::Errno, sys::signalfd::siginfo};
use std::{
    cell::{Cell, RefCell},
    io::{self},
};
use tokio::io::unix::AsyncFd;

/// A command that has been exec'd.
#[derive(Debug)]
pub struct Started {
    pub(super) child: AsyncFd<Child>,
    pub(super) signals: CommandSignals,
    pub(super) code: Cell<Option<u8>>,
    /// Whether this program got SIGINT as well.
    pub(super) interrupted: Cell<bool>,
    pub(super) provoker: RefCell<Option<Provoker>>,
}

impl Started {
    /// The pid of the command.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.get_ref().pid.cast_unsigned()
    }

    /// Ends the delays of `--provoke`; the command runs on without.
    pub fn stop_provoking(&self) {
        self.provoker.take();
    }

    /// Waits for the command to end; returns its exit status, or 128 + the signal that killed it.
    ///
    /// Meanwhile, SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGUSR1 and SIGUSR2 do not end this program. They
    /// are forwarded to the command, which decides what to do. Cancel-safe.
    pub async fn wait(&self) -> io::Result<u8> {
        loop {
            if let Some(code) = self.code.get() {
                return Ok(code);
            }
            tokio::select! {
                ended = self.child.readable() => {
                    ended?.clear_ready();
                    self.code.set(self.child.get_ref().reap(libc::WNOHANG)?);
                    // A signal that killed the command may have been sent to this program too.
                    self.forward_signals()?;
                }
                readable = self.signals.fd.readable() => {
                    readable?.clear_ready();
                    self.forward_signals()?;
                }
            }
        }
    }

    /// Forwards the signals that have arrived, unless the command got them itself.
    fn forward_signals(&self) -> io::Result<()> {
        while let Some(signal) = self.signals.fd.get_ref().read_signal()? {
            if signal.ssi_signo.cast_signed() == libc::SIGINT {
                self.interrupted.set(true);
            }
            if !self.command_got_it(&signal) {
                self.forward(signal.ssi_signo.cast_signed())?;
            }
        }
        Ok(())
    }

    /// Whether SIGINT killed the command and was sent to this program too. A shell then ends its script
    /// only if this program also dies of SIGINT (<https://www.cons.org/cracauer/sigint.html>).
    #[must_use]
    pub fn died_of_interrupt(&self) -> bool {
        self.interrupted.get() && self.child.get_ref().killed_by.get() == Some(libc::SIGINT)
    }

    /// Sends a signal to the command; does nothing if it has ended.
    pub fn forward(&self, signal: c_int) -> io::Result<()> {
        match self.child.get_ref().send(signal) {
            Err(Errno::ESRCH) => Ok(()),
            sent => Ok(sent?),
        }
    }

    /// Sends SIGTERM to the command and to its descendants in /proc.
    pub fn terminate_tree(&self) {
        self.signal_tree(libc::SIGTERM);
    }

    /// Sends SIGKILL to the command and to its descendants in /proc.
    pub fn kill_tree(&self) {
        self.signal_tree(libc::SIGKILL);
    }

    /// All are stopped until all are found, so that no descendant can fork a child that is not found.
    fn signal_tree(&self, signal: c_int) {
        // Errors are ignored: a process may have ended, or belong to another user.
        let _ = self.forward(libc::SIGSTOP);
        let descendants = process_tree::stopped_descendants(self.pid(), |pidfd| {
            let _ = pidfd::send(pidfd, libc::SIGSTOP);
        });
        for signal in [signal, libc::SIGCONT] {
            for pidfd in &descendants {
                let _ = pidfd::send(pidfd, signal);
            }
            let _ = self.forward(signal);
        }
    }

    /// Ctrl-C and Ctrl-\ reach the whole foreground process group. A signal that the command itself sent
    /// is meant for this program.
    fn command_got_it(&self, signal: &siginfo) -> bool {
        const KEYS: [c_int; 2] = [libc::SIGINT, libc::SIGQUIT];
        // From the terminal, or from the view, which reads the key and sends the signal to the group.
        let by_key = signal.ssi_code == libc::SI_KERNEL
            || (signal.ssi_code == libc::SI_USER && signal.ssi_pid == std::process::id());
        let is_key = by_key && KEYS.contains(&signal.ssi_signo.cast_signed());
        is_key || signal.ssi_pid == self.pid()
    }
}
