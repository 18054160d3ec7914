//! What each process did with the busy file, and when: only what is known, as plain values.

use crate::timeline::zoom::{Sight, Span};
use crate::{
    event::{Direction, Holder, Incident, Opened, State, Via},
    text::name,
};

/// What is that many times further from the failure than all before it is not in view at first.
const FAR: u64 = 20;

/// What a process is to the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It opened the file for writing, and is not known to have held it at the failure.
    Opener,
    /// It forked a holder.
    Forker,
    /// It held the file, or ran it.
    Holder,
    /// Its call failed.
    Victim,
}

/// What a process was doing for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doing {
    /// Whether it held the file then is not known.
    Unknown,
    /// It had the file open that it had opened itself.
    Open,
    /// It held the file that another had opened.
    Held,
    /// It was being forked, and held the file already.
    Forking,
    /// Its exec was closing the file.
    Exec,
    /// It ran the file.
    Running,
}

/// A stretch of a lane, in nanoseconds from the failure. `i64::MIN` is a beginning that is not
/// known, `i64::MAX` an end that had not come when the line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it was doing.
    pub doing: Doing,
    /// Since when.
    pub from: i64,
    /// Until when.
    pub to: i64,
}

/// What happened at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// It opened the file for writing.
    Opened,
    /// It forked a holder.
    Forked,
    /// It dropped the file.
    Released,
    /// It holds the file even now.
    Holding,
    /// Its call failed.
    Failed,
}

/// A moment on a lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What happened.
    pub event: Event,
    /// When, in nanoseconds from the failure.
    pub at: i64,
    /// More of it, as other processes call it: not harmless.
    pub text: String,
}

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// What it is to the failure.
    pub part: Part,
    /// Which process.
    pub pid: u32,
    /// Its name: not harmless.
    pub comm: Option<String>,
    /// What it did; the later ones hide those before.
    pub bars: Vec<Bar>,
    /// What happened.
    pub marks: Vec<Mark>,
}

/// The lanes of an incident: each opener, those who forked its copies, their holders; the victim
/// last, unless it is one of these. What is not released lasts until `until_ns` (CLOCK_MONOTONIC,
/// nanoseconds) if that is given.
#[must_use]
pub fn lanes(incident: &Incident, until_ns: Option<u64>) -> Vec<Lane> {
    let mut made = Maker { incident, until_ns, lanes: Vec::new() };
    for holder in &incident.holders {
        made.opened(holder.opened.as_ref(), Some(holder));
        made.forked(holder);
        made.held(holder);
    }
    for unheld in &incident.unheld {
        made.opened(unheld.opened.as_ref(), None);
    }
    let victim = &incident.victim;
    let lane = made.lane(victim.pid, victim.comm.as_deref(), Part::Victim);
    let text = format!("{}: Text file busy", incident.syscall);
    lane.part = Part::Victim;
    lane.marks.push(Mark { event: Event::Failed, at: 0, text });
    made.lanes
}

/// What there is to look at, and whether any time but that of the failure is known.
#[must_use]
pub fn sight(lanes: &[Lane]) -> (Sight, bool) {
    let bars = lanes.iter().flat_map(|lane| &lane.bars).flat_map(|bar| [bar.from, bar.to]);
    let marks = lanes.iter().flat_map(|lane| &lane.marks).map(|mark| mark.at);
    let mut offsets: Vec<i64> =
        bars.chain(marks).filter(|at| ![0, i64::MIN, i64::MAX].contains(at)).collect();
    offsets.sort_by_key(|offset| offset.unsigned_abs());
    let mut reach = offsets.first().map_or(1_000, |offset| offset.unsigned_abs());
    let mut near = 0;
    for offset in &offsets {
        if offset.unsigned_abs() > reach.saturating_mul(FAR) {
            break;
        }
        reach = offset.unsigned_abs();
        near += 1;
    }
    let sight = Sight { fit: around(&offsets[..near]), all: around(&offsets) };
    (sight, !offsets.is_empty())
}

/// A stretch with the failure and these moments in it, and some room at its ends.
fn around(offsets: &[i64]) -> Span {
    let from = offsets.iter().fold(0, |from, offset| from.min(*offset));
    let to = offsets.iter().fold(0, |to, offset| to.max(*offset));
    let margin = (to.saturating_sub(from) / 16).max(1);
    Span { from: from.saturating_sub(margin), to: to.saturating_add(margin) }
}

/// The name of a process among the holder and its ancestors.
#[must_use]
pub fn comm_of(holder: &Holder, pid: u32) -> Option<&str> {
    if holder.pid == pid {
        return holder.comm.as_deref();
    }
    let ancestor = holder.ancestors.iter().find(|ancestor| ancestor.pid == pid);
    ancestor.and_then(|ancestor| ancestor.comm.as_deref())
}

struct Maker<'a> {
    incident: &'a Incident,
    until_ns: Option<u64>,
    lanes: Vec<Lane>,
}

impl Maker<'_> {
    /// A moment, counted from the failure.
    fn offset(&self, time_ns: u64) -> i64 {
        let offset = i128::from(time_ns) - i128::from(self.incident.time_ns);
        // The ends of the type stand for what is not known.
        offset.clamp((i64::MIN + 1).into(), (i64::MAX - 1).into()) as i64
    }

    /// The lane of a process, a new one if it has none yet.
    fn lane(&mut self, pid: u32, comm: Option<&str>, part: Part) -> &mut Lane {
        let known = self.lanes.iter().position(|lane| lane.pid == pid);
        let at = known.unwrap_or_else(|| {
            let comm = comm.map(str::to_owned);
            self.lanes.push(Lane { part, pid, comm, bars: Vec::new(), marks: Vec::new() });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    /// The opener of what `holder` held.
    fn opened(&mut self, opened: Option<&Opened>, holder: Option<&Holder>) {
        let Some(opened) = opened else { return };
        let own = holder.and_then(|holder| comm_of(holder, opened.pid));
        let comm = own.or(opened.comm.as_deref());
        let at = self.offset(opened.time_ns);
        let thread = opened.comm.as_deref().unwrap_or("?");
        let text = format!("opened by thread {} {thread}", opened.tid);
        let holds = self.incident.holders.iter().any(|holder| holder.pid == opened.pid);
        // All holders are known: it had dropped the file by then, nobody knows when.
        let to = if self.incident.complete { 0 } else { i64::MAX };
        let lane = self.lane(opened.pid, comm, Part::Opener);
        let mark = Mark { event: Event::Opened, at, text };
        if !lane.marks.contains(&mark) {
            lane.marks.push(mark);
            if !holds && at < to {
                lane.bars.push(Bar { doing: Doing::Unknown, from: at, to });
            }
        }
    }

    /// Who forked a holder.
    fn forked(&mut self, holder: &Holder) {
        let Some(forked) = &holder.forked else { return };
        let at = self.offset(forked.time_ns);
        let thread = forked.comm.as_deref().unwrap_or("?");
        let text = format!("thread {} {thread} forks {}", forked.tid, holder.pid);
        let comm = comm_of(holder, forked.pid).or(forked.comm.as_deref());
        let lane = self.lane(forked.pid, comm, Part::Forker);
        lane.marks.push(Mark { event: Event::Forked, at, text });
    }

    /// A holder.
    fn held(&mut self, holder: &Holder) {
        let to = match (&holder.released, self.until_ns) {
            (Some(released), _) => released.after_ns.clamp(i64::MIN + 1, i64::MAX - 1),
            (None, Some(until_ns)) => self.offset(until_ns).max(0),
            (None, None) => i64::MAX,
        };
        let bars = self.bars(holder, to);
        let (event, text) = match &holder.released {
            Some(released) => {
                let how = name(released.how);
                let exec = released.exec.as_deref();
                (Event::Released, exec.map_or(how.clone(), |exec| format!("{how}: {exec}")))
            }
            None if holder.via == Via::Running => (Event::Holding, "still runs it".to_owned()),
            None => (Event::Holding, "still holds it".to_owned()),
        };
        let lane = self.lane(holder.pid, holder.comm.as_deref(), Part::Holder);
        lane.part = Part::Holder;
        lane.bars.extend(bars);
        lane.marks.push(Mark { event, at: to, text });
    }

    /// What a holder did until it dropped the file.
    fn bars(&self, holder: &Holder, to: i64) -> Vec<Bar> {
        let started = holder.start_ns.map(|ns| self.offset(ns));
        let forked = holder.forked.as_ref().map(|forked| self.offset(forked.time_ns));
        let opened = holder.opened.as_ref().map(|opened| self.offset(opened.time_ns));
        let own = holder.opened.as_ref().is_some_and(|opened| opened.pid == holder.pid);
        let (doing, since) = match holder.via {
            Via::Running if self.incident.direction == Direction::Write => {
                (Doing::Running, holder.exec_ns.map(|ns| self.offset(ns)))
            }
            // A mapping keeps the file whether or not an fd does.
            Via::Mapping if own => (Doing::Held, opened),
            _ if own => (Doing::Open, opened),
            // A task is given its time of start late in its fork, after it was given its fds.
            _ => {
                (Doing::Held, forked.map(|done| started.map_or(done, |started| started.min(done))))
            }
        };
        let mut bars = Vec::new();
        // It was seen to have it at the failure.
        let least = to.min(0);
        let from = since.filter(|since| *since <= least).unwrap_or(least);
        if since != Some(from) {
            // It cannot have had the file before that was open, nor before it was there itself.
            let there = started.filter(|started| *started < from);
            let earliest = opened.into_iter().chain(there).max().unwrap_or(i64::MIN);
            if earliest < from {
                bars.push(Bar { doing: Doing::Unknown, from: earliest, to: from });
            }
        }
        bars.push(Bar { doing, from, to });
        if doing == Doing::Held
            && let Some(done) = forked
            && from < done
            && (started.is_some() || holder.state == State::InFork)
        {
            bars.push(Bar { doing: Doing::Forking, from, to: done.min(to) });
        }
        if holder.state == State::ExecClosing && to > 0 {
            bars.push(Bar { doing: Doing::Exec, from: 0, to });
        }
        bars
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn bar(doing: Doing, from: i64, to: i64) -> Bar {
        Bar { doing, from, to }
    }

    /// Part, pid and bars of each lane.
    fn told(lanes: &[Lane]) -> Vec<(Part, u32, &[Bar])> {
        lanes.iter().map(|lane| (lane.part, lane.pid, lane.bars.as_slice())).collect()
    }

    #[test]
    fn the_child_holds_it_while_the_call_fails() {
        let lanes = lanes(&samples::race(), None);
        assert_eq!(
            told(&lanes),
            [
                (Part::Opener, 4300, [bar(Doing::Unknown, -455_000, 0)].as_slice()),
                (
                    Part::Holder,
                    4310,
                    &[
                        bar(Doing::Held, -130_000, 180_000),
                        bar(Doing::Forking, -130_000, -120_000),
                        bar(Doing::Exec, 0, 180_000),
                    ]
                ),
                (Part::Victim, 4312, &[]),
            ]
        );
        let marks: Vec<(Event, i64)> =
            lanes.iter().flat_map(|lane| &lane.marks).map(|mark| (mark.event, mark.at)).collect();
        let expected = [
            (Event::Opened, -455_000),
            (Event::Forked, -120_000),
            (Event::Released, 180_000),
            (Event::Failed, 0),
        ];
        assert_eq!(marks, expected);
    }

    #[test]
    fn what_is_not_released_lasts() {
        let mut incident = samples::race();
        incident.holders[0].released = None;
        let end = |until_ns| lanes(&incident, until_ns)[1].bars[0].to;
        assert_eq!(end(None), i64::MAX);
        assert_eq!(end(Some(incident.time_ns + 7_000)), 7_000);
        assert_eq!(end(Some(0)), 0);
    }

    #[test]
    fn a_beginning_that_nobody_saw_is_not_made_up() {
        let mut incident = samples::write_direction();
        let holder = &mut incident.holders[0];
        let started = holder.start_ns.take();
        let lane = |incident: &Incident| lanes(incident, None)[0].bars.clone();
        let running = bar(Doing::Running, 0, i64::MAX);
        assert_eq!(lane(&incident), [bar(Doing::Unknown, i64::MIN, 0), running]);
        assert!(!sight(&lanes(&incident, None)).1);
        incident.holders[0].start_ns = started;
        assert_eq!(lane(&incident), [bar(Doing::Unknown, -130_000, 0), running]);
        incident.holders[0].exec_ns = Some(incident.time_ns - 5_000);
        assert_eq!(lane(&incident), [bar(Doing::Running, -5_000, i64::MAX)]);
    }

    #[test]
    fn a_child_in_its_fork_has_the_file_before_its_start() {
        let mut incident = samples::race();
        let holder = &mut incident.holders[0];
        holder.state = State::InFork;
        holder.start_ns = Some(incident.time_ns + 52_000);
        holder.forked.iter_mut().for_each(|forked| forked.time_ns = incident.time_ns + 55_000);
        let expected = [
            bar(Doing::Unknown, -455_000, 0),
            bar(Doing::Held, 0, 180_000),
            bar(Doing::Forking, 0, 55_000),
        ];
        assert_eq!(lanes(&incident, None)[1].bars, expected);
    }

    #[test]
    fn each_process_has_one_lane() {
        let mut incident = samples::several();
        incident.victim.pid = 4300;
        let lanes = lanes(&incident, None);
        let pids: Vec<u32> = lanes.iter().map(|lane| lane.pid).collect();
        assert_eq!(pids, [4300, 4310, 4311]);
        assert_eq!(lanes[0].part, Part::Victim);
        let opened = lanes[0].marks.iter().filter(|mark| mark.event == Event::Opened);
        assert_eq!(opened.count(), 1);
        // One writer of three is missing: perhaps it is the opener.
        assert_eq!(lanes[0].bars, [bar(Doing::Unknown, -455_000, i64::MAX)]);
    }

    #[test]
    fn what_is_far_is_not_in_view_at_first() {
        let (sight, known) = sight(&lanes(&samples::still_open(), None));
        assert!(known);
        assert!(sight.fit.from < -455_000 && sight.fit.to < 100_000);
        assert!(sight.all.from < sight.fit.from && sight.all.to > 2_500_000_000);
    }

    #[test]
    fn no_time_is_too_far() {
        let mut incident = samples::several();
        incident.time_ns = u64::MAX;
        incident.holders[0].opened.iter_mut().for_each(|opened| opened.time_ns = 0);
        incident.holders[1].released.iter_mut().for_each(|it| it.after_ns = i64::MIN);
        let (sight, _) = sight(&lanes(&incident, Some(0)));
        assert!(sight.all.from < sight.all.to && sight.fit.from < sight.fit.to);
    }
}
