//! The resolver, as the tracer sees it: a queue in, a queue out, and a thread between them.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Write as _},
    os::unix::net::UnixStream,
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::{SigSet, SigmaskHow};

use crate::{Copied, Key, Resolved, worker};

/// The most copies that wait.
const WAITING: usize = 64;
/// How long a copy waits at most, also if the worker hangs on a file system that does not answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the worker and the resolver share.
pub(crate) struct Shared {
    queues: Mutex<Queues>,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Queues {
    asked: VecDeque<(Copied, Instant)>,
    /// All that are not answered, and since when.
    waiting: HashMap<Key, Instant>,
    answered: Vec<(Key, Option<Resolved>)>,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All copies that were asked for since the last call.
    pub(crate) fn asked(&self) -> VecDeque<(Copied, Instant)> {
        std::mem::take(&mut self.queues().asked)
    }

    /// Answers a key, unless this took too long.
    pub(crate) fn answer(&self, key: Key, resolved: Option<Resolved>) {
        let mut queues = self.queues();
        if queues.waiting.remove(&key).is_none() {
            return;
        }
        queues.answered.push((key, resolved));
        drop(queues);
        (self.wake)();
    }
}

/// Resolves copies in a thread and a process of its own. Both end when it is dropped.
pub struct Resolver {
    shared: Arc<Shared>,
    /// Wakes the worker; closing it ends the worker.
    worker: UnixStream,
}

impl Resolver {
    /// Starts the worker thread. `helper` is how to start a program whose main is [`crate::helper::main`]; it starts with
    /// the first copy, and again if it fails. The worker calls `wake` after each answer.
    pub fn start(
        helper: fn() -> Command,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        theirs.set_nonblocking(true)?;
        let shared = Arc::new(Shared { queues: Mutex::default(), wake: Box::new(wake) });
        let theirs_shared = Arc::clone(&shared);
        // The thread blocks all signals, which other threads handle.
        let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
        let started = thread::Builder::new()
            .name("stacks".to_owned())
            .spawn(move || worker::Worker::new(&theirs_shared, theirs, helper).run());
        mask.thread_set_mask()?;
        started?;
        Ok(Self { shared, worker: ours })
    }

    /// Asks for the frames of a copy. Never blocks. Returns false if too many wait: then there will be no answer.
    #[must_use]
    pub fn ask(&self, copy: Copied) -> bool {
        let now = Instant::now();
        let mut queues = self.shared.queues();
        if queues.waiting.len() >= WAITING || queues.asked.len() >= WAITING {
            return false;
        }
        if queues.waiting.insert(copy.key, now).is_none() {
            queues.asked.push_back((copy, now));
        }
        drop(queues);
        // If it would block, the worker has enough to wake up for.
        let _ = (&self.worker).write(&[0]);
        true
    }

    /// The answers since the last call: one for each key, with `None` if nothing can be said. No key waits longer than 20
    /// seconds.
    pub fn take(&mut self) -> Vec<(Key, Option<Resolved>)> {
        let mut queues = self.shared.queues();
        let mut answered = std::mem::take(&mut queues.answered);
        let late = queues.waiting.extract_if(|_, since| since.elapsed() > PATIENCE);
        answered.extend(late.map(|(key, _)| (key, None)));
        answered
    }
}
