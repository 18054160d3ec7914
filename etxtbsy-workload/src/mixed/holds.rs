//! Computes from the records who may have held which file when, and who certainly did.

use super::super::child::Span;
use super::super::report::{HeldBy, PossibleHolder};
use super::log::{Record, RecordKind};
use libc::ETXTBSY;
use std::collections::HashMap;

/// A time after all others.
const NEVER: u64 = u64::MAX;

/// One hold of one process. An unknown bound makes the possible time longer and the certain time shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    number: u32,
    process: u32,
    file: u32,
    fd: i32,
    kept: bool,
    kind: HoldKind,
    /// The time before the call that began it.
    may_from: u64,
    /// The time after that call.
    sure_from: u64,
    /// The time before the call that ended it.
    sure_until: u64,
    /// The time after that call.
    may_until: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HoldKind {
    Fd,
    /// An open(2), which may have waited.
    Opened,
    Mapping,
    Queue,
    Call,
}

impl Hold {
    fn is_possible(&self, (from, to): Span) -> bool {
        self.may_from <= to && self.may_until >= from
    }

    fn is_sure(&self, (from, to): Span) -> bool {
        self.sure_from <= from && self.sure_until >= to
    }

    fn end(&mut self, sure_until: u64, may_until: u64) {
        self.sure_until = self.sure_until.min(sure_until);
        self.may_until = self.may_until.min(may_until);
    }

    /// The fd, if the hold is one.
    fn fd_number(&self) -> Option<u32> {
        matches!(self.kind, HoldKind::Fd | HoldKind::Opened).then_some(self.fd.cast_unsigned())
    }

    fn held_by(&self, (_, to): Span) -> HeldBy {
        match self.kind {
            HoldKind::Opened if self.sure_from > to => HeldBy::Call,
            HoldKind::Fd | HoldKind::Opened => HeldBy::Fd,
            HoldKind::Mapping => HeldBy::Mapping,
            HoldKind::Queue => HeldBy::SocketQueue,
            HoldKind::Call => HeldBy::Call,
        }
    }
}

/// An exec that failed with ETXTBSY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FailedExec {
    pub(super) victim: u32,
    pub(super) file: u32,
    pub(super) span: Span,
    pub(super) holders: Vec<PossibleHolder>,
}

/// The failed execs, and who may have held the file of each.
pub(super) fn failures(records: &[Record]) -> Vec<FailedExec> {
    let (holds, pids) = all_holds(records);
    let pid_of = |process: u32| pids.get(&process).copied().unwrap_or(0);
    let mut failures: Vec<FailedExec> = records
        .iter()
        .filter(|record| record.kind == RecordKind::Execed && record.error == ETXTBSY)
        .map(|record| FailedExec {
            victim: pid_of(record.process),
            file: record.file,
            span: record.span,
            holders: Vec::new(),
        })
        .collect();
    failures.sort_by_key(|failure| failure.span.0);
    let mut by_file: HashMap<u32, Vec<Hold>> = HashMap::new();
    for hold in holds {
        by_file.entry(hold.file).or_default().push(hold);
    }
    let mut sweeps: HashMap<u32, Sweep> =
        by_file.into_iter().map(|(file, holds)| (file, Sweep::new(holds))).collect();
    for failure in &mut failures {
        let Some(sweep) = sweeps.get_mut(&failure.file) else { continue };
        for hold in sweep.during(failure.span) {
            let (pid, by) = (pid_of(hold.process), hold.held_by(failure.span));
            let sure = hold.is_sure(failure.span);
            let known = failure.holders.iter_mut().find(|it| {
                // Each message in a queue is a hold of its own.
                it.pid == pid && it.by == by && by != HeldBy::SocketQueue
            });
            let (may_from_ns, may_until_ns) = (hold.may_from, hold.may_until);
            let fd = hold.fd_number();
            match known {
                Some(known) => {
                    known.sure |= sure;
                    known.fds.extend(fd);
                    known.may_from_ns = known.may_from_ns.min(may_from_ns);
                    known.may_until_ns = known.may_until_ns.max(may_until_ns);
                }
                None => failure.holders.push(PossibleHolder {
                    pid,
                    by,
                    sure,
                    fds: fd.into_iter().collect(),
                    may_from_ns,
                    may_until_ns,
                }),
            }
        }
    }
    failures
}

/// All holds of all processes, and the pid of each process.
fn all_holds(records: &[Record]) -> (Vec<Hold>, HashMap<u32, u32>) {
    let mut by_process: HashMap<u32, Vec<&Record>> = HashMap::new();
    let mut pids = HashMap::new();
    let mut forks: HashMap<u32, (&Record, u64)> = HashMap::new();
    let mut taken = HashMap::new();
    for record in records {
        match record.kind {
            RecordKind::Forked | RecordKind::Vforked => {
                pids.insert(record.process, record.last.cast_unsigned());
                forks.entry(record.process).or_insert((record, record.span.1)).0 = record;
            }
            RecordKind::Born => {
                pids.insert(record.process, record.other);
            }
            RecordKind::Taken => {
                taken.insert(record.hold, record.span);
            }
            _ => {}
        }
        by_process.entry(record.process).or_default().push(record);
    }
    for record in records.iter().filter(|record| record.kind == RecordKind::Born) {
        if let Some((_, copied_until)) = forks.get_mut(&record.process) {
            *copied_until = (*copied_until).min(record.span.0);
        }
    }
    let mut children: HashMap<u32, Vec<(&Record, u64)>> = HashMap::new();
    for (fork, copied_until) in forks.into_values() {
        children.entry(fork.other).or_default().push((fork, copied_until));
    }

    let mut numbers: Vec<u32> = by_process.keys().copied().collect();
    // A parent comes before its children.
    numbers.sort_unstable();
    let (mut all, mut inherited) = (Vec::new(), HashMap::new());
    for process in numbers {
        let own = by_process.get_mut(&process).map(std::mem::take).unwrap_or_default();
        let holds = holds_of(&own, inherited.remove(&process).unwrap_or_default(), &taken);
        let mut forked = children.remove(&process).unwrap_or_default();
        forked.sort_by_key(|(fork, _)| fork.span.0);
        let mut sweep = Sweep::new(holds.clone());
        for (fork, copied_until) in forked {
            let copied = sweep.during((fork.span.0, copied_until));
            let copies = copied.filter_map(|hold| copy(hold, fork, copied_until)).collect();
            inherited.insert(fork.process, copies);
        }
        all.extend(holds);
    }
    (all, pids)
}

/// RecordKind a child has of a hold of its parent. The kernel made the copy between the start of the fork
/// and `copied_until`.
fn copy(hold: &Hold, fork: &Record, copied_until: u64) -> Option<Hold> {
    let sure = match hold.kind {
        // Parent and child share the memory, so either may count as the mapping's process.
        HoldKind::Mapping if fork.kind == RecordKind::Vforked => false,
        HoldKind::Fd | HoldKind::Opened | HoldKind::Mapping => {
            hold.is_sure((fork.span.0, copied_until))
        }
        // A call of another thread is not copied. (The fd that an open returns may be.)
        HoldKind::Queue | HoldKind::Call => return None,
    };
    let kind = if hold.kind == HoldKind::Opened { HoldKind::Fd } else { hold.kind };
    Some(Hold {
        process: fork.process,
        kind,
        may_from: fork.span.0.max(hold.may_from),
        sure_from: if sure { copied_until } else { NEVER },
        sure_until: NEVER,
        may_until: NEVER,
        ..*hold
    })
}

/// The holds of a process: those in its own records, and those that it inherited.
fn holds_of(records: &[&Record], mut holds: Vec<Hold>, taken: &HashMap<u32, Span>) -> Vec<Hold> {
    let (mut queued, mut index) = (Vec::new(), HashMap::new());
    index.extend(holds.iter().enumerate().map(|(at, hold)| (hold.number, at)));
    for record in records {
        let kind = match record.kind {
            RecordKind::Acquired => HoldKind::Fd,
            RecordKind::Opened => HoldKind::Opened,
            RecordKind::Mapped => HoldKind::Mapping,
            RecordKind::Queued => HoldKind::Queue,
            RecordKind::Called => HoldKind::Call,
            _ => continue,
        };
        let mut hold = Hold {
            number: record.hold,
            process: record.process,
            file: record.file,
            fd: record.fd,
            kept: record.kept,
            kind,
            may_from: record.span.0,
            sure_from: record.span.1,
            sure_until: NEVER,
            may_until: NEVER,
        };
        match kind {
            HoldKind::Call => {
                hold.sure_from = NEVER;
                hold.end(NEVER, record.span.1);
                queued.push(hold);
            }
            HoldKind::Queue => {
                if let Some((before, after)) = taken.get(&record.hold) {
                    hold.end(*before, *after);
                }
                queued.push(hold);
            }
            _ => {
                index.insert(record.hold, holds.len());
                holds.push(hold);
            }
        }
    }
    for record in records {
        let (before, after) = record.span;
        match record.kind {
            RecordKind::Released => {
                if let Some(at) = index.get(&record.hold) {
                    holds[*at].end(before, after);
                }
            }
            // The caller has one thread, so it had all holds at these fds before the call.
            RecordKind::ReleasedRange => {
                let range = record.fd..=record.last;
                let is_fd = |hold: &&mut Hold| {
                    hold.kind != HoldKind::Mapping
                        && range.contains(&hold.fd)
                        && hold.may_from <= after
                };
                holds.iter_mut().filter(is_fd).for_each(|hold| hold.end(before, after));
            }
            RecordKind::Execed if record.error == 0 => {
                for hold in &mut holds {
                    let kept = hold.kept && hold.kind != HoldKind::Mapping;
                    let kept_for = if kept { u64::from(record.other) } else { 0 };
                    hold.end(before + kept_for, NEVER);
                }
            }
            RecordKind::Exited | RecordKind::Killed => {
                for hold in &mut holds {
                    hold.end(before, NEVER);
                }
            }
            RecordKind::Reaped => holds.iter_mut().for_each(|hold| hold.end(after, after)),
            _ => {}
        }
    }
    holds.extend(queued);
    holds
}

/// Finds the holds that overlap with spans. The spans come in the order of their starts.
struct Sweep {
    /// Holds that have not begun, the next one last.
    later: Vec<Hold>,
    now: Vec<Hold>,
}

impl Sweep {
    fn new(mut holds: Vec<Hold>) -> Self {
        holds.sort_by_key(|hold| std::cmp::Reverse(hold.may_from));
        Self { later: holds, now: Vec::new() }
    }

    fn during(&mut self, span: Span) -> impl Iterator<Item = &Hold> {
        while let Some(hold) = self.later.pop_if(|hold| hold.may_from <= span.1) {
            self.now.push(hold);
        }
        self.now.retain(|hold| hold.may_until >= span.0);
        self.now.iter().filter(move |hold| hold.is_possible(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u32 = 0;
    const CHILD: u32 = 1;
    const VICTIM: u32 = 2;

    fn record(kind: RecordKind, process: u32, span: Span) -> Record {
        Record { kind, process, span, ..Record::default() }
    }

    fn opened(hold: u32, fd: i32, span: Span) -> Record {
        Record { hold, fd, ..record(RecordKind::Opened, P, span) }
    }

    fn forked(process: u32, span: Span) -> Record {
        Record {
            other: P,
            last: 100 + process.cast_signed(),
            ..record(RecordKind::Forked, process, span)
        }
    }

    fn released(process: u32, hold: u32, span: Span) -> Record {
        Record { hold, ..record(RecordKind::Released, process, span) }
    }

    fn born(process: u32, at: u64) -> Record {
        Record { other: 100 + process, ..record(RecordKind::Born, process, (at, at)) }
    }

    /// The holders of an exec that failed in that span: pid, kind, and whether certain.
    fn holders(records: &[Record], span: Span) -> Vec<(u32, HeldBy, bool)> {
        let failed = Record { error: ETXTBSY, ..record(RecordKind::Execed, VICTIM, span) };
        let records = [records, &[born(P, 0), born(VICTIM, 0), failed]].concat();
        let failures = failures(&records);
        let [failure] = &failures[..] else { panic!("{failures:?}") };
        assert_eq!(failure.victim, 100 + VICTIM);
        failure.holders.iter().map(|it| (it.pid, it.by, it.sure)).collect()
    }

    #[test]
    fn a_hold_is_certain_between_its_calls_and_possible_during_them() {
        let records = [opened(7, 3, (10, 20)), released(P, 7, (30, 40))];
        for (span, expected) in [
            ((5, 9), None),
            ((5, 10), Some((HeldBy::Call, false))),
            ((15, 25), Some((HeldBy::Fd, false))),
            ((20, 30), Some((HeldBy::Fd, true))),
            ((25, 31), Some((HeldBy::Fd, false))),
            ((40, 50), Some((HeldBy::Fd, false))),
            ((41, 50), None),
        ] {
            let expected: Vec<_> = expected.map(|(by, sure)| (100, by, sure)).into_iter().collect();
            assert_eq!(holders(&records, span), expected, "{span:?}");
        }
    }

    #[test]
    fn a_child_inherits_what_its_parent_held_during_the_whole_fork() {
        let records = [
            opened(7, 3, (10, 20)),
            forked(CHILD, (30, 60)),
            born(CHILD, 50),
            released(P, 7, (70, 80)),
            record(RecordKind::Exited, CHILD, (90, 0)),
            record(RecordKind::Reaped, CHILD, (99, 100)),
        ];
        let child = |sure| vec![(101, HeldBy::Fd, sure)];
        let parent = (100, HeldBy::Fd, true);
        assert_eq!(holders(&records, (22, 29)), [parent]);
        assert_eq!(holders(&records, (35, 45)), [vec![parent], child(false)].concat());
        assert_eq!(holders(&records, (50, 65)), [vec![parent], child(true)].concat());
        assert_eq!(holders(&records, (85, 90)), child(true));
        assert_eq!(holders(&records, (91, 95)), child(false));
        assert_eq!(holders(&records, (101, 102)), []);
    }

    #[test]
    fn a_fork_during_a_close_may_have_copied_the_fd() {
        let records = [
            opened(7, 3, (10, 20)),
            forked(CHILD, (30, 60)),
            released(P, 7, (40, 50)),
            opened(8, 3, (70, 80)),
            released(P, 8, (81, 82)),
            record(RecordKind::Exited, CHILD, (90, 0)),
            record(RecordKind::Reaped, CHILD, (99, 100)),
        ];
        assert_eq!(holders(&records, (65, 68)), [(101, HeldBy::Fd, false)]);
    }

    #[test]
    fn an_exec_ends_close_on_exec_holds() {
        let kept = Record { kept: true, ..opened(8, 4, (10, 20)) };
        let exec = Record { other: 1000, ..record(RecordKind::Execed, CHILD, (50, 0)) };
        let ends = |hold| released(P, hold, (40, 41));
        let of = |opened: Record, span| {
            let records = [
                opened,
                forked(CHILD, (30, 31)),
                ends(opened.hold),
                exec,
                record(RecordKind::Reaped, CHILD, (2000, 2001)),
            ];
            holders(&records, span)
        };
        assert_eq!(of(opened(7, 3, (10, 20)), (60, 70)), [(101, HeldBy::Fd, false)]);
        assert_eq!(of(kept, (60, 70)), [(101, HeldBy::Fd, true)]);
        assert_eq!(of(kept, (1060, 1070)), [(101, HeldBy::Fd, false)]);
        assert_eq!(of(kept, (2002, 2003)), []);
    }

    #[test]
    fn a_queue_holds_until_it_is_received() {
        let queued = Record { hold: 9, ..record(RecordKind::Queued, P, (10, 20)) };
        let taken = Record { hold: 9, ..record(RecordKind::Taken, CHILD, (30, 40)) };
        let in_queue = |sure| [(100, HeldBy::SocketQueue, sure)];
        assert_eq!(holders(&[queued, taken], (20, 30)), in_queue(true));
        assert_eq!(holders(&[queued, taken], (39, 50)), in_queue(false));
        assert_eq!(holders(&[queued, taken], (41, 50)), []);
        assert_eq!(holders(&[queued], (41, 50)), in_queue(true));
    }

    #[test]
    fn a_closed_range_ends_its_holds() {
        let all =
            Record { fd: 4, last: i32::MAX, ..record(RecordKind::ReleasedRange, P, (30, 40)) };
        let records = [opened(7, 3, (10, 20)), opened(8, 4, (10, 20)), all];
        assert_eq!(holders(&records, (20, 30)), [(100, HeldBy::Fd, true)]);
        let records = [opened(8, 4, (10, 20)), all];
        assert_eq!(holders(&records, (41, 42)), []);
    }
}
