//! An exec that fails with ETXTBSY.

use std::{
    fs::File,
    io::IoSlice,
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    errno::Errno,
    sys::socket::{ControlMessage, MsgFlags, sendmsg},
};

use super::{
    process::{Idle, exec},
    scratch::Scratch,
    timing::{Calls, Prepared},
};

/// The number of failing execs, which is small because each is an incident.
const FAILING: u32 = 200;

#[derive(Clone, Copy)]
pub(super) struct FailingExec {
    pub(super) held_by: HeldBy,
    /// The number of idle processes beside it.
    pub(super) idle: usize,
}

/// What has the file open for writing.
#[derive(Clone, Copy)]
pub(super) enum HeldBy {
    /// An fd of this process. The tracer saw its open, so it knows the holder.
    Fd,
    /// A message in a socket. It has no fd in any process, so each failing exec makes the tracer search.
    Message,
}

/// Whatever holds the file; it is closed when this is dropped.
enum Hold {
    Fd(#[expect(dead_code, reason = "only kept open")] File),
    Message(#[expect(dead_code, reason = "only kept open")] (UnixStream, UnixStream)),
}

impl FailingExec {
    pub(super) fn prepare(self, dir: &Path) -> Result<Prepared> {
        let file = Scratch::empty(dir)?;
        let idle = Idle::start(self.idle)?;
        // After the forks, so that the idle processes do not have it too.
        let hold = self.held_by.hold(&file)?;
        let once = move || {
            // The closure owns them, so they last as long as it does.
            let _ = (&idle, &hold);
            let errno = exec(&file.path);
            ensure!(errno == Errno::ETXTBSY, "the exec failed with {errno} instead of ETXTBSY");
            Ok(())
        };
        Ok(Prepared { once: Box::new(once), calls: Calls::Exactly(FAILING) })
    }
}

impl HeldBy {
    fn hold(self, file: &Scratch) -> Result<Hold> {
        let open = file.open()?;
        match self {
            Self::Fd => Ok(Hold::Fd(open)),
            Self::Message => {
                let sockets = UnixStream::pair()?;
                let fds = [open.as_raw_fd()];
                let rights = [ControlMessage::ScmRights(&fds)];
                let bytes = [IoSlice::new(b"x")];
                let flags = MsgFlags::empty();
                sendmsg::<()>(sockets.0.as_raw_fd(), &bytes, &rights, flags, None)
                    .context("cannot send an fd")?;
                Ok(Hold::Message(sockets))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_exec_fails_while_an_fd_or_a_message_holds_the_file() {
        let dir = tempfile::tempdir().unwrap();
        for held_by in [HeldBy::Fd, HeldBy::Message] {
            let mut prepared = FailingExec { held_by, idle: 0 }.prepare(dir.path()).unwrap();
            assert_eq!(prepared.measure(Duration::ZERO).unwrap().calls, u64::from(FAILING));
        }
    }
}
