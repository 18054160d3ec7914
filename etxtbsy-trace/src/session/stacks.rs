//! Where in their code threads were: which stacks are looked up, and which lines wait for that.
//!
//! A failure's stacks are asked for as soon as it is known, while the processes live. Its line waits until they are
//! found, or for [`PATIENCE`]; lines keep their order.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    fs::File,
    io,
    process::Command,
    sync::Arc,
    time::Duration,
};

use etxtbsy_stacks::{Copied, Key, Resolved, Resolver};
use etxtbsy_trace_common::{Actor, Hold, TextOf};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::Session;
use crate::{
    analysis::case::Case,
    event::{Forked, Frame, Incident, Line, Opened, Victim},
    tracer::{Backend, records::path_of},
};

/// The subcommand by which this program becomes the helper that reads other programs' files.
pub const HELPER: &str = "stacks-helper";

/// How long a line waits for its stacks.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many stacks are kept after their lines were written, for others of the same open or fork.
const KEPT: usize = 4096;
/// How many programs are listed whose stacks are copied at opens.
const PROGRAMS: usize = 256;

/// What is known of stacks, and the lines that wait.
pub(super) struct Stacks {
    resolver: Resolver,
    /// Notified when something was found.
    pub(super) ready: Arc<Notify>,
    /// Those that were asked for and are not found yet.
    pending: HashSet<Key>,
    /// Those that are found, in a way.
    found: HashMap<Key, Option<Resolved>>,
    lines: VecDeque<(Instant, Line)>,
    /// The programs that are listed, by their paths.
    programs: HashSet<Vec<u8>>,
}

impl Stacks {
    pub(super) fn start() -> io::Result<Self> {
        let ready = Arc::new(Notify::new());
        let wake = Arc::clone(&ready);
        let helper = || {
            let mut command = Command::new("/proc/self/exe");
            command.arg(HELPER);
            command
        };
        Ok(Self {
            resolver: Resolver::start(helper, move || wake.notify_one())?,
            ready,
            pending: HashSet::new(),
            found: HashMap::new(),
            lines: VecDeque::new(),
            programs: HashSet::new(),
        })
    }

    fn take_found(&mut self) {
        for (key, resolved) in self.resolver.take() {
            self.pending.remove(&key);
            self.found.insert(key, resolved);
        }
    }

    /// Takes out the first line, if nothing is missing, or it has waited long enough.
    fn next_line(&mut self) -> Option<Line> {
        let (until, line) = self.lines.front_mut()?;
        let is_found = places(line).iter().all(|place| !self.pending.contains(&place.key));
        if !is_found && Instant::now() < *until {
            return None;
        }
        let (_, mut line) = self.lines.pop_front()?;
        for place in places(&mut line) {
            if let Some(Some(resolved)) = self.found.get(&place.key) {
                *place.stack = Some(resolved.frames.clone());
                *place.frames_unknown = Some(resolved.unknown);
            }
        }
        Some(line)
    }

    /// Forgets what no line waits for, if there is much of it.
    fn forget(&mut self) {
        if self.found.len() > KEPT && self.lines.is_empty() {
            self.found.clear();
        }
    }
}

/// Where a line has room for a stack.
struct Place<'a> {
    key: Key,
    stack: &'a mut Option<Vec<Frame>>,
    frames_unknown: &'a mut Option<u32>,
}

/// The places for stacks in a line.
fn places(line: &mut Line) -> Vec<Place<'_>> {
    let (victim, holders) = match line {
        Line::Incident(incident) => {
            let Incident { time_ns, victim, holders, .. } = &mut **incident;
            (Some((*time_ns, victim)), holders)
        }
        // The stack of one whose exec succeeded is gone.
        Line::NearMiss(near) => (None, &mut near.holders),
        _ => return Vec::new(),
    };
    let victim = victim.map(|(time_ns, victim)| {
        let Victim { tid, stack, frames_unknown, .. } = victim;
        Place { key: Key { time_ns, tid: *tid }, stack, frames_unknown }
    });
    let of_holders = holders.iter_mut().flat_map(|holder| {
        let opened = holder.opened.as_mut().map(|by| {
            let Opened { time_ns, tid, stack, frames_unknown, .. } = by;
            Place { key: Key { time_ns: *time_ns, tid: *tid }, stack, frames_unknown }
        });
        let forked = holder.forked.as_mut().map(|by| {
            let Forked { time_ns, tid, stack, frames_unknown, .. } = by;
            Place { key: Key { time_ns: *time_ns, tid: *tid }, stack, frames_unknown }
        });
        opened.into_iter().chain(forked)
    });
    victim.into_iter().chain(of_holders).collect()
}

impl<B: Backend> Session<B> {
    /// Asks for the stack of a victim, and of what was noted since its failure.
    pub(super) fn ask_for_stacks(&mut self, seq: u64) {
        if self.stacks.is_none() {
            return;
        }
        let Some(case) = self.ledger.case(seq) else { return };
        let (time_ns, tgid, tid) = (case.failure.exit_ns, case.failure.tgid, case.failure.tid);
        // Its memory is its parent's, or a copy of that, until it executes something else.
        let parent = self.is_copy_of_parent(case).then_some(case.failure.ppid);
        let acquired: Vec<Hold> = case.acquired.iter().map(|change| change.hold).collect();
        self.ask_for_stack(Actor { time_ns, tgid, tid, ..Actor::default() }, parent);
        for hold in acquired {
            self.ask_for_stacks_of(&hold);
        }
    }

    /// Asks for the stacks of who opened and who forked a holder.
    pub(super) fn ask_for_stacks_of(&mut self, hold: &Hold) {
        // The memory of a child that has executed nothing since its fork is a copy of what forked it.
        let is_copy = |by: Actor| hold.forked.tgid == by.tgid && hold.execed == 0;
        for by in [hold.opened, hold.forked] {
            self.ask_for_stack(by, is_copy(by).then_some(hold.tgid));
        }
    }

    /// Whether the victim runs the program of its parent, by a fork.
    fn is_copy_of_parent(&self, case: &Case) -> bool {
        let failure = case.failure;
        let Some(exe) = case.text(TextOf::VictimExe).map(path_of) else { return false };
        let Some(parent) = self.pids.local(failure.ppid) else { return false };
        let runs = std::fs::read_link(format!("/proc/{parent}/exe"));
        runs.is_ok_and(|runs| runs.into_os_string().into_encoded_bytes() == exe)
            && self.tracer.last_exec_ns(failure.ppid) <= failure.start_ns
    }

    /// Asks for the stack of a thread; `other` is a process with the same memory.
    fn ask_for_stack(&mut self, by: Actor, other: Option<u32>) {
        let key = Key { time_ns: by.time_ns, tid: by.tid };
        let Some(stacks) = &mut self.stacks else { return };
        if by.time_ns == 0 || stacks.pending.contains(&key) || stacks.found.contains_key(&key) {
            return;
        }
        let Some(stack) = self.tracer.stack(by.time_ns, by.tid) else { return };
        // What a process has executed since then is another program.
        let same = |pid: &u32| self.tracer.last_exec_ns(*pid) <= by.time_ns;
        let pids = [Some(by.tgid), other].into_iter().flatten().filter(same);
        let pids: Vec<u32> = pids.filter_map(|pid| self.pids.local(pid)).collect();
        if !pids.is_empty() && stacks.resolver.ask(Copied { key, stack, pids }) {
            stacks.pending.insert(key);
        } else {
            stacks.found.insert(key, None);
        }
    }

    /// Has stacks copied at opens by the programs of the processes that opened the file of a failure.
    pub(super) fn list_programs(&mut self, seq: u64) {
        let Some(stacks) = &mut self.stacks else { return };
        let Some(case) = self.ledger.case(seq) else { return };
        let openers = case.candidates.iter().map(|candidate| candidate.hold.opened.tgid);
        for pid in openers.filter(|pid| *pid != 0).filter_map(|pid| self.pids.local(pid)) {
            let link = format!("/proc/{pid}/exe");
            let Ok(path) = std::fs::read_link(&link) else { continue };
            let path = path.into_os_string().into_encoded_bytes();
            if stacks.programs.len() >= PROGRAMS || stacks.programs.contains(&path) {
                continue;
            }
            let listed = File::open(&link).map_err(Into::into);
            match listed.and_then(|program| self.tracer.copy_stacks_of(&program)) {
                Ok(()) => _ = stacks.programs.insert(path),
                Err(error) => log::debug!("{error:#}"),
            }
        }
    }

    /// Writes a line once its stacks are found, after those that were given before.
    pub(super) fn write(&mut self, line: Line) {
        match &mut self.stacks {
            Some(stacks) => stacks.lines.push_back((Instant::now() + PATIENCE, line)),
            None => self.sinks.write(line),
        }
        self.write_found();
    }

    /// Writes the lines whose stacks are found.
    pub(super) fn write_found(&mut self) {
        let Some(stacks) = &mut self.stacks else { return };
        stacks.take_found();
        while let Some(line) = stacks.next_line() {
            self.sinks.write(line);
        }
        stacks.forget();
    }

    /// Waits for the stacks of the lines that are left, and writes them.
    pub(super) async fn write_rest(&mut self) {
        loop {
            self.write_found();
            let Some(stacks) = &self.stacks else { return };
            let Some((until, _)) = stacks.lines.front() else { return };
            let (until, ready) = (*until, Arc::clone(&stacks.ready));
            // Whichever comes first.
            let _ = timeout_at(until, ready.notified()).await;
        }
    }

    /// When a line has waited long enough.
    pub(super) fn stacks_due(&self) -> Option<Instant> {
        Some(self.stacks.as_ref()?.lines.front()?.0)
    }
}
