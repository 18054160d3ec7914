//! What each process did with the busy file, and when, as far as it is known.

use crate::analysis::near_miss::is_near_miss;
use crate::timeline::zoom::{Extent, Span};
use crate::{
    event::{Direction, Holder, Incident, Opened, State, Via},
    text::name,
};

/// An event that is this many times farther from the failure than the nearer ones is not in the
/// default view.
const FAR: u64 = 20;

/// The part of a process in the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It opened the file for writing; it is not known to have held the file at the failure.
    Opener,
    /// It forked a holder.
    Forker,
    /// It held the file, or ran it.
    Holder,
    /// Its call failed.
    Victim,
}

/// What a process did for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Doing {
    /// Whether it held the file then is not known.
    Unknown,
    /// It had a file open that it had opened itself.
    Open,
    /// It held a file that another process had opened.
    Held,
    /// Its fork was not complete, but it already held the file.
    Forking,
    /// Its exec was closing the file.
    Exec,
    /// It ran the file.
    Running,
}

impl Doing {
    /// In a word or two.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Open => "open",
            Self::Held => "held",
            Self::Forking => "in fork",
            Self::Exec => "in exec",
            Self::Running => "running",
        }
    }
}

/// A part of a lane, in nanoseconds from the failure. `i64::MIN` is an unknown beginning, `i64::MAX`
/// an end that was not reached when the line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What the process did.
    pub doing: Doing,
    /// Its beginning.
    pub from: i64,
    /// Its end.
    pub to: i64,
}

/// An event of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Event {
    /// It opened the file for writing.
    Opened,
    /// It forked a holder.
    Forked,
    /// It released the file.
    Released,
    /// It still holds the file.
    Holding,
    /// Its call failed.
    Failed,
    /// Its exec succeeded, but could have failed.
    Succeeded,
}

/// An event with its time and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// What happened.
    pub event: Event,
    /// Its time, in nanoseconds from the failure.
    pub at: i64,
    /// Its text, with names of other processes, not escaped.
    pub text: String,
}

/// The lane of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lane {
    /// The part of the process in the failure.
    pub part: Part,
    /// Its pid.
    pub pid: u32,
    /// Its name, not escaped.
    pub comm: Option<String>,
    /// What it did; later bars are drawn over earlier ones.
    pub bars: Vec<Bar>,
    /// Its events.
    pub marks: Vec<Mark>,
}

/// The lanes of an incident: each opener, the forkers, the holders, and last the victim unless it is
/// one of these. A hold that was not released ends at `until_ns` (CLOCK_MONOTONIC, nanoseconds), if
/// given.
#[must_use]
pub fn lanes(incident: &Incident, until_ns: Option<u64>) -> Vec<Lane> {
    let mut builder = Builder { incident, until_ns, lanes: Vec::new() };
    for holder in &incident.holders {
        builder.opened(holder.opened.as_ref(), Some(holder));
        builder.forked(holder);
        builder.held(holder);
    }
    for unheld in &incident.unheld {
        builder.opened(unheld.opened.as_ref(), None);
    }
    let victim = &incident.victim;
    let lane = builder.lane(victim.pid, victim.comm.as_deref(), Part::Victim);
    let (event, end) = if is_near_miss(incident) {
        (Event::Succeeded, "succeeded")
    } else {
        (Event::Failed, "Text file busy")
    };
    let text = format!("{}: {end}", incident.syscall);
    lane.part = Part::Victim;
    lane.marks.push(Mark { event, at: 0, text });
    builder.lanes
}

/// The periods that the timeline can show, and whether any time besides that of the failure is known.
#[must_use]
pub fn extent(lanes: &[Lane]) -> (Extent, bool) {
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
    let extent = Extent { fit: around(&offsets[..near]), all: around(&offsets) };
    (extent, !offsets.is_empty())
}

/// A period with the failure, these times and a margin.
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

struct Builder<'a> {
    incident: &'a Incident,
    until_ns: Option<u64>,
    lanes: Vec<Lane>,
}

impl Builder<'_> {
    /// A time, counted from the failure.
    fn offset(&self, time_ns: u64) -> i64 {
        let offset = i128::from(time_ns) - i128::from(self.incident.time_ns);
        // The ends of the type mean that a time is not known.
        offset.clamp((i64::MIN + 1).into(), (i64::MAX - 1).into()) as i64
    }

    /// The lane of a process, created if it has none yet.
    fn lane(&mut self, pid: u32, comm: Option<&str>, part: Part) -> &mut Lane {
        let known = self.lanes.iter().position(|lane| lane.pid == pid);
        let at = known.unwrap_or_else(|| {
            let comm = comm.map(str::to_owned);
            self.lanes.push(Lane { part, pid, comm, bars: Vec::new(), marks: Vec::new() });
            self.lanes.len() - 1
        });
        &mut self.lanes[at]
    }

    /// Adds the opener of the file that `holder` held.
    fn opened(&mut self, opened: Option<&Opened>, holder: Option<&Holder>) {
        let Some(opened) = opened else { return };
        let own = holder.and_then(|holder| comm_of(holder, opened.pid));
        let comm = own.or(opened.comm.as_deref());
        let at = self.offset(opened.time_ns);
        let thread = opened.comm.as_deref().unwrap_or("?");
        let text = format!("opened by thread {} {thread}", opened.tid);
        let holds = self.incident.holders.iter().any(|holder| holder.pid == opened.pid);
        // If all holders are known, the opener had closed the file by the failure, at an unknown time.
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

    /// Adds the forker of a holder.
    fn forked(&mut self, holder: &Holder) {
        let Some(forked) = &holder.forked else { return };
        let at = self.offset(forked.time_ns);
        let thread = forked.comm.as_deref().unwrap_or("?");
        let text = format!("thread {} {thread} forks {}", forked.tid, holder.pid);
        let comm = comm_of(holder, forked.pid).or(forked.comm.as_deref());
        let lane = self.lane(forked.pid, comm, Part::Forker);
        lane.marks.push(Mark { event: Event::Forked, at, text });
    }

    /// Adds a holder.
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
            None if holder.via == Via::Running => {
                (Event::Holding, "still runs the file".to_owned())
            }
            None => (Event::Holding, "still holds the file".to_owned()),
        };
        let lane = self.lane(holder.pid, holder.comm.as_deref(), Part::Holder);
        lane.part = Part::Holder;
        lane.bars.extend(bars);
        lane.marks.push(Mark { event, at: to, text });
    }

    /// What a holder did until it released the file.
    fn bars(&self, holder: &Holder, to: i64) -> Vec<Bar> {
        let started = holder.start_ns.map(|ns| self.offset(ns));
        let forked = holder.forked.as_ref().map(|forked| self.offset(forked.time_ns));
        let opened = holder.opened.as_ref().map(|opened| self.offset(opened.time_ns));
        let own = holder.opened.as_ref().is_some_and(|opened| opened.pid == holder.pid);
        let (doing, since) = match holder.via {
            Via::Running if self.incident.direction == Direction::Write => {
                (Doing::Running, holder.exec_ns.map(|ns| self.offset(ns)))
            }
            // A mapping keeps the file even if the fd is closed.
            Via::Mapping if own => (Doing::Held, opened),
            _ if own => (Doing::Open, opened),
            // A fork copies the fds before it sets the child's start time.
            _ => {
                (Doing::Held, forked.map(|done| started.map_or(done, |started| started.min(done))))
            }
        };
        let mut bars = Vec::new();
        // It held the file at the failure.
        let least = to.min(0);
        let from = since.filter(|since| *since <= least).unwrap_or(least);
        if since != Some(from) {
            // It cannot have held the file before the open, nor before it started.
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
    fn summarized(lanes: &[Lane]) -> Vec<(Part, u32, &[Bar])> {
        lanes.iter().map(|lane| (lane.part, lane.pid, lane.bars.as_slice())).collect()
    }

    #[test]
    fn the_bar_of_the_child_spans_the_failure() {
        let lanes = lanes(&samples::race(), None);
        assert_eq!(
            summarized(&lanes),
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
    fn a_hold_that_is_not_released_has_no_end() {
        let mut incident = samples::race();
        incident.holders[0].released = None;
        let end = |until_ns| lanes(&incident, until_ns)[1].bars[0].to;
        assert_eq!(end(None), i64::MAX);
        assert_eq!(end(Some(incident.time_ns + 7_000)), 7_000);
        assert_eq!(end(Some(0)), 0);
    }

    #[test]
    fn an_unseen_beginning_is_shown_as_unknown() {
        let mut incident = samples::write_direction();
        let holder = &mut incident.holders[0];
        let started = holder.start_ns.take();
        let lane = |incident: &Incident| lanes(incident, None)[0].bars.clone();
        let running = bar(Doing::Running, 0, i64::MAX);
        assert_eq!(lane(&incident), [bar(Doing::Unknown, i64::MIN, 0), running]);
        assert!(!extent(&lanes(&incident, None)).1);
        incident.holders[0].start_ns = started;
        assert_eq!(lane(&incident), [bar(Doing::Unknown, -130_000, 0), running]);
        incident.holders[0].exec_ns = Some(incident.time_ns - 5_000);
        assert_eq!(lane(&incident), [bar(Doing::Running, -5_000, i64::MAX)]);
    }

    #[test]
    fn a_child_in_its_fork_holds_the_file_before_its_start() {
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
        // One writer of three is missing; it may be the opener.
        assert_eq!(lanes[0].bars, [bar(Doing::Unknown, -455_000, i64::MAX)]);
    }

    #[test]
    fn distant_events_are_not_in_the_default_view() {
        let (extent, known) = extent(&lanes(&samples::still_open(), None));
        assert!(known);
        assert!(extent.fit.from < -455_000 && extent.fit.to < 100_000);
        assert!(extent.all.from < extent.fit.from && extent.all.to > 2_500_000_000);
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let mut incident = samples::several();
        incident.time_ns = u64::MAX;
        incident.holders[0].opened.iter_mut().for_each(|opened| opened.time_ns = 0);
        incident.holders[1].released.iter_mut().for_each(|it| it.after_ns = i64::MIN);
        let (extent, _) = extent(&lanes(&incident, Some(0)));
        assert!(extent.all.from < extent.all.to && extent.fit.from < extent.fit.to);
    }
}
