//! The list: groups with their counts, and the incidents of open groups.

use super::style;
use crate::{
    analysis::wait::Wait,
    event::{Direction, Incident},
    text::{escape, name, time},
    tui::model::{
        incidents::{Group, Kept},
        list::Row,
        sort::By,
        state::{HEADS, Heads, Panes, State},
        words,
    },
};
use ratatui::{
    layout::{Rect, Size},
    style::{Modifier, Style},
    text::{Line, Span},
};
use std::fmt::Write as _;

/// The columns of the bar that shows the rate of a group over time.
const BAR: usize = 8;
/// The characters of the bar, from zero up.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same in ASCII.
const DENSITIES: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];

/// The most pending failures in the list.
const PENDING: usize = 3;
/// The columns of the sign and the count.
const COUNT: usize = 9;
/// The columns of a time of day.
const CLOCK: usize = 8;
/// The columns of a program's name.
const PROGRAM: usize = 16;
/// The fewest columns of a file's path.
const PATH: usize = 16;
/// The same if there is a holder's column.
const WIDE_PATH: usize = 30;
/// From this height on, the list has column headers.
const HEADED: usize = 3;

/// The widths of the columns, 0 without the column.
#[derive(Clone, Copy)]
struct Columns {
    bar: usize,
    verdict: usize,
    last_seen: usize,
    wait: usize,
    victim: usize,
    holder: usize,
    path: usize,
}

impl Columns {
    /// The columns that have room in that width: those that matter most.
    fn new(state: &State, width: usize) -> Self {
        let groups = state.model.groups().iter();
        let kinds = groups.filter_map(|group| group.cause.as_ref());
        let verdict = kinds.map(|cause| escape::width(&name(cause.verdict))).max();
        let verdict = verdict.unwrap_or(0).max("VERDICT".len() + 2);
        let mut columns =
            Self { bar: 0, verdict, last_seen: 0, wait: 0, victim: 0, holder: 0, path: 0 };
        let mut room = width.saturating_sub(COUNT + verdict + 1);
        let mut give = |column: &mut usize, columns: usize, path: usize| {
            if room > columns + path {
                *column = columns;
                room -= columns + 1;
            }
        };
        give(&mut columns.victim, PROGRAM, PATH);
        give(&mut columns.last_seen, CLOCK, PATH);
        give(&mut columns.bar, BAR, PATH);
        give(&mut columns.holder, PROGRAM, WIDE_PATH);
        give(&mut columns.wait, CLOCK, WIDE_PATH);
        columns.path = room;
        columns
    }

    /// The columns from left to right: what each shows, its width, and what it sorts by.
    fn all(self) -> [(&'static str, usize, Option<By>); 8] {
        [
            ("COUNT", COUNT - 1, Some(By::Count)),
            ("RATE", self.bar, None),
            ("VERDICT", self.verdict, Some(By::Verdict)),
            ("LAST", self.last_seen, Some(By::Newest)),
            ("WAIT", self.wait, Some(By::Wait)),
            ("VICTIM", self.victim, None),
            ("HOLDER", self.holder, None),
            ("FILE", self.path, Some(By::Path)),
        ]
    }
}

/// The line of the column headers; the criterion of the order is marked.
fn heads(state: &State, width: usize) -> Line<'static> {
    let order = state.list().order();
    let mut line = Line::default();
    for (title, columns, by) in Columns::new(state, width).all() {
        if columns == 0 {
            continue;
        }
        let is_sorted = by == Some(order.by);
        let signs = if state.ascii { ['v', '^'] } else { ['▼', '▲'] };
        let sign = signs[usize::from(order.inverted)];
        let title = if is_sorted && title.len() < columns {
            format!("{title}{sign}")
        } else {
            title.to_owned()
        };
        let look = if is_sorted { style::strong() } else { style::faint() };
        let text = if by == Some(By::Count) {
            format!("{title:>columns$} ")
        } else {
            format!("{title:<columns$} ")
        };
        line.push_span(Span::styled(text, look));
    }
    line
}

/// What of the list can be clicked: the rows in that area, and the headers.
pub(super) fn clickable(state: &State, area: Rect, panes: &mut Panes) {
    let height = usize::from(area.height);
    let head = u16::from(has_heads(state, height));
    let pending = state.pending().take(PENDING).count();
    let above = head + u16::try_from(pending).unwrap_or(0);
    let rows = state.list().rows(&state.model).len();
    let height = area.height.saturating_sub(above);
    let count = u16::try_from(rows).unwrap_or(u16::MAX).min(height);
    panes.top = first(state, usize::from(height));
    panes.rows = Rect::new(area.x, area.y.saturating_add(above), area.width, count);
    let mut at = area.x;
    let mut columns = [(0, 0, By::Newest); HEADS];
    let mut sorting = columns.iter_mut();
    for (_, width, by) in Columns::new(state, area.width.into()).all() {
        let end = at.saturating_add(u16::try_from(width).unwrap_or(u16::MAX));
        if let Some(by) = by
            && let Some(column) = sorting.next()
        {
            *column = (at, end, by);
        }
        at = if width > 0 { end.saturating_add(1) } else { at };
    }
    panes.heads = (head > 0).then_some(Heads { y: area.y, columns });
}

fn has_heads(state: &State, height: usize) -> bool {
    height >= HEADED && state.model.kept() > 0
}

/// The index of the first visible row: as before, unless the selected row would not be visible.
fn first(state: &State, height: usize) -> usize {
    let rows = state.list().rows(&state.model).len();
    let selected = state.list().selected(&state.model);
    let least = (selected + 1).saturating_sub(height);
    state.room.panes.top.clamp(least, selected.max(least)).min(rows.saturating_sub(height))
}

/// The order and the filter, and the place of the selected row: `newest first; demo, leaked-fd: 3 of 7;
/// 2/3`.
pub(super) fn note(state: &State) -> String {
    let (filter, model) = (state.filter(), &state.model);
    let mut note = state.list().order().name().to_owned();
    if state.list().follows() {
        note += ", following";
    }
    if filter.no_near_misses && model.near_misses > 0 {
        note += ", no near misses";
    }
    if filter.is_on() {
        let text = filter.text().trim();
        let text =
            (!text.is_empty()).then(|| format!("\"{}\"", style::charset(state).short(text, 24)));
        let unexplained = filter.unexplained.then(|| "unexplained".to_owned());
        let kinds: Vec<String> =
            [text, filter.verdict.map(name), unexplained].into_iter().flatten().collect();
        let shown: usize = model.groups().iter().map(Group::passing).sum();
        let memory = if (model.kept() as u64) < model.received() { " in memory" } else { "" };
        let _ = write!(note, "; {}: {shown} of {}{memory}", kinds.join(", "), model.kept());
    }
    let rows = state.list().rows(model).len();
    if rows > 0 {
        let _ = write!(note, "; {}/{rows}", state.list().selected(model) + 1);
    }
    note
}

/// The rows of the list, with its headers.
pub(super) fn count(state: &State) -> usize {
    let rows = state.list().rows(&state.model).len();
    rows + state.pending().take(PENDING).count() + usize::from(has_heads(state, HEADED))
}

/// The part of the list around the selected row.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> =
        state.pending().take(PENDING).map(|incident| pending(state, incident)).collect();
    let rows = state.list().rows(&state.model);
    if rows.is_empty() && lines.is_empty() {
        return match state.model.received() {
            0 => vec![Line::styled("no incident yet", style::faint())],
            _ => {
                vec![Line::styled("no incident passes the filter (Esc clears it)", style::faint())]
            }
        };
    }
    let follows = state.list().follows() && !lines.is_empty();
    if follows {
        lines[0] = reversed(std::mem::take(&mut lines[0]));
    }
    let width = usize::from(size.width);
    let has_heads = has_heads(state, size.height.into());
    if has_heads {
        lines.insert(0, heads(state, width));
    }
    let selected = state.list().selected(&state.model);
    let height = usize::from(size.height).saturating_sub(lines.len());
    let part = rows.iter().enumerate().skip(first(state, height)).take(height);
    let columns = Columns::new(state, width);
    lines.extend(part.map(|(at, row)| line(state, *row, at == selected && !follows, columns)));
    lines
}

/// A pending failure.
fn pending(state: &State, incident: &Incident) -> Line<'static> {
    let clock = time::clock(&incident.time).unwrap_or_default();
    let comm = style::charset(state).short(incident.victim.comm.as_deref().unwrap_or("?"), 16);
    let file =
        style::charset(state).short(incident.file.path.as_deref().unwrap_or("(path unknown)"), 60);
    let now_ns = state.live.as_ref().map_or(0, |live| live.now_ns);
    let held = time::span(now_ns.saturating_sub(incident.time_ns));
    Line::from(vec![
        Span::styled(format!("  held {held:<10} "), style::holder(state)),
        Span::raw(format!("{clock}  {comm}[{}]  {file}", incident.victim.pid)),
    ])
}

/// A selected row.
fn reversed(line: Line<'static>) -> Line<'static> {
    line.patch_style(style::strong().add_modifier(Modifier::REVERSED))
}

fn line(state: &State, row: Row, selected: bool, columns: Columns) -> Line<'static> {
    let Some((group, kept)) = row.kept(&state.model) else { return Line::default() };
    let incident = &kept.incident;
    let victim = &incident.victim;
    let short = |raw: &str, columns: usize| style::charset(state).short(raw, columns);
    let clock = time::clock(&incident.time);
    let clock = clock.unwrap_or_else(|| short(&incident.time, 16));
    let line = match row {
        Row::Group(place) => {
            let sign = if state.list().is_expanded(place) { '-' } else { '+' };
            let file = match &group.cause {
                Some(_) => group.tally.file.text().unwrap_or_else(|| "(path unknown)".to_owned()),
                None => "(other groups)".to_owned(),
            };
            let kind = if kept.near.is_some() { style::good(state) } else { style::holder(state) };
            // To the second.
            let last_seen: String = clock.chars().take(CLOCK).collect();
            let program = victim.comm.as_deref().unwrap_or("?");
            let cells = [
                (bar(state, group, columns.bar), columns.bar, style::holder(state)),
                (short(&name(incident.verdict.kind), columns.verdict), columns.verdict, kind),
                (last_seen, columns.last_seen, style::faint()),
                (longest_wait(group, kept), columns.wait, Style::new()),
                (short(program, columns.victim), columns.victim, Style::new()),
                (short(&holder(kept), columns.holder), columns.holder, Style::new()),
                (short(&file, columns.path), columns.path, Style::new()),
            ];
            let mut spans = vec![
                Span::raw(format!("{sign} ")),
                Span::styled(format!("{:>5}x ", count_in_short(group.count())), style::strong()),
            ];
            for (text, width, look) in cells.into_iter().filter(|(_, width, _)| *width > 0) {
                let gap = width.saturating_sub(escape::width(&text)) + 1;
                spans.push(Span::styled(text + &" ".repeat(gap), look));
            }
            spans
        }
        Row::Single(..) => {
            let title = words::title(incident, kept.near);
            let program = short(victim.comm.as_deref().unwrap_or("?"), PROGRAM);
            let start = format!("    {title}  {clock}  {program}[{}]  ", victim.pid);
            let mut spans = vec![Span::raw(start), wait(state, kept)];
            if let Some(first) = incident.holders.first() {
                let comm = short(first.comm.as_deref().unwrap_or("?"), PROGRAM);
                let more = match incident.holders.len() {
                    1 => String::new(),
                    holders => format!(" and {} more", holders - 1),
                };
                let word = if incident.direction == Direction::Write { "run" } else { "held" };
                spans.push(Span::raw(format!(", {word} by {comm}[{}]{more}", first.pid)));
            }
            spans
        }
    };
    let line = Line::from(line);
    if selected { reversed(line) } else { line }
}

/// The longest wait for the file; `held` if it was never seen to be released.
fn longest_wait(group: &Group, kept: &Kept) -> String {
    match group.tally.longest() {
        _ if kept.near.is_some() => "-".to_owned(),
        _ if group.tally.endless > 0 => "held".to_owned(),
        Some(ns) => time::span(ns),
        None => "-".to_owned(),
    }
}

/// The program of the first holder, and how many more holders there are; or what keeps the file.
fn holder(kept: &Kept) -> String {
    let holders = &kept.incident.holders;
    let comm = holders.first().map(|holder| holder.comm.as_deref().unwrap_or("?"));
    match (comm, holders.len()) {
        (None, _) => {
            let kept = kept.incident.unheld.first();
            kept.map_or_else(|| "-".to_owned(), |unheld| name(unheld.place))
        }
        (Some(comm), 1) => comm.to_owned(),
        (Some(comm), count) => format!("{comm} +{}", count - 1),
    }
}

/// When the file was released; of a near miss, by how much it missed failing.
fn wait(state: &State, kept: &Kept) -> Span<'static> {
    if let Some(near) = kept.near {
        return Span::styled(words::missed(near), style::good(state));
    }
    let style = match Wait::of(&kept.incident) {
        Wait::Over(_) => style::good(state),
        Wait::Unknown if kept.incident.unheld.is_empty() => style::bad(state),
        Wait::Endless | Wait::Unknown => style::holder(state),
    };
    Span::styled(words::wait(&kept.incident), style)
}

/// A count in five columns at most.
fn count_in_short(count: u64) -> String {
    match count {
        ..100_000 => count.to_string(),
        100_000..10_000_000 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// The rate of a group over time, relative to its own highest rate.
fn bar(state: &State, group: &Group, columns: usize) -> String {
    let signs = if state.ascii { DENSITIES } else { HEIGHTS };
    let until_ns = state.until_ns().unwrap_or(0);
    let levels = state.model.bar(group, until_ns, columns, signs.len() - 1);
    levels.into_iter().map(|level| signs[level]).collect()
}
