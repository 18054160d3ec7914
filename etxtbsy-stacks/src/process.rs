//! The helper process, as the worker sees it.

use std::{
    collections::HashMap,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, Stdio},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use crate::{
    open::Identity,
    prepare::{Mapped, Prepared},
    wire::{Answer, Request, receive_answer, send_request},
};

/// A running helper. Dropping it kills it.
pub(crate) struct Process {
    child: Child,
    socket: OwnedFd,
    /// The files that it has, by their numbers there.
    numbers: HashMap<Identity, u64>,
    requests: u64,
}

impl Process {
    pub(crate) fn start(helper: fn() -> Command) -> io::Result<Self> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let child = helper()
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // The terminal's ^C is not for it.
            .process_group(0)
            .spawn()?;
        Ok(Self { child, socket: ours, numbers: HashMap::new(), requests: 0 })
    }

    /// Sends what is needed for a copy, with the files that the helper does not have.
    pub(crate) fn send(
        &mut self,
        copy: &Prepared,
        is_allowed: impl Fn(&Mapped) -> bool,
    ) -> io::Result<()> {
        let (mut new, mut fds, mut code) = (Vec::new(), Vec::new(), Vec::new());
        for part in &copy.parts {
            let file = part.file.as_deref().filter(|file| is_allowed(file));
            let number = file.map(|file| {
                let next = self.numbers.len() as u64;
                *self.numbers.entry(file.identity).or_insert_with(|| {
                    new.push(next);
                    fds.push(file.file.as_fd());
                    next
                })
            });
            code.push(part.code(number));
        }
        fds.extend(copy.perf_map.as_ref().map(AsFd::as_fd));
        self.requests += 1;
        let has_perf_map = copy.perf_map.is_some();
        let request = Request { number: self.requests, code, new, has_perf_map };
        send_request(&self.socket, &request, &copy.stack, &fds)
    }

    /// The answer to the last request, which has arrived.
    pub(crate) fn receive(&self) -> io::Result<Answer> {
        let answer = receive_answer(&self.socket)?;
        if answer.number == self.requests {
            Ok(answer)
        } else {
            Err(io::ErrorKind::InvalidData.into())
        }
    }

    pub(crate) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
