//! The calls of one process, which it records.

use super::super::child::{self, Program, Span, timed};
use super::log::{Log, Record, RecordKind};
use super::{HotFile, Resources};
use crate::clock::now_ns;
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use nix::unistd::{Pid, getpid};
use std::ffi::{c_int, c_void};
use std::io::{IoSlice, IoSliceMut};
use std::num::NonZero;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

/// A process that makes calls and records them. Each of its threads has a copy.
#[derive(Clone, Copy)]
pub(super) struct Caller<'a> {
    pub(super) log: &'a Log,
    pub(super) process: u32,
}

/// An fd of a hot file.
#[derive(Clone, Copy)]
pub(super) struct Held {
    hold: u32,
    pub(super) fd: RawFd,
    pub(super) file: usize,
    kept: bool,
}

/// A mapping of a hot file.
pub(super) struct Mapping {
    hold: u32,
    start: NonNull<c_void>,
}

/// A forked process.
pub(super) struct Child {
    pub(super) pid: Pid,
    process: u32,
}

impl Caller<'_> {
    fn record(&self, kind: RecordKind, span: Span) -> Record {
        Record { kind, process: self.process, span, ..Record::default() }
    }

    fn acquired(&self, kind: RecordKind, file: usize, fd: RawFd, kept: bool, span: Span) -> Held {
        let hold = self.log.new_hold();
        self.log.add(Record { hold, file: file as u32, fd, kept, ..self.record(kind, span) });
        Held { hold, fd, file, kept }
    }

    fn released(&self, hold: u32, span: Span) {
        self.log.add(Record { hold, ..self.record(RecordKind::Released, span) });
    }

    fn called(&self, file: usize, span: Span) {
        self.log.add(Record { file: file as u32, ..self.record(RecordKind::Called, span) });
    }

    /// Turns ETXTBSY into `None`, and counts it.
    fn allowed<T>(&self, outcome: nix::Result<T>) -> nix::Result<Option<T>> {
        match outcome {
            Err(Errno::ETXTBSY) => {
                self.log.counts().refused.fetch_add(1, Ordering::Relaxed);
                Ok(None)
            }
            outcome => outcome.map(Some),
        }
    }

    /// open(2) for writing, which waits for a lease to end; `None` if the file is running.
    pub(super) fn open(
        &self,
        resources: &Resources<'_>,
        file: usize,
        access: c_int,
        kept: bool,
    ) -> nix::Result<Option<Held>> {
        let flags = access | if kept { 0 } else { libc::O_CLOEXEC };
        let path = resources.files[file].path.as_ptr();
        // SAFETY: the path is a C string that outlives the call.
        let (fd, span) = timed(|| Errno::result(unsafe { libc::open(path, flags) }));
        let held = |fd| self.acquired(RecordKind::Opened, file, fd, kept, span);
        Ok(self.allowed(fd)?.map(held))
    }

    pub(super) fn close(&self, held: Held) -> nix::Result<()> {
        // SAFETY: no other code owns the fd.
        let (closed, span) = timed(|| Errno::result(unsafe { libc::close(held.fd) }));
        self.released(held.hold, span);
        closed.map(drop)
    }

    /// close_range(2) of one fd.
    pub(super) fn close_as_range(&self, held: Held) -> nix::Result<()> {
        let (closed, span) = timed(|| close_range(held.fd, held.fd.cast_unsigned()));
        self.released(held.hold, span);
        closed
    }

    /// close_range(2) of all fds except stdin, stdout and stderr, in a process with one thread.
    pub(super) fn close_all(&self) -> nix::Result<()> {
        let (closed, span) = timed(|| close_range(3, u32::MAX));
        let record = self.record(RecordKind::ReleasedRange, span);
        self.log.add(Record { fd: 3, last: i32::MAX, ..record });
        closed
    }

    pub(super) fn dup(&self, held: Held) -> nix::Result<Held> {
        // SAFETY: dup(2) takes a number.
        let (fd, span) = timed(|| Errno::result(unsafe { libc::dup(held.fd) }));
        Ok(self.acquired(RecordKind::Acquired, held.file, fd?, true, span))
    }

    pub(super) fn dup_close_on_exec(&self, held: Held) -> nix::Result<Held> {
        // SAFETY: fcntl(2) with F_DUPFD_CLOEXEC takes numbers.
        let call = || unsafe { libc::fcntl(held.fd, libc::F_DUPFD_CLOEXEC, 3) };
        let (fd, span) = timed(|| Errno::result(call()));
        Ok(self.acquired(RecordKind::Acquired, held.file, fd?, false, span))
    }

    /// dup2(2) or dup3(2) of one fd over another.
    pub(super) fn dup_over(&self, held: Held, over: Held, kept: bool) -> nix::Result<Held> {
        // SAFETY: the calls take numbers; no other code owns the fd that they replace.
        let (fd, span) = timed(|| unsafe {
            Errno::result(if kept {
                libc::dup2(held.fd, over.fd)
            } else {
                libc::dup3(held.fd, over.fd, libc::O_CLOEXEC)
            })
        });
        self.released(over.hold, span);
        Ok(self.acquired(RecordKind::Acquired, held.file, fd?, kept, span))
    }

    /// dup2(2) of stdin over an fd.
    pub(super) fn replace_with_stdin(&self, held: Held) -> nix::Result<()> {
        // SAFETY: the call takes numbers; no other code owns the fd that it replaces.
        let (fd, span) = timed(|| Errno::result(unsafe { libc::dup2(0, held.fd) }));
        self.released(held.hold, span);
        fd.map(drop)
    }

    pub(super) fn map(
        &self,
        resources: &Resources<'_>,
        held: Held,
        flags: MapFlags,
    ) -> nix::Result<Mapping> {
        let length = mapped_length(&resources.files[held.file]);
        // SAFETY: the fd is open, and no reference is made into the new mapping.
        let (start, span) = timed(|| unsafe {
            let fd = BorrowedFd::borrow_raw(held.fd);
            mmap(None, length, ProtFlags::PROT_READ, flags, fd, 0)
        });
        let hold = self.acquired(RecordKind::Mapped, held.file, -1, false, span).hold;
        Ok(Mapping { hold, start: start? })
    }

    pub(super) fn unmap(&self, resources: &Resources<'_>, mapping: &Mapping) -> nix::Result<()> {
        let length = mapped_length(&resources.files[0]).get();
        // SAFETY: no reference points into the mapping.
        let (unmapped, span) = timed(|| unsafe { munmap(mapping.start, length) });
        self.released(mapping.hold, span);
        unmapped
    }

    /// Sends a copy to the queue, unless the queue is full.
    pub(super) fn send(&self, resources: &Resources<'_>, held: Held) -> nix::Result<()> {
        let hold = self.log.new_hold();
        let message = [hold, held.file as u32].map(u32::to_ne_bytes).concat();
        let (fds, bytes) = ([held.fd], [IoSlice::new(&message)]);
        let rights = [ControlMessage::ScmRights(&fds)];
        let (sent, span) = timed(|| {
            sendmsg::<()>(resources.send.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None)
        });
        match sent {
            Ok(_) => {
                let record = self.record(RecordKind::Queued, span);
                self.log.add(Record { hold, file: held.file as u32, ..record });
            }
            Err(Errno::EAGAIN) => self.called(held.file, span),
            Err(errno) => return Err(errno),
        }
        Ok(())
    }

    /// Receives an fd from the queue, unless the queue is empty.
    pub(super) fn receive(
        &self,
        resources: &Resources<'_>,
        kept: bool,
    ) -> nix::Result<Option<Held>> {
        let mut message = [0; 8];
        let mut bytes = [IoSliceMut::new(&mut message)];
        let mut space = nix::cmsg_space!(RawFd);
        let flags = if kept { MsgFlags::empty() } else { MsgFlags::MSG_CMSG_CLOEXEC };
        let (received, span) = timed(|| {
            let socket = resources.receive.as_raw_fd();
            let message = recvmsg::<()>(socket, &mut bytes, Some(&mut space), flags)?;
            match message.cmsgs()?.next() {
                Some(ControlMessageOwned::ScmRights(fds)) => {
                    fds.first().copied().ok_or(Errno::ENOMSG)
                }
                _ => Err(Errno::ENOMSG),
            }
        });
        let fd = match received {
            Err(Errno::EAGAIN) => return Ok(None),
            received => received?,
        };
        let (hold, file) = message.split_at(4);
        let number = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_ne_bytes);
        self.log.add(Record { hold: number(hold), ..self.record(RecordKind::Taken, span) });
        Ok(Some(self.acquired(RecordKind::Acquired, number(file) as usize, fd, kept, span)))
    }

    /// truncate(2) to the file's own length.
    pub(super) fn truncate(&self, resources: &Resources<'_>, file: usize) -> nix::Result<()> {
        let HotFile { path, length, .. } = &resources.files[file];
        // SAFETY: the path is a C string that outlives the call.
        let call = || unsafe { libc::truncate(path.as_ptr(), *length) };
        let (outcome, span) = timed(|| Errno::result(call()));
        if self.allowed(outcome)?.is_some() {
            self.called(file, span);
        }
        Ok(())
    }

    /// Holds a lease while `during` runs, so that opens for writing wait. Does nothing if the file is open
    /// for writing.
    pub(super) fn lease(
        resources: &Resources<'_>,
        file: usize,
        during: impl FnOnce(),
    ) -> nix::Result<()> {
        let path = resources.files[file].path.as_ptr();
        // SAFETY: the calls take numbers, and a C string that outlives them.
        unsafe {
            let fd = Errno::result(libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC))?;
            if libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) == 0 {
                during();
                Errno::result(libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK))?;
            }
            Errno::result(libc::close(fd)).map(drop)
        }
    }

    /// Execs a hot file and counts that; returns if the exec fails.
    pub(super) fn exec_hot(&self, resources: &Resources<'_>, file: usize) {
        let counts = self.log.counts();
        counts.attempts.fetch_add(1, Ordering::Relaxed);
        match self.exec(&resources.files[file].program, file, 0) {
            Errno::ETXTBSY => {
                let failures = counts.failures.fetch_add(1, Ordering::Relaxed) + 1;
                if resources.limits.failures.is_some_and(|limit| failures >= limit) {
                    self.log.stop();
                }
            }
            errno => self.log.fail(errno),
        }
    }

    /// Execs the sleeping program; returns if the exec fails.
    pub(super) fn exec_nap(&self, resources: &Resources<'_>) {
        let errno = self.exec(&resources.nap, 0, resources.nap_ns);
        self.log.fail(errno);
    }

    fn exec(&self, program: &Program, file: usize, lasts_ns: u32) -> Errno {
        let before = now_ns();
        let record = self.record(RecordKind::Execed, (before, 0));
        let record = Record { file: file as u32, other: lasts_ns, ..record };
        let index = self.log.add(record);
        let errno = program.exec();
        self.log.amend(index, Record { error: errno as i32, span: (before, now_ns()), ..record });
        errno
    }

    /// fork(2); the child runs `part`, which returns its exit status.
    pub(super) fn fork(&self, part: impl FnOnce(Caller<'_>) -> c_int) -> nix::Result<Child> {
        let process = self.log.new_process();
        let child = Caller { log: self.log, process };
        let before = now_ns();
        let pid = child::fork(|| {
            child.record_birth();
            let status = part(child);
            child.record_exit();
            status
        });
        let pid = pid.map_err(|_| Errno::EAGAIN)?;
        Ok(self.forked(RecordKind::Forked, process, pid, (before, now_ns())))
    }

    /// clone(2) as in vfork(2); `part` runs on that stack, and only execs or makes system calls.
    pub(super) fn vfork(&self, stack: &mut [u8], part: impl Fn(Caller<'_>)) -> nix::Result<Child> {
        use nix::sched::{CloneFlags, clone};
        let process = self.log.new_process();
        let child = Caller { log: self.log, process };
        let body = Box::new(|| {
            child.record_birth();
            part(child);
            child.record_exit();
            0
        });
        let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
        // SAFETY: the child only makes system calls, on its own stack, while this thread waits.
        let (pid, span) = timed(|| unsafe { clone(body, stack, flags, Some(libc::SIGCHLD)) });
        Ok(self.forked(RecordKind::Vforked, process, pid?, span))
    }

    /// posix_spawn(3) of the sleeping program.
    pub(super) fn spawn(&self, resources: &Resources<'_>) -> nix::Result<Child> {
        let process = self.log.new_process();
        let (path, mut pid) = (&resources.nap_path, 0);
        let argv = [path.as_ptr().cast_mut(), std::ptr::null_mut()];
        let envp = [std::ptr::null_mut()];
        // SAFETY: a C string and two null-terminated lists, which outlive the call; the others may be null.
        let (error, span) = timed(|| unsafe {
            let (no_actions, no_attributes) = (std::ptr::null(), std::ptr::null());
            libc::posix_spawn(
                &raw mut pid,
                path.as_ptr(),
                no_actions,
                no_attributes,
                argv.as_ptr(),
                envp.as_ptr(),
            )
        });
        if error != 0 {
            return Err(Errno::from_raw(error));
        }
        let child = Caller { log: self.log, process };
        let record = child.record(RecordKind::Execed, (span.0, 0));
        self.log.add(Record { other: resources.nap_ns, ..record });
        Ok(self.forked(RecordKind::Vforked, process, Pid::from_raw(pid), span))
    }

    fn record_birth(&self) {
        let other = getpid().as_raw().cast_unsigned();
        let now = now_ns();
        self.log.add(Record { other, ..self.record(RecordKind::Born, (now, now)) });
    }

    fn record_exit(&self) {
        self.log.add(self.record(RecordKind::Exited, (now_ns(), 0)));
    }

    fn forked(&self, kind: RecordKind, process: u32, pid: Pid, span: Span) -> Child {
        let child = Caller { log: self.log, process };
        let record = child.record(kind, span);
        self.log.add(Record { other: self.process, last: pid.as_raw(), ..record });
        Child { pid, process }
    }

    pub(super) fn kill(&self, child: &Child) -> nix::Result<()> {
        let caller = Caller { log: self.log, process: child.process };
        self.log.add(caller.record(RecordKind::Killed, (now_ns(), 0)));
        nix::sys::signal::kill(child.pid, nix::sys::signal::Signal::SIGKILL)
    }

    /// Reaps a child if it has ended, or waits for that; returns whether it was reaped.
    pub(super) fn reap(&self, child: &Child, wait: bool) -> nix::Result<bool> {
        use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
        let flags = if wait { WaitPidFlag::empty() } else { WaitPidFlag::WNOHANG };
        if waitpid(child.pid, Some(flags))? == WaitStatus::StillAlive {
            return Ok(false);
        }
        let (caller, now) = (Caller { log: self.log, process: child.process }, now_ns());
        self.log.add(caller.record(RecordKind::Reaped, (now, now)));
        Ok(true)
    }
}

impl Held {
    /// Whether the fd survives an exec.
    pub(super) fn survives_exec(&self) -> bool {
        self.kept
    }
}

/// All hot files have the same length.
fn mapped_length(file: &HotFile) -> NonZero<usize> {
    NonZero::new(file.length as usize).unwrap_or(NonZero::<usize>::MIN)
}

fn close_range(from: RawFd, to: u32) -> nix::Result<()> {
    // SAFETY: the call takes numbers; no other code owns the fds.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, from, to, 0) }).map(drop)
}
