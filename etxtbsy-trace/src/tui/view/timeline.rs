//! When: a lane for each process on one axis, the failure in red across them.

use super::{chain::comm_of, style};
use crate::{
    lines::{Direction, Holder, Incident},
    output::{escape, time},
    tui::state::State,
};
use ratatui::{
    layout::Size,
    text::{Line, Span},
};

/// The columns of the names.
const NAMES: usize = 22;
/// How many lanes of holders there are at most.
const HOLDERS: usize = 16;
/// What is that many times further from the failure than all before it is beyond the edge.
const FAR: u64 = 20;

/// What is marked on a lane, at an offset from the failure, in nanoseconds.
struct Lane {
    name: String,
    /// When its fork was begun and done.
    forking: Option<(i64, i64)>,
    /// From when to when it held the file; the end is open if it still does.
    held: Option<(i64, Option<i64>)>,
    /// When it opened the file.
    opened: Option<i64>,
    victim: bool,
}

/// A stretch of time in columns.
struct Axis {
    from: i64,
    to: i64,
    columns: usize,
}

impl Axis {
    /// With the failure, and all that is not far from it compared with the rest, in view.
    fn new(offsets: &[i64], columns: usize) -> Self {
        let mut sorted: Vec<i64> = offsets.iter().copied().filter(|it| *it != 0).collect();
        sorted.sort_by_key(|offset| offset.unsigned_abs());
        let mut reach = sorted.first().map_or(1_000, |offset| offset.unsigned_abs());
        let (mut from, mut to) = (0, 0);
        for offset in sorted {
            if offset.unsigned_abs() > reach.saturating_mul(FAR) {
                break;
            }
            reach = offset.unsigned_abs();
            from = offset.min(from);
            to = offset.max(to);
        }
        let margin = (to.saturating_sub(from) / 16).max(1);
        Self { from: from.saturating_sub(margin), to: to.saturating_add(margin), columns }
    }

    /// The column of an offset; the nearest for those beyond an edge.
    fn column(&self, offset: i64) -> usize {
        let last = self.columns.saturating_sub(1);
        let part = i128::from(offset.clamp(self.from, self.to)) - i128::from(self.from);
        let whole = (i128::from(self.to) - i128::from(self.from)).max(1);
        usize::try_from(part * last as i128 / whole).unwrap_or(last)
    }
}

/// The lanes of the incident shown, below the axis and its legend.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let Some((_, incident)) = state.shown() else { return Vec::new() };
    let columns = usize::from(size.width).saturating_sub(NAMES);
    if columns < 8 {
        return Vec::new();
    }
    let lanes = lanes(incident);
    let axis = Axis::new(&lanes.iter().flat_map(offsets).collect::<Vec<_>>(), columns);
    let mut lines: Vec<Line> = lanes.iter().map(|lane| draw(state, lane, &axis)).collect();
    lines.push(scale(&axis));
    lines
}

/// All that an axis should show of a lane.
fn offsets(lane: &Lane) -> impl Iterator<Item = i64> {
    let forking = lane.forking.map(|(from, to)| [from, to]).into_iter().flatten();
    let held = lane.held.map(|(from, to)| [Some(from), to]).into_iter().flatten().flatten();
    forking.chain(held).chain(lane.opened)
}

/// The openers that do not hold it themselves, the holders, and the victim.
fn lanes(incident: &Incident) -> Vec<Lane> {
    let offset = |time_ns: u64| time_ns.wrapping_sub(incident.time_ns) as i64;
    let holders = &incident.holders[..incident.holders.len().min(HOLDERS)];
    let mut lanes: Vec<Lane> = Vec::new();
    let openers = holders.iter().filter_map(|holder| Some((holder, holder.opened.as_ref()?)));
    for (holder, opened) in openers {
        let comm = comm_of(holder, opened.pid).or(opened.comm.as_deref());
        let name = named(comm, opened.pid);
        let held = incident.holders.iter().any(|holder| holder.pid == opened.pid);
        if !held && !lanes.iter().any(|lane| lane.name == name) {
            let opened = Some(offset(opened.time_ns));
            lanes.push(Lane { name, forking: None, held: None, opened, victim: false });
        }
    }
    lanes.extend(holders.iter().map(|holder| lane(incident, holder, offset)));
    let victim = &incident.victim;
    let name = named(victim.comm.as_deref(), victim.pid);
    lanes.push(Lane { name, forking: None, held: None, opened: None, victim: true });
    lanes
}

/// The lane of a holder.
fn lane(incident: &Incident, holder: &Holder, offset: impl Fn(u64) -> i64) -> Lane {
    let opened = holder.opened.as_ref().filter(|opened| opened.pid == holder.pid);
    let opened = opened.map(|opened| offset(opened.time_ns));
    let forked = holder.forked.as_ref().map(|forked| offset(forked.time_ns));
    let started = holder.start_ns.map(&offset);
    let exec = holder.exec_ns.filter(|_| incident.direction == Direction::Write).map(&offset);
    let forking = started.zip(forked).filter(|(from, to)| from < to);
    // What it held before anybody looked it held at the failure at least.
    let from = forking.map(|(from, _)| from).or(forked).or(exec).or(opened).unwrap_or(0);
    let to = holder.released.as_ref().map(|released| released.after_ns);
    let name = named(holder.comm.as_deref(), holder.pid);
    Lane { name, forking, held: Some((from, to)), opened, victim: false }
}

fn named(comm: Option<&str>, pid: u32) -> String {
    let pid = format!("[{pid}]");
    escape::short(comm.unwrap_or("?"), NAMES.saturating_sub(pid.len() + 1)) + &pid
}

/// One lane.
fn draw(state: &State, lane: &Lane, axis: &Axis) -> Line<'static> {
    let mut cells = vec![('·', style::faint()); axis.columns];
    let failure = axis.column(0);
    if let Some((from, to)) = lane.held {
        let last = axis.columns - 1;
        let (start, end) = (axis.column(from), to.map_or(last, |to| axis.column(to)));
        for cell in cells.iter_mut().take(end.max(start) + 1).skip(start) {
            *cell = ('█', style::holder(state));
        }
        if let Some((from, to)) = lane.forking {
            for cell in cells.iter_mut().take(axis.column(to)).skip(axis.column(from)) {
                *cell = ('░', style::holder(state));
            }
        }
        if from < axis.from {
            cells[0] = ('<', style::holder(state));
        }
        match to {
            Some(to) if to <= axis.to => cells[end] = ('▌', style::good(state)),
            _ => cells[last] = ('>', style::holder(state)),
        }
    }
    if let Some(opened) = lane.opened {
        let sign = if opened < axis.from { '<' } else { 'o' };
        cells[axis.column(opened)] = (sign, style::strong());
    }
    cells[failure] = match (lane.victim, cells[failure].0) {
        (true, _) => ('X', style::bad(state)),
        (false, '·') => ('│', style::bad(state)),
        (false, _) => ('┃', style::bad(state)),
    };
    let style = if lane.victim { style::bad(state) } else { style::strong() };
    let padding = " ".repeat(NAMES.saturating_sub(escape::width(&lane.name)));
    let mut spans = vec![Span::styled(lane.name.clone(), style), Span::raw(padding)];
    spans.extend(cells.into_iter().map(|(c, style)| Span::styled(c.to_string(), style)));
    spans.into()
}

/// The ends of the axis, the failure, and what the signs mean.
fn scale(axis: &Axis) -> Line<'static> {
    let failure = axis.column(0);
    let from = format!("-{}", time::span(axis.from.unsigned_abs()));
    let to = format!("+{}", time::span(axis.to.unsigned_abs()));
    let mut text = format!("{:<NAMES$}{from}", "o open ░ fork █ held");
    for (place, word) in [(failure, "0"), (axis.columns.saturating_sub(escape::width(&to)), &to)] {
        let gap = (NAMES + place).saturating_sub(escape::width(&text));
        if gap > 0 {
            text = text + &" ".repeat(gap) + word;
        }
    }
    Line::styled(text, style::faint())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    #[test]
    fn the_held_bar_stands_over_the_failure() {
        let lanes = lanes(&samples::race());
        let names: Vec<&str> = lanes.iter().map(|lane| lane.name.as_str()).collect();
        assert_eq!(names, ["demo[4300]", "demo[4310]", "worker-3[4312]"]);
        assert_eq!(lanes[1].held, Some((-130_000, Some(180_000))));
        assert_eq!(lanes[1].forking, Some((-130_000, -120_000)));
        let axis = Axis::new(&lanes.iter().flat_map(offsets).collect::<Vec<_>>(), 60);
        let columns = [-455_000, -130_000, 0, 180_000].map(|offset| axis.column(offset));
        assert!(columns.is_sorted() && columns[0] < columns[1] && columns[1] < columns[2]);
        assert!(columns[2] < columns[3] && columns[3] < 60);
    }

    #[test]
    fn what_is_far_is_beyond_the_edge() {
        let axis = Axis::new(&[-7_200_000_000_000, -130_000, 20_000], 60);
        assert!(axis.from > -200_000 && axis.to < 50_000);
        assert_eq!((axis.column(i64::MIN), axis.column(i64::MAX)), (0, 59));
        let empty = Axis::new(&[], 60);
        assert!(empty.column(0) < 60);
    }
}
