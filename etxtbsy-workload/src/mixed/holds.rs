//! Who can have held which file when, and who surely did: worked out from the records.

use super::super::child::Span;
use super::super::report::{HeldBy, PossibleHolder};
use super::log::{Record, What};
use libc::ETXTBSY;
use std::collections::HashMap;

/// After all else.
const NEVER: u64 = u64::MAX;

/// One hold of one process. A bound that is not known makes it possible for longer, and sure for
/// less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Hold {
    number: u32,
    process: u32,
    file: u32,
    fd: i32,
    kept: bool,
    kind: Kind,
    /// Before the call that began it.
    may_from: u64,
    /// After that call.
    sure_from: u64,
    /// Before the call that ended it.
    sure_until: u64,
    /// After that call.
    may_until: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fd,
    /// By an open(2), which may have waited.
    Opened,
    Mapping,
    Queue,
    Call,
}

impl Hold {
    fn may(&self, (from, to): Span) -> bool {
        self.may_from <= to && self.may_until >= from
    }

    fn is_sure(&self, (from, to): Span) -> bool {
        self.sure_from <= from && self.sure_until >= to
    }

    fn end(&mut self, sure_until: u64, may_until: u64) {
        self.sure_until = self.sure_until.min(sure_until);
        self.may_until = self.may_until.min(may_until);
    }

    /// The fd, if it is one.
    fn number_of_fd(&self) -> Option<u32> {
        matches!(self.kind, Kind::Fd | Kind::Opened).then_some(self.fd.cast_unsigned())
    }

    fn held_by(&self, (_, to): Span) -> HeldBy {
        match self.kind {
            Kind::Opened if self.sure_from > to => HeldBy::Call,
            Kind::Fd | Kind::Opened => HeldBy::Fd,
            Kind::Mapping => HeldBy::Mapping,
            Kind::Queue => HeldBy::SocketQueue,
            Kind::Call => HeldBy::Call,
        }
    }
}

/// An exec that failed with ETXTBSY.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) victim: u32,
    pub(super) file: u32,
    pub(super) span: Span,
    pub(super) holders: Vec<PossibleHolder>,
}

/// The failures, and who can have held the file of each.
pub(super) fn failures(records: &[Record]) -> Vec<Failure> {
    let (holds, pids) = all_holds(records);
    let pid_of = |process: u32| pids.get(&process).copied().unwrap_or(0);
    let mut failures: Vec<Failure> = records
        .iter()
        .filter(|record| record.what == What::Execed && record.error == ETXTBSY)
        .map(|record| Failure {
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
                // Each message in a queue counts for itself.
                it.pid == pid && it.by == by && by != HeldBy::SocketQueue
            });
            let (may_from_ns, may_until_ns) = (hold.may_from, hold.may_until);
            let fd = hold.number_of_fd();
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
        match record.what {
            What::Forked | What::Vforked => {
                pids.insert(record.process, record.last.cast_unsigned());
                forks.entry(record.process).or_insert((record, record.span.1)).0 = record;
            }
            What::Born => {
                pids.insert(record.process, record.other);
            }
            What::Taken => {
                taken.insert(record.hold, record.span);
            }
            _ => {}
        }
        by_process.entry(record.process).or_default().push(record);
    }
    for record in records.iter().filter(|record| record.what == What::Born) {
        if let Some((_, copied_by)) = forks.get_mut(&record.process) {
            *copied_by = (*copied_by).min(record.span.0);
        }
    }
    let mut children: HashMap<u32, Vec<(&Record, u64)>> = HashMap::new();
    for (fork, copied_by) in forks.into_values() {
        children.entry(fork.other).or_default().push((fork, copied_by));
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
        for (fork, copied_by) in forked {
            let copied = sweep.during((fork.span.0, copied_by));
            let copies = copied.filter_map(|hold| copy(hold, fork, copied_by)).collect();
            inherited.insert(fork.process, copies);
        }
        all.extend(holds);
    }
    (all, pids)
}

/// What a child has of a hold of its parent. The kernel made the copy between the start of the fork
/// and `copied_by`.
fn copy(hold: &Hold, fork: &Record, copied_by: u64) -> Option<Hold> {
    let sure = match hold.kind {
        // In the memory that both of them have, whose mapping is it?
        Kind::Mapping if fork.what == What::Vforked => false,
        Kind::Fd | Kind::Opened | Kind::Mapping => hold.is_sure((fork.span.0, copied_by)),
        // An open that is under way in another thread is not copied, the fd it returns may be.
        Kind::Queue | Kind::Call => return None,
    };
    let kind = if hold.kind == Kind::Opened { Kind::Fd } else { hold.kind };
    Some(Hold {
        process: fork.process,
        kind,
        may_from: fork.span.0.max(hold.may_from),
        sure_from: if sure { copied_by } else { NEVER },
        sure_until: NEVER,
        may_until: NEVER,
        ..*hold
    })
}

/// The holds of a process, from its own records and from what it inherited.
fn holds_of(records: &[&Record], mut holds: Vec<Hold>, taken: &HashMap<u32, Span>) -> Vec<Hold> {
    let (mut queued, mut index) = (Vec::new(), HashMap::new());
    index.extend(holds.iter().enumerate().map(|(at, hold)| (hold.number, at)));
    for record in records {
        let kind = match record.what {
            What::Acquired => Kind::Fd,
            What::Opened => Kind::Opened,
            What::Mapped => Kind::Mapping,
            What::Queued => Kind::Queue,
            What::Called => Kind::Call,
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
            Kind::Call => {
                hold.sure_from = NEVER;
                hold.end(NEVER, record.span.1);
                queued.push(hold);
            }
            Kind::Queue => {
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
        match record.what {
            What::Released => {
                if let Some(at) = index.get(&record.hold) {
                    holds[*at].end(before, after);
                }
            }
            // The caller has one thread, so what it has at these fds it has before the call.
            What::ReleasedRange => {
                let range = record.fd..=record.last;
                let is_fd = |hold: &&mut Hold| {
                    hold.kind != Kind::Mapping && range.contains(&hold.fd) && hold.may_from <= after
                };
                holds.iter_mut().filter(is_fd).for_each(|hold| hold.end(before, after));
            }
            What::Execed if record.error == 0 => {
                for hold in &mut holds {
                    let kept = hold.kept && hold.kind != Kind::Mapping;
                    let kept_for = if kept { u64::from(record.other) } else { 0 };
                    hold.end(before + kept_for, NEVER);
                }
            }
            What::Exited | What::Killed => {
                for hold in &mut holds {
                    hold.end(before, NEVER);
                }
            }
            What::Reaped => holds.iter_mut().for_each(|hold| hold.end(after, after)),
            _ => {}
        }
    }
    holds.extend(queued);
    holds
}

/// Finds the holds that overlap with spans, which come in the order in which they begin.
struct Sweep {
    /// Those to come, the next at the end.
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
        self.now.iter().filter(move |hold| hold.may(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: u32 = 0;
    const CHILD: u32 = 1;
    const VICTIM: u32 = 2;

    fn record(what: What, process: u32, span: Span) -> Record {
        Record { what, process, span, ..Record::default() }
    }

    fn opened(hold: u32, fd: i32, span: Span) -> Record {
        Record { hold, fd, ..record(What::Opened, P, span) }
    }

    fn forked(process: u32, span: Span) -> Record {
        Record {
            other: P,
            last: 100 + process.cast_signed(),
            ..record(What::Forked, process, span)
        }
    }

    fn released(process: u32, hold: u32, span: Span) -> Record {
        Record { hold, ..record(What::Released, process, span) }
    }

    fn born(process: u32, at: u64) -> Record {
        Record { other: 100 + process, ..record(What::Born, process, (at, at)) }
    }

    /// The holders of an exec that failed in that span: pid, kind, sure.
    fn holders(records: &[Record], span: Span) -> Vec<(u32, HeldBy, bool)> {
        let failed = Record { error: ETXTBSY, ..record(What::Execed, VICTIM, span) };
        let records = [records, &[born(P, 0), born(VICTIM, 0), failed]].concat();
        let failures = failures(&records);
        let [failure] = &failures[..] else { panic!("{failures:?}") };
        assert_eq!(failure.victim, 100 + VICTIM);
        failure.holders.iter().map(|it| (it.pid, it.by, it.sure)).collect()
    }

    #[test]
    fn a_hold_is_sure_between_its_calls_and_possible_during_them() {
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
    fn a_child_has_what_its_parent_had_throughout_the_fork() {
        let records = [
            opened(7, 3, (10, 20)),
            forked(CHILD, (30, 60)),
            born(CHILD, 50),
            released(P, 7, (70, 80)),
            record(What::Exited, CHILD, (90, 0)),
            record(What::Reaped, CHILD, (99, 100)),
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
    fn a_fork_beside_a_close_may_have_copied_the_fd() {
        let records = [
            opened(7, 3, (10, 20)),
            forked(CHILD, (30, 60)),
            released(P, 7, (40, 50)),
            opened(8, 3, (70, 80)),
            released(P, 8, (81, 82)),
            record(What::Exited, CHILD, (90, 0)),
            record(What::Reaped, CHILD, (99, 100)),
        ];
        assert_eq!(holders(&records, (65, 68)), [(101, HeldBy::Fd, false)]);
    }

    #[test]
    fn an_exec_ends_what_is_close_on_exec() {
        let kept = Record { kept: true, ..opened(8, 4, (10, 20)) };
        let exec = Record { other: 1000, ..record(What::Execed, CHILD, (50, 0)) };
        let ends = |hold| released(P, hold, (40, 41));
        let of = |opened: Record, span| {
            let records = [
                opened,
                forked(CHILD, (30, 31)),
                ends(opened.hold),
                exec,
                record(What::Reaped, CHILD, (2000, 2001)),
            ];
            holders(&records, span)
        };
        assert_eq!(of(opened(7, 3, (10, 20)), (60, 70)), [(101, HeldBy::Fd, false)]);
        assert_eq!(of(kept, (60, 70)), [(101, HeldBy::Fd, true)]);
        assert_eq!(of(kept, (1060, 1070)), [(101, HeldBy::Fd, false)]);
        assert_eq!(of(kept, (2002, 2003)), []);
    }

    #[test]
    fn a_queue_holds_until_it_is_read() {
        let queued = Record { hold: 9, ..record(What::Queued, P, (10, 20)) };
        let taken = Record { hold: 9, ..record(What::Taken, CHILD, (30, 40)) };
        let in_queue = |sure| [(100, HeldBy::SocketQueue, sure)];
        assert_eq!(holders(&[queued, taken], (20, 30)), in_queue(true));
        assert_eq!(holders(&[queued, taken], (39, 50)), in_queue(false));
        assert_eq!(holders(&[queued, taken], (41, 50)), []);
        assert_eq!(holders(&[queued], (41, 50)), in_queue(true));
    }

    #[test]
    fn a_range_ends_the_fds_in_it() {
        let all = Record { fd: 4, last: i32::MAX, ..record(What::ReleasedRange, P, (30, 40)) };
        let records = [opened(7, 3, (10, 20)), opened(8, 4, (10, 20)), all];
        assert_eq!(holders(&records, (20, 30)), [(100, HeldBy::Fd, true)]);
        let records = [opened(8, 4, (10, 20)), all];
        assert_eq!(holders(&records, (41, 42)), []);
    }
}
