//! The worker thread: prepares copies at once, and has the helper resolve one after another.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::Read as _,
    os::{fd::AsFd as _, unix::net::UnixStream},
    process::Command,
    time::{Duration, Instant},
};

use etxtbsy_trace_event::Frame;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::{
    Resolved,
    open::Identity,
    prepare::{Files, Prepared},
    process::Process,
    resolve,
    resolver::Shared,
    wire::Answer,
};

/// How long the helper may take for an answer.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a prepared copy waits for its turn.
const TURN: Duration = Duration::from_secs(10);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How many failures of requests with a file, none of them answered, ban the file.
const STRIKES: u32 = 2;
/// The most files whose reputation is remembered.
const REPUTATIONS: usize = 4096;

pub(crate) struct Worker<'a> {
    shared: &'a Shared,
    wakes: UnixStream,
    helper: fn() -> Command,
    files: Files,
    prepared: VecDeque<Prepared>,
    process: Option<Process>,
    /// The copy that the helper has, and until when.
    current: Option<(Prepared, Instant)>,
    pause: Pause,
    reputations: Reputations,
}

impl<'a> Worker<'a> {
    pub(crate) fn new(shared: &'a Shared, wakes: UnixStream, helper: fn() -> Command) -> Self {
        Self {
            shared,
            wakes,
            helper,
            files: Files::default(),
            prepared: VecDeque::new(),
            process: None,
            current: None,
            pause: Pause::default(),
            reputations: Reputations::default(),
        }
    }

    /// Works until the resolver is dropped.
    pub(crate) fn run(mut self) {
        loop {
            for (copy, asked) in self.shared.asked() {
                let key = copy.key;
                match self.files.prepare(copy, asked) {
                    Some(prepared) => self.prepared.push_back(prepared),
                    None => self.shared.answer(key, None),
                }
            }
            if self.current.is_none()
                && let Some(next) = self.prepared.pop_front()
            {
                self.send(next);
                continue;
            }
            if !self.wait() {
                return;
            }
        }
    }

    /// Gives a copy to the helper, which it starts if there is none.
    fn send(&mut self, copy: Prepared) {
        if copy.asked.elapsed() > TURN || !self.pause.is_over() {
            return self.shared.answer(copy.key, None);
        }
        // It may have ended since the last answer, which the socket reports only now.
        for _ in 0..2 {
            if self.process.is_none() {
                match Process::start(self.helper) {
                    Ok(process) => self.process = Some(process),
                    Err(error) => {
                        log::warn!("cannot start the helper that resolves stacks: {error}");
                        break;
                    }
                }
            }
            let Some(process) = &mut self.process else { break };
            if process.send(&copy, |file| !self.reputations.is_banned(&file.identity)).is_ok() {
                self.current = Some((copy, Instant::now() + ANSWER));
                return;
            }
            self.process = None;
        }
        self.pause.failed();
        self.shared.answer(copy.key, None);
    }

    /// Waits for a copy, an answer, or the end of the time for it. Returns false if the resolver is dropped.
    fn wait(&mut self) -> bool {
        let mut fds = vec![PollFd::new(self.wakes.as_fd(), PollFlags::POLLIN)];
        fds.extend(
            self.process.as_ref().map(|process| PollFd::new(process.socket(), PollFlags::POLLIN)),
        );
        let left =
            self.current.as_ref().map(|(_, until)| until.saturating_duration_since(Instant::now()));
        // Rounded up: a poll that ends too early would be repeated at once.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        if let Err(error) = poll(&mut fds, timeout)
            && error != nix::errno::Errno::EINTR
        {
            log::warn!("cannot wait for the helper that resolves stacks: {error}");
            return false;
        }
        let is_ready = |at: usize| fds.get(at).is_some_and(|fd| fd.any() == Some(true));
        let (is_woken, has_answered) = (is_ready(0), is_ready(1));
        if has_answered {
            self.receive();
        } else if self.current.as_ref().is_some_and(|(_, until)| *until <= Instant::now()) {
            self.fail(Failure::Late);
        }
        !is_woken || self.drain_wakes()
    }

    fn drain_wakes(&mut self) -> bool {
        let mut bytes = [0; 256];
        !matches!(self.wakes.read(&mut bytes), Ok(0))
    }

    /// Takes an answer, or notices that the helper has ended.
    fn receive(&mut self) {
        let answer = self.process.as_ref().and_then(|process| process.receive().ok());
        let Some(answer) = answer else { return self.fail(Failure::Ended) };
        let Some((copy, _)) = self.current.take() else { return self.fail(Failure::Ended) };
        if answer.is_full {
            self.process = None;
        }
        self.pause = Pause::default();
        self.reputations.answered(&copy);
        self.shared.answer(copy.key, Some(resolved(answer, &copy)));
    }

    /// Ends the helper. If it ended by itself, which need not have to do with the copy, another one gets the copy, once.
    fn fail(&mut self, failure: Failure) {
        self.process = None;
        let Some((mut copy, _)) = self.current.take() else { return };
        self.pause.failed();
        self.reputations.failed(&copy);
        if failure == Failure::Late || copy.is_repeated {
            return self.shared.answer(copy.key, None);
        }
        copy.is_repeated = true;
        self.prepared.push_front(copy);
    }
}

/// The answer with the paths of the mappings. The helper can have sent any numbers.
fn resolved(answer: Answer, copy: &Prepared) -> Resolved {
    let frames = answer.frames.into_iter().take(resolve::FRAMES).map(|frame| Frame {
        function: frame.function,
        file: frame.file,
        line: frame.line,
        module: frame.code.and_then(|at| copy.parts.get(at)).map(crate::prepare::Part::path),
    });
    Resolved { frames: frames.collect(), unknown: answer.unknown }
}

/// How the helper failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    Ended,
    Late,
}

/// Keeps a helper that fails again and again from being started all the time.
#[derive(Default)]
struct Pause {
    failures: u32,
    until: Option<Instant>,
}

impl Pause {
    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    /// Two failures in a row begin a pause, each more doubles it.
    fn failed(&mut self) {
        self.failures += 1;
        let doublings = self.failures.saturating_sub(2).min(8);
        let pause = Duration::from_millis(500 << doublings).min(LONGEST_PAUSE);
        self.until = (self.failures > 1).then(|| Instant::now() + pause);
    }
}

/// Which files the helper could read, and which were there when it failed: these are left out after some failures, so that
/// a file that kills it does not deny all others their frames.
#[derive(Default)]
struct Reputations {
    good: HashSet<Identity>,
    failures: HashMap<Identity, u32>,
}

impl Reputations {
    fn is_banned(&self, file: &Identity) -> bool {
        self.failures.get(file).is_some_and(|failures| *failures >= STRIKES)
    }

    fn answered(&mut self, copy: &Prepared) {
        if self.good.len() >= REPUTATIONS {
            self.good.clear();
        }
        for file in copy.parts.iter().filter_map(|part| part.file.as_ref()) {
            if !self.is_banned(&file.identity) {
                self.failures.remove(&file.identity);
                self.good.insert(file.identity);
            }
        }
    }

    fn failed(&mut self, copy: &Prepared) {
        if self.failures.len() >= REPUTATIONS {
            self.failures.clear();
        }
        // Two mappings of one file are one failure.
        let files = copy.parts.iter().filter_map(|part| part.file.as_ref());
        let files: HashSet<_> = files.map(|file| file.identity).collect();
        for file in files.difference(&self.good) {
            *self.failures.entry(*file).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_fails_repeatedly_is_paused() {
        let mut pause = Pause::default();
        assert!(pause.is_over());
        pause.failed();
        assert!(pause.is_over());
        for _ in 0..100 {
            pause.failed();
            assert!(!pause.is_over());
        }
        let left = pause.until.unwrap() - Instant::now();
        assert!(left <= LONGEST_PAUSE);
    }
}
