//! A tracing session, from the first line to the last: the loop that reads records, asks the kernel side and
//! /proc what they leave open, and gives settled incidents to the outputs.
//!
//! Here: when something happens. Not here: what it means (`analysis`), how it is asked (`tracer`, `host`), how it is
//! written (`output`).

mod losses;
mod near_misses;
mod observe;
mod report;
mod runs;
pub(crate) mod signals;
pub mod sinks;
pub mod stacks;
pub mod trace_run;
pub mod tree;
mod watch;
mod write_refused;

use std::{collections::HashMap, io, pin::pin, rc::Rc, sync::Arc, time::Duration};

use anyhow::Context as _;
use etxtbsy_trace_common::{CallKey, Hold, How, Intake, Lost, Stage, TextOf};
use nix::{sys::utsname::uname, time::ClockId};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep_until},
};

use self::{
    near_misses::NearMisses,
    runs::HuntRuns,
    signals::{Asks, Signals},
    sinks::Sinks,
    stacks::Stacks,
};
pub use self::{runs::RunFound, sinks::Sink};
use crate::{
    analysis::{
        case::GRACE_NS,
        incident::rfc3339,
        ledger::{Ledger, LedgerEvent},
        verdict::ChangeFirst,
    },
    event::{Execs, Filter, Line, LossKind, Meta, Provoke, SCHEMA, Summary, TreeRole},
    host::{
        clock::{now_ns, realtime_offset_ns},
        machine,
        pids::Pids,
        privileges,
        process::{Facts, Observer, Seen},
    },
    output::bounds,
    tracer::{Backend, ExecCounts, reaper::Reaper, records::Record},
};

/// How long the end of tracing waits for holders of the last failures to drop their files.
const LINGER: Duration = Duration::from_millis(500);
/// How long what /proc said of a process is taken for true.
const FRESH_NS: u64 = 50_000_000;
/// How often a description that is about to be closed is looked at; the timer's resolution.
const POLL_NS: u64 = 1_000_000;
/// How long records are read at a time, before signals and timers have their turn.
const TURN: Duration = Duration::from_millis(20);
/// The same for the last time, when there is nothing more to do with each.
const LAST_TURN: Duration = Duration::from_millis(500);
/// How often losses are reported.
const LOST_NS: u64 = 100_000_000;
/// How often the kernel is asked whether it has passed over a program.
const MISSED_NS: u64 = 1_000_000_000;
/// How many bytes of each command line the first line has.
const COMMAND_BYTES: usize = 128 << 10;
/// How many parents up a process is looked at.
const DEPTH: usize = 32;

/// When to end, besides a signal and the end of what is traced.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// After this time.
    pub duration: Option<Duration>,
    /// After so many incidents.
    pub incidents: Option<u64>,
}

/// How a session ended.
#[derive(Debug)]
pub struct Ended {
    /// The last line.
    pub summary: Summary,
    /// Whether the reader of stdout, or of stderr, had gone before.
    pub unread: bool,
    /// What to say of an output that nobody was reading at the end.
    pub stalled: Option<String>,
}

/// A running session.
pub struct Session<B> {
    tracer: B,
    ledger: Ledger,
    observer: Observer,
    /// The processes that could be seen from here when last there was something to look at.
    pids: Pids,
    /// What was seen of the processes of each failure that is not settled.
    seen: HashMap<u64, Seen>,
    /// What /proc said lately, by pid: when, and for which start.
    fresh: HashMap<u32, (u64, u64, Option<Rc<Facts>>)>,
    /// First bytes of the files that were to be executed, where an interpreter was busy.
    begins: HashMap<u64, Vec<u8>>,
    /// The inodes watched, by when they last made an exec fail.
    watched: HashMap<u64, u64>,
    /// How many records of failures were read.
    taken: u64,
    /// Whether there may be records that were not read yet.
    more: bool,
    /// What was reported as lost so far, in the order of [`Lost::ALL`].
    lost: [u64; Lost::ALL.len()],
    /// When that was.
    lost_ns: u64,
    /// How often a program was passed over, and when that was looked at.
    missed: (u64, u64),
    garbled: u64,
    sinks: Sinks,
    /// `None` if no stacks are wanted.
    stacks: Option<Stacks>,
    summary: Summary,
    near_misses: NearMisses,
    /// The runs of a hunt.
    runs: HuntRuns,
    /// What to change first.
    change_first: ChangeFirst,
    began_ns: u64,
    /// The roots of the traced trees, as they were asked for.
    roots: Vec<u32>,
    /// What its processes are to the failures that are shown.
    role: TreeRole,
    /// How many failing calls of a kind were reported of a process, and of all.
    calls: HashMap<CallKey, u64>,
    other_calls: u64,
    tree_ended: bool,
    /// Whether tracing is over, and only the records that are there already are read.
    ending: bool,
    signals: Signals,
}

impl<B: Backend> Session<B> {
    /// Takes over a tracer that is live, and writes the first line: with `provoke`, of provoked failures.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn begin(
        mut tracer: B,
        filter: Filter,
        provoke: Option<Provoke>,
        sinks: Vec<Sink>,
    ) -> anyhow::Result<Self> {
        tracer.listen()?;
        let sinks = Sinks::start(sinks)?;
        let stacks = tracer.copies_stacks().then(Stacks::start).transpose();
        let stacks = stacks.context("cannot start a thread for stacks")?;
        let began_ns = now_ns(ClockId::CLOCK_MONOTONIC);
        // Before the first line, after which whoever reads it may let things begin.
        tracer.take(Intake::Open);
        let mut session = Self {
            tracer,
            ledger: Ledger::default(),
            observer: Observer::new(),
            pids: Pids::default(),
            seen: HashMap::new(),
            fresh: HashMap::new(),
            begins: HashMap::new(),
            watched: HashMap::new(),
            taken: 0,
            more: false,
            lost: [0; Lost::ALL.len()],
            lost_ns: 0,
            missed: (0, began_ns),
            garbled: 0,
            sinks,
            stacks,
            summary: Summary::default(),
            near_misses: NearMisses::default(),
            runs: HuntRuns::default(),
            change_first: ChangeFirst::default(),
            began_ns,
            roots: filter.pids.clone(),
            role: filter.role,
            calls: HashMap::new(),
            other_calls: 0,
            tree_ended: false,
            ending: false,
            signals: Signals::catch().context("cannot catch signals")?,
        };
        // One that began while tracing did is not counted: [`Intake`] was closed.
        session.follow_compat();
        let system = uname().context("uname")?;
        let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
        let mut argv = words.collect();
        bounds::shorten_list(&mut argv, COMMAND_BYTES);
        let mut filter = filter;
        if let Some(command) = &mut filter.command {
            bounds::shorten_list(command, COMMAND_BYTES);
        }
        session.sinks.write(Line::Meta(Meta {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: rfc3339(realtime_offset_ns(), began_ns),
            time_ns: began_ns,
            kernel: system.release().to_string_lossy().into_owned(),
            arch: system.machine().to_string_lossy().into_owned(),
            host: Some(system.nodename().to_string_lossy().into_owned())
                .filter(|it| !it.is_empty()),
            boot_id: machine::boot_id(),
            argv,
            filter,
            provoke,
        }));
        Ok(session)
    }

    /// Traces until `command`, the end of a command, resolves, or, without one, until the traced tree has ended, a
    /// signal comes, or nobody takes the lines any more; `limits` and `stop` end it earlier. Returns what `command`
    /// resolved to, `None` if it has not.
    pub async fn trace<T>(
        &mut self,
        command: Option<impl Future<Output = io::Result<T>>>,
        limits: Limits,
        stop: &Notify,
    ) -> anyhow::Result<Option<T>> {
        let has_command = command.is_some();
        let mut command = pin!(ended(command));
        let until = limits.duration.map(|duration| Instant::now() + duration);
        if !has_command && self.tracer.tree_size() == 0 {
            // The tree may have ended while it was being found. (The whole machine has none.)
            self.tree_ended = self.tracer.is_filtered();
        }
        let output_ended = Arc::clone(&self.sinks.ended);
        let stacks_ready = self.stacks.as_ref().map(|stacks| Arc::clone(&stacks.ready));
        loop {
            self.sinks.find_failed(self.ending);
            if !has_command && (self.tree_ended || self.sinks.has_no_reader()) {
                return Ok(None);
            }
            if limits.incidents.is_some_and(|most| self.summary.incidents >= most) {
                break;
            }
            let tick = self.next_tick();
            tokio::select! {
                biased;
                end = &mut command => {
                    let end = end.context("cannot wait for the command")?;
                    return Ok(Some(end));
                }
                // With a command, signals are for the command: `Started::wait` passes them on.
                asks = self.signals.next(), if !has_command => {
                    if asks == Asks::End || !self.sinks.reopen() {
                        return Ok(None);
                    }
                }
                () = stop.notified() => break,
                () = at(until) => break,
                () = output_ended.notified() => {}
                () = notified(stacks_ready.as_deref()) => {}
                () = at(tick) => {}
                // Signals are looked at meanwhile.
                () = yield_now(), if self.more => {}
                // Last: a storm of failures must not keep the others waiting.
                readable = self.tracer.readable() => {
                    readable.context("cannot wait for the ring buffer")?;
                }
            }
            self.read();
            self.poll();
            self.settle(limits.incidents);
            self.write_found();
        }
        Ok(None)
    }

    /// How many incidents there were so far.
    #[must_use]
    pub fn incidents(&self) -> u64 {
        self.summary.incidents
    }

    /// The command could not be started: that nothing else failed is no news then.
    pub fn command_failed(&mut self) {
        self.sinks.command_failed();
    }

    /// Writes what is pending and the last line; fails with [`OutputError`] if an output did.
    pub async fn end(mut self, limits: Limits) -> anyhow::Result<Ended> {
        // From now on, one ends the wait for outputs.
        self.signals.forget().await;
        self.end_records().await;
        self.tracer.take(Intake::Closed);
        // What there is now is in the ring buffer: no more than it holds.
        self.ending = true;
        self.read();
        self.report_calls();
        self.summary.failures = self.tracer.failures();
        let lost =
            [Lost::FailureUnreported, Lost::FailureUnkept].map(|what| self.tracer.lost(what));
        let known = self.taken + lost.iter().sum::<u64>();
        let unread = self.summary.failures.saturating_sub(known);
        if self.role == TreeRole::Victim {
            self.summary.elsewhere = self.tracer.elsewhere();
        }
        for case in self.ledger.drain() {
            if limits.incidents.is_none_or(|most| self.summary.incidents < most) {
                self.report(case);
            }
        }
        if self.role != TreeRole::Victim {
            self.summary.failures = self.summary.failures.saturating_sub(self.summary.elsewhere);
        }
        self.report_other_near_misses();
        self.write_rest().await;
        self.summary.execs = Some(self.execs());
        self.summary.hunt = self.runs.sums();
        self.report_lost();
        self.report_missed();
        self.lose(LossKind::FailuresUnread, "failures: not read before the end", unread);
        self.summary.change_first = self.change_first.text();
        self.summary.duration_ns = now_ns(ClockId::CLOCK_MONOTONIC) - self.began_ns;
        let summary = self.summary.clone();
        self.sinks.write(Line::Summary(summary.clone()));
        self.sinks.drain(&mut self.signals).await;
        let result = self.sinks.outcome(summary);
        // Without it, only the end takes longer.
        let reaper = Reaper::start().inspect_err(|error| log::info!("{error:#}"));
        drop(self);
        drop(reaper);
        result
    }

    /// Gives the holders of the last failures a moment to drop their files.
    async fn end_records(&mut self) {
        let until = Instant::now() + LINGER;
        loop {
            self.read();
            self.poll();
            self.settle(None);
            let done = self.ledger.deadline_ns().is_none() && !self.more;
            if done || Instant::now() >= until {
                return;
            }
            let tick = self.next_tick().map_or(until, |tick| tick.min(until));
            tokio::select! {
                readable = self.tracer.readable() => {
                    if readable.is_err() {
                        return;
                    }
                }
                () = sleep_until(tick) => {}
                () = yield_now(), if self.more => {}
            }
        }
    }

    /// When something is to be done although no record comes.
    fn next_tick(&self) -> Option<Instant> {
        let unwatch = self.watched.values().map(|failed_ns| failed_ns + 2 * GRACE_NS).min();
        let poll = (!self.ledger.pending_releases().is_empty())
            .then(|| now_ns(ClockId::CLOCK_MONOTONIC) + POLL_NS);
        // The end of the tree may be among what is missed.
        let missed = self.tracer.is_filtered().then_some(self.missed.1 + MISSED_NS);
        let due = [self.ledger.deadline_ns(), unwatch, poll, missed].into_iter().flatten().min();
        let Some(due) = due else { return self.stacks_due() };
        let left = due.saturating_sub(now_ns(ClockId::CLOCK_MONOTONIC));
        // Never a busy loop, should the clocks disagree.
        let due = Instant::now() + Duration::from_nanos(left).max(Duration::from_millis(1));
        Some(self.stacks_due().map_or(due, |stacks| stacks.min(due)))
    }

    /// Takes in the records there are, for one turn.
    fn read(&mut self) {
        let until = Instant::now() + if self.ending { LAST_TURN } else { TURN };
        loop {
            self.more = Instant::now() >= until;
            if self.more {
                return;
            }
            let Some(record) = self.tracer.next_record(Record::decode) else { return };
            let Some(record) = record else {
                self.garbled += 1;
                continue;
            };
            match &record {
                Record::Failure(failure) => {
                    self.taken += 1;
                    if failure.inode != 0 {
                        self.watched.insert(failure.inode, failure.exit_ns);
                    }
                }
                // The search has it watched; for a description of overlayfs it is another inode.
                Record::Candidate(candidate) if !self.is_near_miss(candidate.seq) => {
                    let now = now_ns(ClockId::CLOCK_MONOTONIC);
                    self.watched.entry(candidate.inode).or_insert(now);
                }
                _ => {}
            }
            if let Record::Text(text) = &record
                && text.of == TextOf::Target
            {
                // At once: nothing keeps the file there.
                self.find_pids();
                self.read_target(text);
            }
            if self.stacks.is_some() {
                // At once, as well.
                match &record {
                    // Its candidates follow.
                    Record::Failure(_) | Record::NearMiss(_) => self.find_pids(),
                    Record::Candidate(candidate) => self.ask_for_stacks_of(&candidate.hold),
                    _ => {}
                }
            }
            let exec = exec_of(&record);
            let event = self.ledger.record(record);
            if let Some((inode, hold)) = exec
                && self.ledger.has_holder(inode, hold.tgid)
                && let Some(name) = self.tracer.exec_name(hold.task, hold.tgid)
            {
                self.ledger.exec(inode, hold.tgid, &name);
            }
            match event {
                LedgerEvent::None => {}
                // The traced command has ended: there is nothing more to see of others.
                LedgerEvent::Reported(seq) if self.ending => {
                    self.find_runners(seq);
                    self.find_pins_of_refused(seq);
                }
                LedgerEvent::Reported(seq) => self.observe(seq),
                LedgerEvent::NearMiss(seq) => self.report_near_miss(seq),
                LedgerEvent::TreeEnded => self.tree_ended = true,
                LedgerEvent::Compat => self.follow_compat(),
            }
        }
    }

    /// Whether the records of that number are about an exec that succeeded.
    fn is_near_miss(&self, seq: u64) -> bool {
        self.ledger.case(seq).is_some_and(|case| case.succeeded)
    }

    /// How many execs there were so far.
    fn execs(&self) -> Execs {
        let ExecCounts { succeeded, of_written_files, failed } = self.tracer.execs();
        Execs { total: succeeded + failed, of_written_files: of_written_files + failed, failed }
    }

    /// Has the calls of 32-bit programs followed, if one was seen to run.
    fn follow_compat(&mut self) {
        // What that takes is given up after it.
        if !self.tracer.has_seen_compat() {
            return;
        }
        if let Err(error) = privileges::with_all(|| self.tracer.follow_compat()).flatten() {
            log::warn!("{error:#}");
        }
    }

    /// Writes the incidents whose story is over, and what was lost meanwhile.
    fn settle(&mut self, most: Option<u64>) {
        let now = now_ns(ClockId::CLOCK_MONOTONIC);
        // The end of a story may be among what has not been read, after a suspension foremost.
        let heard = if self.more { self.ledger.heard_ns() } else { now };
        self.find_ends(heard);
        for case in self.ledger.settled(heard) {
            if most.is_none_or(|most| self.summary.incidents < most) {
                self.report(case);
            }
        }
        let over: Vec<(u64, u64)> = self
            .watched
            .iter()
            .filter(|(_, failed_ns)| now >= **failed_ns + 2 * GRACE_NS)
            .map(|(inode, failed_ns)| (*inode, *failed_ns))
            .collect();
        for (inode, failed_ns) in over {
            let is_over = self.tracer.unwatch(inode, failed_ns).unwrap_or_else(|error| {
                log::warn!("{error:#}");
                true
            });
            if is_over {
                self.watched.remove(&inode);
            } else {
                self.watched.insert(inode, now);
            }
        }
        if self.ledger.pending_releases().is_empty() {
            self.tracer.await_no_end();
        }
        self.tracer.take(if self.ledger.is_full() { Intake::Full } else { Intake::Open });
        if self.tracer.is_filtered() && self.tracer.lost(Lost::RingFull) > 0 {
            // That the tree has ended may be among what found no room.
            self.tree_ended |= self.tracer.tree_size() == 0;
        }
        if self.lost_ns + LOST_NS < now {
            self.report_calls();
            self.report_lost();
        }
        if self.missed.1 + MISSED_NS < now {
            self.report_missed();
        }
    }
}

/// The hold that a record says ended in an exec, and its inode.
fn exec_of(record: &Record) -> Option<(u64, Hold)> {
    let (inode, hold) = match record {
        Record::Released(change) => (change.inode, change.hold),
        Record::Candidate(candidate) => (candidate.inode, candidate.hold),
        _ => return None,
    };
    let by_exec = hold.how() == Some(How::CloseOnExec) || hold.stage() == Some(Stage::ExecClosing);
    by_exec.then_some((inode, hold))
}

/// Waits for the command to end; for ever, if there is none.
async fn ended<T>(command: Option<impl Future<Output = io::Result<T>>>) -> io::Result<T> {
    match command {
        Some(command) => command.await,
        None => std::future::pending().await,
    }
}

/// Waits for a notification; for ever, if none can come.
async fn notified(notify: Option<&Notify>) {
    match notify {
        Some(notify) => notify.notified().await,
        None => std::future::pending().await,
    }
}

/// Waits until a moment; for ever, if there is none.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests;
