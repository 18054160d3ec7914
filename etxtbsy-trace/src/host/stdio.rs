//! Our own streams, where whoever reads them has gone or does not read.

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigHandler, SigSet, Signal, raise, signal},
    unistd::write,
};
use std::{
    fs::File,
    io::{self, IsTerminal as _},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// How long the last words wait for a reader of stderr.
const PATIENCE: Duration = Duration::from_secs(1);
/// A pipe that has room for anything has room for so many bytes (PIPE_BUF, pipe(7)).
const ROOM: usize = 4096;

/// Writes a line to stderr; leaves it out if nobody reads that.
pub fn say(line: &str) {
    put(format!("{line}\n").as_bytes(), PATIENCE);
}

/// Writes to stderr, up to where that has no room for longer than `patience`.
fn put(bytes: &[u8], patience: Duration) {
    let stderr = io::stderr();
    for piece in bytes.chunks(ROOM) {
        if !is_ready(stderr.as_fd(), patience) {
            return;
        }
        // Past the lock of the standard library, with which another thread may be waiting.
        let _ = write(stderr.as_fd(), piece);
    }
}

/// Whether something can be written without waiting longer than that.
fn is_ready(stream: BorrowedFd<'_>, patience: Duration) -> bool {
    let patience = PollTimeout::try_from(patience).unwrap_or(PollTimeout::ZERO);
    poll(&mut [PollFd::new(stream, PollFlags::POLLOUT)], patience).is_ok_and(|ready| ready > 0)
}

/// stderr for the log: what it has no room for is left out.
pub struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        put(bytes, Duration::ZERO);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether whoever read a pipe has gone.
#[must_use]
pub fn is_unread(stream: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO).is_ok()
        && fds[0].revents().is_some_and(|events| events.contains(PollFlags::POLLERR))
}

/// Whether this process has a terminal whose end SIGHUP reports: stdin, or the one that controls it.
#[must_use]
pub fn has_terminal() -> bool {
    io::stdin().is_terminal() || File::open("/dev/tty").is_ok()
}

/// Has a write beyond RLIMIT_FSIZE fail with EFBIG (setrlimit(2)) instead of ending this process.
pub fn survive_file_limit() -> nix::Result<()> {
    // SAFETY: no handler of ours runs.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.map(drop)
}

/// Ends this process as a signal does by default.
pub fn die_of(which: Signal) -> ! {
    // SAFETY: no handler of ours runs.
    let _ = unsafe { signal(which, SigHandler::SigDfl) };
    let _ = SigSet::from(which).thread_unblock();
    let _ = raise(which);
    std::process::exit(128 + which as i32)
}
