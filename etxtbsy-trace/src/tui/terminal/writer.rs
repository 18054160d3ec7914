//! Writes to the terminal without waiting: a terminal that is stopped (Ctrl-S), or that nobody reads,
//! must not delay signals or the end of the session.

use std::{
    cell::RefCell,
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::{fd::AsFd as _, unix::fs::OpenOptionsExt as _},
    rc::Rc,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{dup2_stderr, dup2_stdout},
};

/// The terminal of stdout. Clones share the waiting bytes.
#[derive(Clone)]
pub(super) struct Writer(Rc<RefCell<Waiting>>);

/// Bytes that the terminal has not accepted yet.
struct Waiting {
    terminal: File,
    bytes: Vec<u8>,
}

impl Writer {
    /// Opens a description of its own, because O_NONBLOCK belongs to the description, which other
    /// processes share.
    pub(super) fn new() -> io::Result<Self> {
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open("/proc/self/fd/1");
        let terminal = match opened {
            Ok(terminal) => terminal,
            // Without /proc, or if the terminal belongs to another user: writing can wait.
            Err(_) => io::stdout().as_fd().try_clone_to_owned()?.into(),
        };
        Ok(Self(Rc::new(RefCell::new(Waiting { terminal, bytes: Vec::new() }))))
    }

    /// Writes as much as there is room for; true if nothing waits.
    pub(super) fn push(&self) -> io::Result<bool> {
        let Waiting { terminal, bytes } = &mut *self.0.borrow_mut();
        while !bytes.is_empty() {
            match terminal.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => drop(bytes.drain(..written)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The same, but waits for room up to `patience`.
    pub(super) fn push_within(&self, patience: Duration) -> io::Result<bool> {
        let began = Instant::now();
        while !self.push()? {
            let left = patience.saturating_sub(began.elapsed());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
            let waiting = self.0.borrow();
            let ready =
                poll(&mut [PollFd::new(waiting.terminal.as_fd(), PollFlags::POLLOUT)], timeout);
            if left.is_zero() || ready == Ok(0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether bytes are waiting.
    pub(super) fn is_behind(&self) -> bool {
        !self.0.borrow().bytes.is_empty()
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.push().map(drop)
    }
}

/// Redirects stdout and stderr from the terminal, which accepts nothing, to /dev/null.
pub(super) fn abandon() -> io::Result<()> {
    use std::io::IsTerminal as _;
    let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
    if io::stdout().is_terminal() {
        dup2_stdout(&nowhere)?;
    }
    if io::stderr().is_terminal() {
        dup2_stderr(&nowhere)?;
    }
    Ok(())
}
