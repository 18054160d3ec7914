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
    event::{Frame, Holder, Line, Victim},
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

    /// Whether the line has all its stacks, as far as they can be found.
    fn is_complete(&self, line: &Line) -> bool {
        places(line).all(|key| !self.pending.contains(&key))
    }

    fn take_found(&mut self) {
        for (key, resolved) in self.resolver.take() {
            self.pending.remove(&key);
            self.found.insert(key, resolved);
        }
    }

    /// Takes out the first line, if nothing is missing, or it has waited long enough.
    fn next_line(&mut self) -> Option<Line> {
        let (until, line) = self.lines.front()?;
        if !self.is_complete(line) && Instant::now() < *until {
            return None;
        }
        let (_, mut line) = self.lines.pop_front()?;
        self.fill(&mut line);
        Some(line)
    }

    fn fill(&self, line: &mut Line) {
        let (time_ns, victim, holders) = match line {
            Line::Incident(incident) => {
                (incident.time_ns, Some(&mut incident.victim), &mut incident.holders)
            }
            // The stack of one whose exec succeeded is gone.
            Line::NearMiss(near) => (near.time_ns, None, &mut near.holders),
            _ => return,
        };
        if let Some(victim) = victim {
            let Victim { stack, frames_unknown, tid, .. } = victim;
            self.put(Key { time_ns, tid: *tid }, stack, frames_unknown);
        }
        for holder in holders {
            if let Some(by) = &mut holder.opened {
                let key = Key { time_ns: by.time_ns, tid: by.tid };
                self.put(key, &mut by.stack, &mut by.frames_unknown);
            }
            if let Some(by) = &mut holder.forked {
                let key = Key { time_ns: by.time_ns, tid: by.tid };
                self.put(key, &mut by.stack, &mut by.frames_unknown);
            }
        }
    }

    fn put(&self, key: Key, stack: &mut Option<Vec<Frame>>, unknown: &mut Option<u32>) {
        if let Some(Some(resolved)) = self.found.get(&key) {
            *stack = Some(resolved.frames.clone());
            *unknown = Some(resolved.unknown);
        }
    }

    /// Forgets what no line waits for, if there is much of it.
    fn forget(&mut self) {
        if self.found.len() > KEPT && self.lines.is_empty() {
            self.found.clear();
        }
    }
}

/// The stacks that a line has room for.
fn places(line: &Line) -> impl Iterator<Item = Key> {
    let (time_ns, victim, holders): (_, Option<&Victim>, &[Holder]) = match line {
        Line::Incident(incident) => (incident.time_ns, Some(&incident.victim), &incident.holders),
        Line::NearMiss(near) => (near.time_ns, None, &near.holders),
        _ => (0, None, &[]),
    };
    let victim = victim.map(|victim| Key { time_ns, tid: victim.tid });
    let of_holders = holders.iter().flat_map(|holder| {
        let opened = holder.opened.as_ref().map(|by| Key { time_ns: by.time_ns, tid: by.tid });
        let forked = holder.forked.as_ref().map(|by| Key { time_ns: by.time_ns, tid: by.tid });
        opened.into_iter().chain(forked)
    });
    victim.into_iter().chain(of_holders)
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
