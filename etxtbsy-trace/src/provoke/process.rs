//! The processes: the supervisor, and what the command's process does for it.

use super::{
    Provocation, delay::Delays, filter::Filter, handover, listener::Slots, supervisor::Supervisor,
};
use nix::{
    errno::Errno,
    sys::{prctl, signal::SigSet},
    unistd::{ForkResult, chdir, fork, setsid},
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use std::{
    fs::OpenOptions,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    panic::catch_unwind,
};

/// The name of the supervisor's processes, as ps(1) shows it.
const NAME: &std::ffi::CStr = c"etxtbsy-provoke";

/// Forks the supervisor, with `theirs` as its end of a socket pair; returns `ours`.
pub(super) fn start(
    provocation: &Provocation,
    ours: OwnedFd,
    theirs: &OwnedFd,
) -> nix::Result<OwnedFd> {
    // SAFETY: this program has no other thread yet, so the child may use the heap.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => Ok(ours),
        ForkResult::Child => {
            // An unwinding panic must not return into what the parent does. The process that stands by then
            // answers.
            let _ = catch_unwind(|| supervise(provocation, theirs));
            // SAFETY: _exit(2) has no preconditions.
            unsafe { libc::_exit(0) }
        }
    }
}

/// What the supervisor does in its process.
fn supervise(provocation: &Provocation, control: &OwnedFd) {
    let Some(control) = detach(control) else { return };
    keep_capabilities();
    let delays = Delays::new(provocation.max, provocation.seed);
    let Ok(slots) = Slots::new() else { return };
    // Without a listener, the tracer has ended or could not start the command.
    let Some(listener) = handover::receive(control.as_fd()) else { return };
    Supervisor::new(listener, slots, delays, control).run();
}

/// Separates this process from the tracer, whose files, terminal and signals it may outlive. Returns the socket as it
/// is then.
fn detach(control: &OwnedFd) -> Option<OwnedFd> {
    // It ends with the last process that has the filter, not by a signal to all processes of a job.
    let _ = SigSet::all().thread_block();
    let _ = setsid();
    let _ = chdir("/");
    let _ = prctl::set_name(NAME);
    // Delays can be shorter than the 50 µs by which the kernel may round them.
    let _ = prctl::set_timerslack(1_000);
    let null = OpenOptions::new().read(true).write(true).open("/dev/null").ok();
    // SAFETY: nothing in this process uses other fds than these four; all owners of others are forgotten by the
    // _exit at its end.
    unsafe {
        for stream in 0..3 {
            match &null {
                Some(null) => libc::dup2(null.as_raw_fd(), stream),
                None => libc::close(stream),
            };
        }
        let control = libc::dup3(control.as_raw_fd(), CONTROL, libc::O_CLOEXEC);
        // The socket may have that number already.
        if control < 0 && Errno::last() != Errno::EINVAL {
            return None;
        }
        libc::syscall(libc::SYS_close_range, CONTROL + 1, u32::MAX, 0);
        // `null` and `control` are closed.
        std::mem::forget(null);
        Some(OwnedFd::from_raw_fd(CONTROL))
    }
}

/// The number of the supervisor's end of the socket.
const CONTROL: RawFd = 3;

/// Keeps what it takes to read the fds of other users' processes.
fn keep_capabilities() {
    let Ok(own) = capabilities(None) else { return };
    let reads =
        CapabilitySet::SYS_PTRACE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::DAC_OVERRIDE;
    let kept = own.permitted & reads;
    let _ = set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    );
}

/// What the command's process does before its exec.
#[derive(Debug)]
pub struct Installation {
    filter: Filter,
    control: RawFd,
}

impl Installation {
    pub(super) fn new(filter: Filter, control: RawFd) -> Self {
        Self { filter, control }
    }

    /// Installs the filter and passes its listener on. Returns false on failure; errno has the reason.
    ///
    /// # Safety
    ///
    /// Call this only in a process just forked, in which the fd of the [`super::Provoker`] is open. It makes only system
    /// calls.
    #[must_use]
    pub unsafe fn install(&self) -> bool {
        // SAFETY: the caller says so.
        let control = unsafe { BorrowedFd::borrow_raw(self.control) };
        let Some(listener) = self.filter.install() else { return false };
        let sent = handover::send(control, listener.as_fd());
        let errno = Errno::last();
        // Not close(2), which would wait for an answer. If the supervisor has ended, the kernel must see that nobody
        // has the listener: it then fails the exec instead of letting it wait forever.
        let fd = std::os::fd::IntoRawFd::into_raw_fd(listener);
        // SAFETY: nothing owns the fd any more.
        unsafe { libc::syscall(libc::SYS_close_range, fd, fd, 0) };
        errno.set();
        sent
    }
}
