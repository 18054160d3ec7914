//! A tracing session, from the first line to the last.

use std::{
    collections::HashMap, fmt, io, mem::replace, os::unix::ffi::OsStrExt as _, path::Path, rc::Rc,
    sync::Arc, time::Duration,
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use etxtbsy_trace_common::{
    CallKey, Failure, Hold, How, Intake, Lingering, Lost, SWAP_FILE, Stage, TextOf,
};
use nix::{sys::utsname::uname, time::ClockId};
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{Signal, SignalKind, signal},
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep_until},
};

pub mod trace_run;
pub mod tree;

use crate::{
    analysis::{
        attribution::Keeper,
        incident::{World, build, comm, rfc3339, shortfall, syscall},
        ledger::{Case, Drop, GRACE_NS, Ledger, Runner, Running, Sign, Unkept},
        running,
        verdict::ChangeFirst,
    },
    command::Started,
    event::{
        self, Filter, Line, LossKind, Meta, Refusal, SCHEMA, Summary, TreeRole, bytes::maybe_text,
    },
    host::{
        binfmt_misc,
        clock::{now_ns, realtime_offset_ns},
        fs_view::{FileSystem, Found, Sight},
        loop_device,
        opening::{self, Opening},
        pids::Pids,
        privileges,
        process::{self, Facts, Observer, Seen},
    },
    output::{Output, bounds, queue::Queue},
    tracer::{
        loader::Tracer,
        reaper::Reaper,
        records::{Record, Text, path_of},
    },
};

/// How long the end of tracing waits for holders of the last failures to let go.
const LINGER: Duration = Duration::from_millis(500);
/// How long what /proc said of a process is taken for true.
const FRESH_NS: u64 = 50_000_000;
/// How often a description that is about to be closed is looked at; the timer's resolution.
const POLL_NS: u64 = 1_000_000;
/// How long records are taken in at a time, before signals and timers have their turn.
const TURN: Duration = Duration::from_millis(20);
/// The same for the last time, when there is nothing more to do with each.
const LAST_TURN: Duration = Duration::from_millis(500);
/// How often it is told what was lost.
const LOST_NS: u64 = 100_000_000;
/// How often the kernel is asked whether it has passed over a program.
const MISSED_NS: u64 = 1_000_000_000;
/// How long the end waits for outputs of which nothing more is read.
const DRAIN: Duration = Duration::from_secs(2);
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

/// A place for lines, and its name for errors.
pub struct Sink {
    /// Such as `stdout`, or the file's name.
    pub name: String,
    /// Where they go.
    pub output: Box<dyn Output>,
    /// Whether it never keeps its writer waiting, and so needs no thread of its own.
    is_direct: bool,
}

impl Sink {
    /// A place that may keep its writer waiting, such as a pipe or a file.
    #[must_use]
    pub fn new(name: String, output: Box<dyn Output>) -> Self {
        Self { name, output, is_direct: false }
    }

    /// A place in memory.
    pub fn direct(name: &str, output: impl Output + 'static) -> Self {
        Self { name: name.to_owned(), output: Box::new(output), is_direct: true }
    }
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

/// An output does not have all that it should: a failure to trace. The text is one line.
#[derive(Debug)]
pub struct OutputError(String);

impl fmt::Display for OutputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for OutputError {}

/// An output during the session.
struct Taker {
    name: String,
    way: Way,
    /// Why it failed.
    error: Option<io::Error>,
}

/// How lines get to an output.
enum Way {
    Direct(Box<dyn Output>),
    Queue(Queue),
}

impl Taker {
    fn start(sink: Sink, ended: &Arc<Notify>) -> anyhow::Result<Self> {
        let Sink { name, output, is_direct } = sink;
        let way = if is_direct {
            Way::Direct(output)
        } else {
            let queue = Queue::start(output, Arc::clone(ended));
            Way::Queue(queue.with_context(|| format!("cannot start a thread for {name}"))?)
        };
        Ok(Self { name, way, error: None })
    }

    fn line(&mut self, line: &Arc<Line>) {
        match &mut self.way {
            _ if self.error.is_some() => {}
            Way::Direct(output) => self.error = output.line(line).err(),
            Way::Queue(queue) => queue.line(line),
        }
    }

    /// Whether it failed because whoever read our stdout or stderr has gone, which is no error.
    fn is_unread(&self) -> bool {
        let has_gone = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        ["stdout", "stderr"].contains(&self.name.as_str())
            && self.error.as_ref().is_some_and(has_gone)
    }

    /// How many of so many incidents it does not have, and was not told of.
    fn lacks(&self, incidents: u64) -> u64 {
        match &self.way {
            Way::Direct(_) => 0,
            Way::Queue(queue) => incidents.saturating_sub(queue.written().incidents),
        }
    }
}

/// A running session.
pub struct Session {
    tracer: Tracer,
    records: AsyncFd<RingBuf<MapData>>,
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
    /// How many failures were taken in.
    taken: u64,
    /// Whether there may be records that were not taken in yet.
    more: bool,
    /// What was told as lost so far, in the order of [`Lost::ALL`].
    lost: [u64; Lost::ALL.len()],
    /// When that was.
    lost_ns: u64,
    /// How often a program was passed over, and when that was looked at.
    missed: (u64, u64),
    garbled: u64,
    sinks: Vec<Taker>,
    /// Notified when the thread of an output has ended.
    output_ended: Arc<Notify>,
    summary: Summary,
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
    /// Whether tracing is over, and only what was told already is taken in.
    ending: bool,
    signals: Signals,
}

/// The signals that end tracing, where there is no command that they are for.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

impl Session {
    /// Takes over a tracer that is live, and writes the first line.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn begin(mut tracer: Tracer, filter: Filter, sinks: Vec<Sink>) -> anyhow::Result<Self> {
        let records = tracer.take_records()?;
        let output_ended = Arc::new(Notify::new());
        let sinks = sinks.into_iter().map(|sink| Taker::start(sink, &output_ended));
        let sinks = sinks.collect::<anyhow::Result<_>>()?;
        let began_ns = now_ns(ClockId::CLOCK_MONOTONIC);
        // Before the first line, after which whoever reads it may let things begin.
        tracer.take(Intake::Open);
        let mut session = Self {
            tracer,
            // SAFETY: the ring buffer owns its fd, and closes it when it is dropped.
            records: unsafe { AsyncFd::register_with_interest(records, Interest::READABLE) }
                .map_err(io::Error::from)
                .context("cannot wait for the ring buffer")?,
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
            output_ended,
            summary: Summary::default(),
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
        session.write(Line::Meta(Meta {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            time: rfc3339(realtime_offset_ns(), began_ns),
            time_ns: began_ns,
            kernel: system.release().to_string_lossy().into_owned(),
            arch: system.machine().to_string_lossy().into_owned(),
            argv,
            filter,
        }));
        Ok(session)
    }

    /// Traces until `command` has ended, or, without one, until the traced tree has, a signal
    /// comes, or nobody takes the lines any more; `limits` and `stop` end it earlier. Gives the command's exit status,
    /// `None` if it has not ended.
    pub async fn trace(
        &mut self,
        command: Option<&Started>,
        limits: Limits,
        stop: &Notify,
    ) -> anyhow::Result<Option<u8>> {
        let until = limits.duration.map(|duration| Instant::now() + duration);
        if command.is_none() && self.tracer.tree_size() == 0 {
            // The tree may have ended while it was being found. (The whole machine has none.)
            self.tree_ended = self.tracer.is_filtered();
        }
        let output_ended = Arc::clone(&self.output_ended);
        loop {
            self.find_failed();
            if command.is_none() && (self.tree_ended || self.has_no_reader()) {
                return Ok(None);
            }
            if limits.incidents.is_some_and(|most| self.summary.incidents >= most) {
                break;
            }
            let tick = self.next_tick();
            tokio::select! {
                biased;
                code = ended(command) => {
                    let code = code.context("cannot wait for the command")?;
                    return Ok(Some(code));
                }
                // With a command, signals are for the command: `Started::wait` passes them on.
                () = self.signals.next(), if command.is_none() => return Ok(None),
                () = stop.notified() => break,
                () = at(until) => break,
                () = output_ended.notified() => {}
                () = at(tick) => {}
                // Signals are looked at meanwhile.
                () = yield_now(), if self.more => {}
                // Last: a storm of failures must not keep the others waiting.
                readable = self.records.readable_mut() => {
                    readable.context("cannot wait for the ring buffer")?.clear_ready();
                }
            }
            self.read();
            self.poll();
            self.settle(limits.incidents);
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
        for sink in &mut self.sinks {
            match &mut sink.way {
                Way::Direct(output) => output.command_failed(),
                Way::Queue(queue) => queue.command_failed(),
            }
        }
    }

    /// Writes what is pending and the last line; fails with [`OutputError`] if an output did.
    pub async fn end(mut self, limits: Limits) -> anyhow::Result<Ended> {
        self.end_records().await;
        self.tracer.take(Intake::Closed);
        // What there is now is in the ring buffer: no more than it holds.
        self.ending = true;
        self.read();
        self.tell_calls();
        self.summary.failures = self.tracer.failures();
        let lost = [Lost::FailureUntold, Lost::FailureUnkept].map(|what| self.tracer.lost(what));
        let known = self.taken + lost.iter().sum::<u64>();
        let unread = self.summary.failures.saturating_sub(known);
        if self.role == TreeRole::Victim {
            self.summary.elsewhere = self.tracer.elsewhere();
        }
        for case in self.ledger.drain() {
            if limits.incidents.is_none_or(|most| self.summary.incidents < most) {
                self.incident(case);
            }
        }
        if self.role != TreeRole::Victim {
            self.summary.failures = self.summary.failures.saturating_sub(self.summary.elsewhere);
        }
        self.tell_lost();
        self.tell_missed();
        self.lose(LossKind::FailuresUnread, "failures: not read before the end", unread);
        self.summary.change_first = self.change_first.text();
        self.summary.duration_ns = now_ns(ClockId::CLOCK_MONOTONIC) - self.began_ns;
        let summary = self.summary.clone();
        self.write(Line::Summary(summary.clone()));
        self.drain().await;
        let result = self.outcome(summary);
        // Without it, only the end takes longer.
        let reaper = Reaper::start().inspect_err(|error| log::info!("{error:#}"));
        drop(self);
        drop(reaper);
        result
    }

    /// Waits until the outputs have everything, as long as somebody reads them and no signal comes.
    async fn drain(&mut self) {
        let output_ended = Arc::clone(&self.output_ended);
        let queues = |sinks: &[Taker]| {
            let queues = sinks.iter().filter_map(|sink| match &sink.way {
                Way::Queue(queue) => Some((queue.is_done(), queue.written().lines)),
                Way::Direct(_) => None,
            });
            queues.collect::<Vec<_>>()
        };
        for sink in &self.sinks {
            if let Way::Queue(queue) = &sink.way {
                queue.close();
            }
        }
        loop {
            let before = queues(&self.sinks);
            if before.iter().all(|(is_done, _)| *is_done) {
                break;
            }
            tokio::select! {
                () = output_ended.notified() => {}
                () = self.signals.next() => break,
                () = tokio::time::sleep(DRAIN) => {
                    if queues(&self.sinks) == before {
                        break;
                    }
                }
            }
        }
        self.find_failed();
    }

    /// What the outputs come to.
    fn outcome(&self, summary: Summary) -> anyhow::Result<Ended> {
        let incidents = summary.incidents;
        let missing = |sink: &Taker| match sink.lacks(incidents) {
            0 => String::new(),
            count => format!("; {count} of {incidents} incidents are not there"),
        };
        let failed = self.sinks.iter().filter(|sink| !sink.is_unread());
        let failed = failed.filter_map(|sink| Some((sink, sink.error.as_ref()?)));
        if let Some((sink, error)) = failed.clone().next() {
            let words = format!("cannot write to {}: {error}{}", sink.name, missing(sink));
            return Err(OutputError(words).into());
        }
        let is_stalled = |sink: &&Taker| match &sink.way {
            Way::Direct(_) => false,
            Way::Queue(queue) => !queue.is_done(),
        };
        let stalled = self.sinks.iter().find(is_stalled).map(|sink| {
            let seconds = DRAIN.as_secs();
            format!("nothing was read from {} for {seconds} s{}", sink.name, missing(sink))
        });
        Ok(Ended { summary, unread: self.sinks.iter().any(Taker::is_unread), stalled })
    }

    /// Notes which outputs have failed, and says so at once.
    fn find_failed(&mut self) {
        let mut failed = Vec::new();
        for sink in &mut self.sinks {
            if let Way::Queue(queue) = &sink.way
                && let Some(error) = queue.take_error()
            {
                let words = format!("cannot write to {}: {error}", sink.name);
                sink.error = Some(error);
                if !sink.is_unread() {
                    failed.push(words);
                }
            }
        }
        for words in failed {
            if !self.ending {
                log::error!("{words}; tracing goes on");
            }
            for sink in &mut self.sinks {
                if let Way::Direct(output) = &mut sink.way {
                    output.failed(&words);
                }
            }
        }
    }

    /// Whether whoever read our stdout has gone, or all outputs have failed.
    fn has_no_reader(&self) -> bool {
        self.sinks.iter().any(Taker::is_unread)
            || self.sinks.iter().all(|sink| sink.error.is_some())
    }

    /// Gives the holders of the last failures a moment to let go.
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
                readable = self.records.readable_mut() => {
                    let Ok(mut readable) = readable else { return };
                    readable.clear_ready();
                }
                () = sleep_until(tick) => {}
                () = yield_now(), if self.more => {}
            }
        }
    }

    /// When something is to be done although no record comes.
    fn next_tick(&self) -> Option<Instant> {
        let unwatch = self.watched.values().map(|failed_ns| failed_ns + 2 * GRACE_NS).min();
        let poll = (!self.ledger.lingering().is_empty())
            .then(|| now_ns(ClockId::CLOCK_MONOTONIC) + POLL_NS);
        // The end of the tree may be among what is missed.
        let missed = self.tracer.is_filtered().then_some(self.missed.1 + MISSED_NS);
        let due = [self.ledger.deadline_ns(), unwatch, poll, missed].into_iter().flatten().min()?;
        let left = due.saturating_sub(now_ns(ClockId::CLOCK_MONOTONIC));
        // Never a busy loop, should the clocks disagree.
        Some(Instant::now() + Duration::from_nanos(left).max(Duration::from_millis(1)))
    }

    /// Takes in the records there are, for one turn.
    fn read(&mut self) {
        let until = Instant::now() + if self.ending { LAST_TURN } else { TURN };
        loop {
            self.more = Instant::now() >= until;
            if self.more {
                return;
            }
            let record = match self.records.get_mut().next() {
                Some(bytes) => Record::decode(&bytes),
                None => return,
            };
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
                Record::Candidate(candidate) => {
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
            let exec = exec_of(&record);
            let sign = self.ledger.record(record);
            if let Some((inode, hold)) = exec
                && self.ledger.has_holder(inode, hold.tgid)
                && let Some(name) = self.tracer.exec_name(hold.task, hold.tgid)
            {
                self.ledger.exec(inode, hold.tgid, &name);
            }
            match sign {
                Sign::None => {}
                // The traced command has ended: there is nothing more to see of others.
                Sign::Told(seq) if self.ending => {
                    self.find_runners(seq);
                    self.find_kept(seq);
                }
                Sign::Told(seq) => self.observe(seq),
                Sign::TreeEnded => self.tree_ended = true,
                Sign::Compat => self.follow_compat(),
            }
        }
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

    /// Notes the first bytes of a file that was to be executed.
    fn read_target(&mut self, text: &Text) {
        let Some(case) = self.ledger.case(text.seq) else { return };
        let pids = [case.failure.tgid, case.failure.ppid].map(|pid| self.pids.local(pid));
        if let Some(begin) = first_bytes(&path_of(&text.bytes), pids.into_iter().flatten()) {
            self.begins.insert(text.seq, begin);
        }
    }

    /// Finds out which processes can be seen from here now.
    fn find_pids(&mut self) {
        match self.tracer.pids() {
            Ok(pids) => self.pids = pids,
            Err(error) => log::warn!("{error:#}"),
        }
    }

    /// Looks at the processes of a failure while they live.
    fn observe(&mut self, seq: u64) {
        // First: these may go at any moment.
        self.await_ends();
        self.find_pids();
        self.find_keepers(seq);
        let Some(case) = self.ledger.case(seq) else { return };
        let (failure, is_write) = (case.failure, case.is_write());
        let mut wanted = vec![(failure.tgid, failure.start_ns), (failure.ppid, 0)];
        for candidate in &case.candidates {
            let hold = &candidate.hold;
            let start_ns = candidate.holder.start_ns;
            wanted.push((hold.tgid, if start_ns == 0 { hold.start_ns } else { start_ns }));
            wanted.extend([(hold.ppid, 0), (hold.forked.tgid, 0), (hold.opened.tgid, 0)]);
        }
        let mut seen = Seen::new();
        for (pid, start_ns) in wanted {
            self.see(&mut seen, pid, start_ns);
        }
        self.find_runtimes(seq, &seen);
        self.seen.insert(seq, seen);
        if failure.inode == 0 && failure.enter_ns != 0 && !is_write {
            // No file was opened: what refused the exec was the open itself, no writer.
            self.find_refusing(seq, |_| false);
        }
        self.find_runners(seq);
        self.find_kept(seq);
        self.await_ends();
        self.tell_pending(seq);
    }

    /// Finds out what the programs of openers were written in that have ended, and held the file to their ends.
    fn find_runtimes(&mut self, seq: u64, seen: &Seen) {
        let Some(case) = self.ledger.case_mut(seq) else { return };
        for candidate in &case.candidates {
            let Hold { tgid, ppid, opened, .. } = candidate.hold;
            let is_known = seen.get(&tgid).is_some_and(|facts| facts.runtime.is_some());
            let Some(names) = case.exes.get(&tgid).filter(|_| opened.tgid == tgid && !is_known)
            else {
                continue;
            };
            // Its parent sees the same, as a rule.
            let path = path_of(names);
            let find = || {
                let sight = Sight::of(self.pids.local(ppid)?)?;
                let file =
                    sight.open(&sight.find(Path::new(std::ffi::OsStr::from_bytes(&path)))?)?;
                self.observer.runtime_of(&file, &path)
            };
            // What it has executed since it opened the file is another program.
            if self.tracer.last_exec_ns(tgid) > opened.time_ns {
                continue;
            }
            if let Some(runtime) = find() {
                case.runtimes.insert(tgid, runtime);
            }
        }
    }

    /// Shows a failure before its story is over.
    fn tell_pending(&mut self, seq: u64) {
        let Some(case) = self.ledger.case(seq).filter(|case| self.shows(case)) else { return };
        let nothing = Seen::new();
        let tracer = &self.tracer;
        let world = World {
            seen: self.seen.get(&seq).unwrap_or(&nothing),
            lineage: &|pid| tracer.lineage(pid),
            realtime_offset_ns: realtime_offset_ns(),
            roots: &self.roots,
            target_begins: self.begins.get(&seq).cloned(),
        };
        for sink in &mut self.sinks {
            if let Way::Direct(output) = &mut sink.way {
                output.pending(&|| build(0, case, &world));
            }
        }
    }

    /// Has it told when lingering descriptions are closed.
    fn await_ends(&mut self) {
        for ((file, _), hold) in self.ledger.lingering() {
            // The others are done in microseconds.
            if hold.stage() == Some(Stage::Held) || self.ledger.is_kept(file) {
                let lingering = Lingering { file, inode: hold.inode };
                if let Err(error) = self.tracer.await_end(hold.tgid, &lingering) {
                    log::warn!("{error:#}");
                }
            }
        }
    }

    /// Finds the file that refused to be written, and the processes that ran it.
    fn find_runners(&mut self, seq: u64) {
        let Some(case) = self.ledger.case(seq).filter(|case| case.is_write()) else { return };
        let found = match running::shown(case) {
            Some(running) => Some(running),
            None => self.look_up_runners(seq),
        };
        let Some(mut running) = found else { return };
        let mut seen = self.seen.remove(&seq).unwrap_or_default();
        for runner in &mut running.runners {
            let told = runner.told;
            runner.script = told
                .filter(|told| told.script != 0)
                .and_then(|told| self.tracer.script(told.script));
            if !self.ending {
                self.see(&mut seen, runner.tgid, told.map_or(0, |told| told.start_ns));
                self.see(&mut seen, told.map_or(0, |told| told.ppid), 0);
            }
            runner.in_tree = match told {
                Some(told) => told.holder.in_tree != 0,
                None => self.role != TreeRole::Victim && self.tracer.is_in_tree(runner.tgid),
            };
        }
        self.seen.insert(seq, seen);
        self.ledger.running(seq, running);
    }

    /// Finds them by the path, where the failing call did not show the file. What cannot be known to
    /// have been so at the failure is not believed.
    fn look_up_runners(&mut self, seq: u64) -> Option<Running> {
        if self.ending {
            self.find_pids();
        }
        let case = self.ledger.case(seq)?;
        let failed_ns = case.failure.exit_ns;
        let refused =
            running::look_up(case, realtime_offset_ns() + i128::from(failed_ns), &self.pids)?;
        let count = self.tracer.write_count(&refused.file.file).ok()?;
        if count >= 0 {
            return None;
        }
        let mut runners = Vec::new();
        for (tgid, told) in refused.runners {
            // One that no event has shown is older than tracing.
            let run = self.tracer.run(tgid);
            if run.is_some_and(|run| run.began_ns > failed_ns || run.exec_ns > failed_ns) {
                continue;
            }
            let gone = !self.pids.local(tgid).is_some_and(process::is_alive);
            let left = gone.then(|| (How::None, now_ns(ClockId::CLOCK_MONOTONIC)));
            runners.push(Runner { tgid, told, left, in_tree: false, script: None });
        }
        let found = runners.iter().map(|it| it.told.map_or(1, |told| told.denials)).sum::<u32>();
        Some(Running {
            path: refused.path,
            dev: refused.file.kernel_dev(),
            ino: refused.file.ino,
            count: Some(count),
            explained: found.min(count.unsigned_abs()),
            runners,
        })
    }

    /// Asks which of those that are taken to run the file still are gone without a word.
    fn find_left(&mut self, case: &mut Case) {
        let runners = case.running.iter_mut().flat_map(|running| &mut running.runners);
        for runner in runners.filter(|runner| runner.left.is_none()) {
            let Some(told) = runner.told else { continue };
            let lives = self.tracer.lives(told.task, told.start_ns).unwrap_or(true);
            let run = self.tracer.run(told.tgid).filter(|run| run.start_ns == told.start_ns);
            let other = run.is_some_and(|run| run.inode != told.inode)
                && !self.tracer.is_in_exec(told.task);
            if !lives || other {
                runner.left = Some((How::None, now_ns(ClockId::CLOCK_MONOTONIC)));
            }
        }
    }

    /// Finds what of the kernel keeps a file that refused to be written, or which file system refused, where
    /// the processes that run it do not account for that.
    fn find_kept(&mut self, seq: u64) {
        let Some(case) = self.ledger.case(seq).filter(|case| case.is_write()) else { return };
        let (running, victim) = (case.running.as_ref(), case.failure.tgid);
        let explained = running.map_or(0, |running| running.explained);
        if running.is_some_and(|running| explained > 0 && running.missing() == 0) {
            return;
        }
        // The failing call has shown the file, whatever has become of its path since.
        if let Some(refused) = case.refused {
            let kept = if refused.flags & SWAP_FILE != 0 {
                vec![Keeper::SwapFile]
            } else if running.is_some_and(|running| running.missing() > 0) {
                self.entries_that_keep((refused.inode, refused.ino), None, victim)
            } else {
                Vec::new()
            };
            if let Some(case) = self.ledger.case_mut(seq).filter(|_| !kept.is_empty()) {
                case.kept.extend(kept);
                return;
            }
        }
        let Some(case) = self.ledger.case(seq) else { return };
        let running = case.running.as_ref();
        let Some((file, path)) = running::there_now(case, &self.pids) else {
            // Of a file system that a program serves, no file is looked at.
            if explained == 0 {
                self.find_refusing(seq, running::is_any_on);
            }
            return;
        };
        // Another file by now.
        if running.is_some_and(|running| running.ino != file.ino) {
            return;
        }
        let missing = running.map(Running::missing);
        let Ok(count) = self.tracer.write_count(&file.file) else { return };
        let missing = missing.unwrap_or(u32::try_from(-i64::from(count)).unwrap_or(0));
        let kept = self.keepers_of(&file, missing, victim);
        if kept.is_empty() {
            if explained == 0 && missing == 0 {
                // Nobody was found that runs this very file.
                self.find_refusing(seq, |_| false);
            }
            return;
        }
        if self.ledger.case(seq).is_some_and(|case| case.running.is_none()) {
            let (dev, ino) = (file.kernel_dev(), file.ino);
            let count = Some(count).filter(|count| *count < 0);
            self.ledger.running(seq, Running { path, dev, ino, count, ..Running::default() });
        }
        if let Some(case) = self.ledger.case_mut(seq) {
            case.kept.extend(kept);
        }
    }

    /// What of the kernel keeps a file that refused to be written; `missing` is how often writing is denied by
    /// something that was not found.
    fn keepers_of(&mut self, file: &Found, missing: u32, victim: u32) -> Vec<Keeper> {
        if self.tracer.is_swap_file(&file.file).unwrap_or(false) {
            return vec![Keeper::SwapFile];
        }
        if missing == 0 {
            return Vec::new();
        }
        let Ok(inode) = self.tracer.inode_at(&file.file) else { return Vec::new() };
        self.entries_that_keep((inode, file.ino), Some(file), victim)
    }

    /// The entries of binfmt_misc that keep an inode, by its address and number; by the path of `file`
    /// where the kernel does not show what an entry keeps.
    fn entries_that_keep(
        &mut self,
        inode: (u64, u64),
        file: Option<&Found>,
        victim: u32,
    ) -> Vec<Keeper> {
        let seen = self.pids.local(victim).and_then(Sight::of);
        let sights: Vec<Sight> = seen.into_iter().chain(Sight::ours()).collect();
        let tracer = &mut self.tracer;
        let entries = binfmt_misc::keepers(file, &sights, |entry| tracer.is_kept_by(inode, entry));
        entries.into_iter().map(Keeper::BinfmtMisc).collect()
    }

    /// Finds the file system that refused a call itself, because another than this kernel serves it; unless
    /// `may_run` says that a program which runs may have made the kernel refuse.
    fn find_refusing(&mut self, seq: u64, may_run: impl FnOnce(&FileSystem) -> bool) {
        let Some(case) = self.ledger.case(seq) else { return };
        let Some(found) = running::refusing(case, &self.pids) else { return };
        let is_of = |runner: &etxtbsy_trace_common::Runner| runner.dev == found.dev;
        let may_run = case.named.iter().any(is_of) || may_run(&found);
        if let Some(case) = self.ledger.case_mut(seq).filter(|_| !may_run) {
            case.kept.push(Keeper::FileSystem(found));
        }
    }

    /// Looks at a process and at those above it.
    fn see(&mut self, seen: &mut Seen, pid: u32, start_ns: u64) {
        let mut next = (pid, start_ns);
        for _ in 0..DEPTH {
            if next.0 == 0 || seen.contains_key(&next.0) {
                break;
            }
            let Some(facts) = self.look(next.0, next.1) else { break };
            let ppid = facts.ppid;
            seen.insert(next.0, facts);
            next = (ppid, 0);
        }
    }

    /// Looks for what the kernel side cannot see of a failure: what threads are opening, and what keeps
    /// descriptions that no table shows.
    fn find_keepers(&mut self, seq: u64) {
        self.find_openings(seq);
        let blind = self.is_blind();
        let passed_since_ns = self.tracer.passed_since_ns();
        let Some(case) = self.ledger.case_mut(seq) else { return };
        case.passed_since_ns = passed_since_ns;
        case.blind = blind;
        let has_passed = case.has_passed();
        let failure = case.failure;
        let attribution = case.attribution();
        if passed_since_ns == 0
            && has_passed
            && let Err(error) = self.tracer.follow_passed()
        {
            log::warn!("{error:#}");
        }
        if attribution.writers.is_none_or(|writers| writers <= attribution.explained) {
            return;
        }
        let Some(case) = self.ledger.case_mut(seq) else { return };
        let path = case.text(TextOf::BusyFile).map(path_of).unwrap_or_default();
        for one in attribution.unheld.iter().filter(|one| one.keeper == Keeper::Unknown) {
            let local = self.pids.local(one.hold.tgid);
            if local.is_some_and(|pid| process::has_registered(pid, &path)) {
                case.registered.insert(one.hold.file);
            }
        }
        if case.registered.is_empty() {
            case.kept.extend(loop_device::of(failure.dev, failure.ino).map(Keeper::LoopDevice));
        }
    }

    /// Finds out which threads that sleep in a call which opens a file are opening the busy one.
    fn find_openings(&mut self, seq: u64) {
        let Some(case) = self.ledger.case_mut(seq) else { return };
        let Failure { dev, ino, .. } = case.failure;
        for (tgid, tid) in case.openings() {
            let looked = match self.pids.local(tgid) {
                // A thread's number is not known elsewhere; that of the first is its process's.
                Some(local) if local == tgid || tid == tgid => {
                    opening::look(local, if tid == tgid { local } else { tid }, dev, ino)
                }
                _ => Opening::Perhaps,
            };
            match looked {
                Opening::Yes => case.opening.insert(tid),
                Opening::Perhaps => case.may_open.insert(tid),
                Opening::No => false,
            };
        }
    }

    /// Whether the programs may have missed what would have shown a holder.
    fn is_blind(&self) -> bool {
        let holds = [Lost::HoldsFull, Lost::ExecsFull, Lost::WalkTruncated];
        self.missed.0 > 0 || holds.into_iter().any(|what| self.tracer.lost(what) > 0)
    }

    fn look(&mut self, pid: u32, start_ns: u64) -> Option<Rc<Facts>> {
        // One that cannot be seen from here: /proc has another of that pid, if any.
        let local = self.pids.local(pid)?;
        let now = now_ns(ClockId::CLOCK_MONOTONIC);
        if let Some((at, start, facts)) = self.fresh.get(&pid)
            && *at + FRESH_NS > now
            && *start == start_ns
        {
            return facts.clone();
        }
        let facts = self.observer.look(local, start_ns, &self.pids).map(|facts| {
            // After the look: an exec while that went on counts.
            Rc::new(Facts { exec_ns: self.tracer.last_exec_ns(pid), ..facts })
        });
        if self.fresh.len() > 4096 {
            self.fresh.retain(|_, (at, _, _)| *at + FRESH_NS > now);
        }
        self.fresh.insert(pid, (now, start_ns, facts.clone()));
        facts
    }

    /// Asks which of the descriptions are closed by now whose end no event tells.
    fn poll(&mut self) {
        let closed = self.gone(self.ledger.lingering().into_values(), |session, hold| {
            let file = hold.file;
            // The address of one that waits in a task's work may be in use again by now.
            let waits = hold.stage() == Some(Stage::Released) && !session.ledger.is_kept(file);
            let inode = if waits { 0 } else { hold.inode };
            session.tracer.still_open(hold.task, &Lingering { file, inode })
        });
        if closed.is_empty() {
            return;
        }
        self.find_pids();
        for (hold, time_ns) in closed {
            let lives = match self.pids.local(hold.tgid) {
                Some(pid) => process::is_alive(pid),
                None => self.tracer.lives(hold.task, hold.start_ns).unwrap_or(false),
            };
            let exiting = !lives;
            self.ledger.dropped(hold.file, hold.tgid, Drop { time_ns, exiting });
        }
    }

    /// Asks which fds, of those that are taken to be held still at the end of their grace period, are gone
    /// without a word: the kernel can have passed over what would have told it.
    fn find_ends(&mut self, heard_ns: u64) {
        let unended = self.ledger.unended(heard_ns).into_values();
        for (hold, time_ns) in self.gone(unended, |session, hold| session.tracer.still_there(hold))
        {
            self.ledger.gone(&hold, time_ns);
        }
    }

    /// Which of these holds the kernel does not have any more, and when that was found; what was told of
    /// them meanwhile, which is exact, has been taken in.
    fn gone(
        &mut self,
        holds: impl Iterator<Item = Hold>,
        is_there: impl Fn(&mut Self, &Hold) -> anyhow::Result<bool>,
    ) -> Vec<(Hold, u64)> {
        let mut gone = Vec::new();
        for hold in holds {
            match is_there(self, &hold) {
                Ok(true) => {}
                Ok(false) => gone.push((hold, now_ns(ClockId::CLOCK_MONOTONIC))),
                Err(error) => log::warn!("{error:#}"),
            }
        }
        if !gone.is_empty() {
            self.read();
        }
        gone
    }

    /// Writes the incidents whose story is over, and what was lost meanwhile.
    fn settle(&mut self, most: Option<u64>) {
        let now = now_ns(ClockId::CLOCK_MONOTONIC);
        // The end of a story may be among what has not been read, after a suspension foremost.
        let heard = if self.more { self.ledger.heard_ns() } else { now };
        self.find_ends(heard);
        for case in self.ledger.settled(heard) {
            if most.is_none_or(|most| self.summary.incidents < most) {
                self.incident(case);
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
        if self.ledger.lingering().is_empty() {
            self.tracer.await_no_end();
        }
        self.tracer.take(if self.ledger.is_full() { Intake::Full } else { Intake::Open });
        if self.tracer.is_filtered() && self.tracer.lost(Lost::RingFull) > 0 {
            // That the tree has ended may be among what found no room.
            self.tree_ended |= self.tracer.tree_size() == 0;
        }
        if self.lost_ns + LOST_NS < now {
            self.tell_calls();
            self.tell_lost();
        }
        if self.missed.1 + MISSED_NS < now {
            self.tell_missed();
        }
    }

    fn incident(&mut self, mut case: Case) {
        case.passed_over = case.has_unseen() && self.tracer.missed() > 0;
        self.find_left(&mut case);
        let case = &case;
        let seq = case.failure.seq;
        if !self.shows(case) {
            self.seen.remove(&seq);
            self.begins.remove(&seq);
            self.summary.elsewhere += 1;
            return;
        }
        let unplaced = u64::from(case.unplaced);
        self.lose(
            LossKind::HoldsPerFile,
            "releases: more holders than are followed of a file",
            unplaced,
        );
        let seen = self.seen.remove(&seq).unwrap_or_default();
        let tracer = &self.tracer;
        let world = World {
            seen: &seen,
            lineage: &|pid| tracer.lineage(pid),
            realtime_offset_ns: realtime_offset_ns(),
            roots: &self.roots,
            target_begins: self.begins.remove(&seq),
        };
        let incident = build(self.summary.incidents + 1, case, &world);
        // Then it is not complete.
        if !case.is_write() && !incident.complete && case.attribution().contradicted {
            self.lose(LossKind::CountContradicted, "writers: more were found than counted", 1);
        }
        if !case.is_write() && case.failure.inode == 0 && !incident.complete {
            self.lose(LossKind::BusyFileUnknown, "busy files: not found in the task's work", 1);
        }
        self.summary.incidents += 1;
        if incident.complete {
            self.summary.explained += 1;
        } else {
            log::debug!("not explained: {case:#?}");
            self.summary.unexplained += 1;
        }
        if let Some(shortfall) = shortfall(case, &incident) {
            *self.summary.unexplained_by.entry(shortfall).or_default() += 1;
        }
        self.summary.repaired += u64::from(incident.repaired.is_some());
        *self.summary.by_verdict.entry(incident.verdict.kind).or_default() += 1;
        self.change_first.add(&incident);
        self.write(Line::Incident(Box::new(incident)));
    }

    /// Whether a failure is one of those that were asked for.
    fn shows(&self, case: &Case) -> bool {
        let is_victim = case.failure.in_tree != 0;
        match self.role {
            TreeRole::Victim => is_victim,
            TreeRole::Holder => Self::is_held_by_tree(case),
            TreeRole::Either | TreeRole::Other(_) => is_victim || Self::is_held_by_tree(case),
        }
    }

    /// Whether a process of the tree is one of those that held the file, or run it.
    fn is_held_by_tree(case: &Case) -> bool {
        let mut runners = case.running.iter().flat_map(|running| &running.runners);
        runners.any(|runner| runner.in_tree)
            || case
                .attribution()
                .holders
                .iter()
                .any(|held| held.seen.is_some_and(|seen| seen.in_tree != 0))
    }

    /// Reports how many calls failed since the last time that are only counted.
    fn tell_calls(&mut self) {
        let counted = self.tracer.other_calls();
        if counted == self.other_calls {
            return;
        }
        self.other_calls = counted;
        let mut calls = match self.tracer.other_calls_by_process() {
            Ok(calls) => calls,
            Err(error) => return log::warn!("{error:#}"),
        };
        calls.sort_unstable_by_key(|(_, call)| call.first_ns);
        for (key, call) in calls {
            let before = self.calls.insert(key, call.count).unwrap_or(0);
            let count = call.count.saturating_sub(before);
            if count == 0 {
                continue;
            }
            let (comm, comm_b64) = maybe_text(comm(&call.comm));
            self.summary.refusals += count;
            self.write(Line::Refusal(Refusal {
                time: rfc3339(realtime_offset_ns(), call.first_ns),
                time_ns: call.first_ns,
                syscall: syscall(key.syscall),
                errno: "ETXTBSY".to_owned(),
                pid: key.tgid,
                comm,
                comm_b64,
                count,
            }));
        }
    }

    fn tell_lost(&mut self) {
        self.lost_ns = now_ns(ClockId::CLOCK_MONOTONIC);
        let lost = Lost::ALL.map(|what| self.tracer.lost(what));
        let Unkept { failures, changes } = self.ledger.take_unkept();
        let new = Lost::ALL.iter().zip(lost.iter().zip(&self.lost));
        let mut new: Vec<(LossKind, &str, u64)> = new
            .map(|(what, (now, before))| (loss_kind(*what), what.what(), now - before))
            .collect();
        new[Lost::FailureUnkept as usize].2 += failures;
        new.push((LossKind::ChangesOverload, "changes: more than are kept", changes));
        let garbled = std::mem::take(&mut self.garbled);
        new.push((LossKind::RecordsGarbled, "records: not understood", garbled));
        self.lost = lost;
        for (kind, what, count) in new {
            self.lose(kind, what, count);
        }
    }

    /// Tells that things were dropped, if there are any.
    fn lose(&mut self, kind: LossKind, what: &str, count: u64) {
        if count > 0 {
            self.summary.lost += count;
            self.write(Line::Lost(event::Lost { kind, what: what.to_owned(), count }));
        }
    }

    /// Tells how often a program did not run when it should have.
    fn tell_missed(&mut self) {
        let missed = self.tracer.missed();
        let (before, _) = replace(&mut self.missed, (missed, now_ns(ClockId::CLOCK_MONOTONIC)));
        let what = "events: another program was under way on the processor";
        let count = missed.saturating_sub(before);
        self.lose(LossKind::ProgramsSkipped, what, count);
        if count > 0
            && self.tracer.is_filtered()
            && let Err(error) = self.mend_tree()
        {
            log::warn!("{error:#}");
        }
    }

    /// Finds the forks and ends that the programs may have missed.
    fn mend_tree(&mut self) -> anyhow::Result<()> {
        tree::add_descendants(&mut self.tracer)?;
        self.tree_ended |= self.tracer.tree_size() == 0;
        Ok(())
    }

    /// Gives a line to every output that still takes it.
    fn write(&mut self, line: Line) {
        let line = Arc::new(line);
        for sink in &mut self.sinks {
            sink.line(&line);
        }
    }
}

/// The fixed word for a counter of the kernel side.
fn loss_kind(lost: Lost) -> LossKind {
    match lost {
        Lost::RingFull => LossKind::RecordsRingFull,
        Lost::HoldsFull => LossKind::HoldsMapFull,
        Lost::WalkTruncated => LossKind::WalkTruncated,
        Lost::CallsFull => LossKind::CallsMapFull,
        Lost::NoScratch => LossKind::TextNoMemory,
        Lost::TreeFull => LossKind::TreeMapFull,
        Lost::ExecsFull => LossKind::ExecsMapFull,
        Lost::WatchFull => LossKind::WatchMapFull,
        Lost::FailureUntold => LossKind::FailuresRingFull,
        Lost::SearchesFull => LossKind::SearchesMapFull,
        Lost::FailureUnkept => LossKind::FailuresOverload,
        Lost::CompatUnfollowed => LossKind::CompatUnfollowed,
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
async fn ended(command: Option<&Started>) -> io::Result<u8> {
    match command {
        Some(command) => command.wait().await,
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

/// The first bytes of a file, as one of `pids`, which are those of here, sees it, or, where they have ended, as we do.
fn first_bytes(path: &[u8], pids: impl Iterator<Item = u32>) -> Option<Vec<u8>> {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let sights = pids.map(Sight::of).chain([Sight::ours()]);
    sights.flatten().find_map(|sight| Some(sight.first_bytes(&sight.find(path)?)?.to_vec()))
}
