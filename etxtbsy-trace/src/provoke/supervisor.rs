//! The loop that answers the calls that wait, each after its delay.
//!
//! When the last fd of the listener is closed, the kernel fails the calls of the filter with ENOSYS. So two
//! processes have it: one answers, the other stands by. When the first is killed, the second lets all calls
//! continue without a delay, and forks another one that stands by.

use super::{
    delay::Delays,
    listener::{Call, Listener, SLOTS, Slots},
    race::{Raced, raced},
};
use crate::host::pidfd;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll, ppoll},
    sys::{
        signal::{SigSet, Signal, kill},
        time::TimeSpec,
        wait::waitpid,
    },
    unistd::{ForkResult, Pid, fork, getpid},
};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

/// Answers the calls of one filter.
pub(super) struct Supervisor {
    listener: Listener,
    slots: Slots,
    free: Vec<usize>,
    /// The calls that are delayed, with the time of their answer.
    delayed: BinaryHeap<Reverse<(Instant, usize)>>,
    /// `None` when all calls continue at once.
    delays: Option<Delays>,
    /// At the end of file, the tracer has ended.
    control: Option<OwnedFd>,
    /// The process that stands by, and its pidfd.
    standby: Option<(Pid, OwnedFd)>,
}

/// What [`Supervisor::await_event`] found.
#[allow(clippy::struct_excessive_bools, reason = "each is an event that has happened or not")]
struct Ready {
    /// A call waits.
    call: bool,
    /// No process has the filter any more.
    unused: bool,
    /// The tracer has ended.
    control: bool,
    /// The process that stood by has ended.
    standby: bool,
}

/// Which process returns from a fork.
#[derive(PartialEq, Eq)]
enum Process {
    /// The one that forked.
    Same,
    /// Its child, when the one that forked has ended.
    Successor,
}

impl Supervisor {
    pub(super) fn new(listener: OwnedFd, slots: Slots, delays: Delays, control: OwnedFd) -> Self {
        Self {
            listener: Listener::new(listener),
            slots,
            free: (0..SLOTS).collect(),
            delayed: BinaryHeap::with_capacity(SLOTS),
            delays: Some(delays),
            control: Some(control),
            standby: None,
        }
    }

    /// Answers calls until no process has the filter any more.
    ///
    /// The process must have no other thread. This forks, and returns in one process after the other.
    pub(super) fn run(mut self) {
        loop {
            let ready = self.await_event();
            self.answer_due();
            if ready.unused {
                return;
            }
            if ready.standby
                && let Some((pid, _)) = self.standby.take()
            {
                let _ = waitpid(pid, None);
            }
            if self.standby.is_none() && self.fork_standby() == Process::Successor {
                // What was ready was so for the process that has ended.
                continue;
            }
            if ready.control {
                self.stop_delays();
            }
            if ready.call {
                self.receive();
            }
        }
    }

    /// Waits until something happens or the next answer is due.
    fn await_event(&self) -> Ready {
        let now = Instant::now();
        let timeout =
            self.delayed.peek().map(|Reverse((due, _))| due.saturating_duration_since(now));
        let mut fds = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let control = self.control.as_ref().map(|control| {
            fds.push(PollFd::new(control.as_fd(), PollFlags::POLLIN));
            fds.len() - 1
        });
        let standby = self.standby.as_ref().map(|(_, pidfd)| {
            fds.push(PollFd::new(pidfd.as_fd(), PollFlags::POLLIN));
            fds.len() - 1
        });
        // An error leaves no event, and the loop comes back here.
        let _ = ppoll(&mut fds, timeout.map(TimeSpec::from), Some(SigSet::all()));
        let events = |at: usize| fds[at].revents().unwrap_or(PollFlags::empty());
        let is_ready = |at: Option<usize>| at.is_some_and(|at| !events(at).is_empty());
        let (call, hangup) =
            (events(0).contains(PollFlags::POLLIN), events(0).contains(PollFlags::POLLHUP));
        Ready {
            call,
            unused: hangup && !call,
            control: is_ready(control),
            standby: is_ready(standby),
        }
    }

    /// Takes a call; answers it at once, or notes when.
    fn receive(&mut self) {
        // With no slot left, the call that is due next has to do with less than its delay.
        if self.free.is_empty()
            && let Some(Reverse((_, slot))) = self.delayed.pop()
        {
            self.answer(slot);
        }
        let Some(slot) = self.free.pop() else { return };
        let Some(call) = self.listener.receive(&self.slots, slot) else {
            self.free.push(slot);
            return;
        };
        match self.delay_of(&call) {
            Some(delay) => self.delayed.push(Reverse((Instant::now() + delay, slot))),
            None => self.answer(slot),
        }
    }

    fn delay_of(&mut self, call: &Call) -> Option<Duration> {
        let delays = self.delays.as_mut()?;
        let raced = raced(call)?;
        // A thread that waits cannot end, so what /proc said was of this thread if it still waits.
        if !self.listener.waits(call) {
            return None;
        }
        // Of two children that hold each other's programs, an exec fails only if one is delayed and the other is not.
        (raced == Raced::Write || delays.next_choice()).then(|| delays.next_delay())
    }

    fn answer(&mut self, slot: usize) {
        self.listener.let_continue(&self.slots, slot);
        self.free.push(slot);
    }

    /// Answers the calls whose delay is over.
    fn answer_due(&mut self) {
        while let Some(Reverse((due, _))) = self.delayed.peek()
            && *due <= Instant::now()
            && let Some(Reverse((_, slot))) = self.delayed.pop()
        {
            self.answer(slot);
        }
    }

    /// From now on, all calls continue at once.
    fn stop_delays(&mut self) {
        self.control = None;
        self.delays = None;
        while let Some(Reverse((_, slot))) = self.delayed.pop() {
            self.answer(slot);
        }
        // Answers need no capability. This process may remain as long as a daemon that the command left.
        let none = CapabilitySet::empty();
        let _ = set_capabilities(
            None,
            CapabilitySets { effective: none, permitted: none, inheritable: none },
        );
    }

    /// Forks the process that stands by. In that process, returns when this process has ended.
    fn fork_standby(&mut self) -> Process {
        let Ok(own) = pidfd::open(getpid().as_raw()) else { return Process::Same };
        // SAFETY: this process has one thread, so the child may use the heap.
        match unsafe { fork() } {
            // The loop tries again at the next event, and answers meanwhile.
            Err(_) => Process::Same,
            Ok(ForkResult::Parent { child }) => {
                if let Ok(pidfd) = pidfd::open(child.as_raw()) {
                    self.standby = Some((child, pidfd));
                } else {
                    let _ = kill(child, Signal::SIGKILL);
                    let _ = waitpid(child, None);
                }
                Process::Same
            }
            Ok(ForkResult::Child) => {
                let mut ended = [PollFd::new(own.as_fd(), PollFlags::POLLIN)];
                while poll(&mut ended, PollTimeout::NONE) == Err(Errno::EINTR) {}
                self.take_over();
                Process::Successor
            }
        }
    }

    /// Answers what the other process had received.
    fn take_over(&mut self) {
        self.delayed.clear();
        self.stop_delays();
        let taken: Vec<usize> = self.slots.taken().collect();
        for slot in taken {
            self.listener.let_continue(&self.slots, slot);
        }
        self.free = (0..SLOTS).collect();
    }
}
