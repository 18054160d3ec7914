//! The list: groups with their counts, and the incidents of open groups.

use super::style;
use crate::{
    analysis::wait::Wait,
    event::Incident,
    text::{name, time},
    tui::model::{
        incidents::{Group, Near},
        list::Row,
        state::State,
    },
};
use ratatui::{
    layout::Size,
    style::Modifier,
    text::{Line, Span},
};

/// The columns of the bar that shows the rate of a group over time.
const BAR: usize = 8;
/// The characters of the bar, from zero up.
const HEIGHTS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same in ASCII.
const DENSITIES: [char; 9] = [' ', '.', ':', '-', '=', '+', '*', '#', '@'];

/// The most pending failures in the list.
const PENDING: usize = 3;

/// The order and the filter: `newest first; demo, leaked-fd: 3 of 7`.
pub(super) fn note(state: &State) -> String {
    let (filter, model) = (state.filter(), &state.model);
    let mut note = state.list().order().name().to_owned();
    if state.list().follows() {
        note += ", following";
    }
    if filter.no_near_misses && model.near_misses > 0 {
        note += ", no near misses";
    }
    if !filter.is_on() {
        return note;
    }
    let text = filter.text().trim();
    let text = (!text.is_empty()).then(|| format!("\"{}\"", style::charset(state).short(text, 24)));
    let unexplained = filter.unexplained.then(|| "unexplained".to_owned());
    let kinds: Vec<String> =
        [text, filter.verdict.map(name), unexplained].into_iter().flatten().collect();
    let shown: usize = model.groups().iter().map(Group::passing).sum();
    let memory = if (model.kept() as u64) < model.received() { " in memory" } else { "" };
    format!("{note}; {}: {shown} of {}{memory}", kinds.join(", "), model.kept())
}

/// The part of the list around the selected row.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> =
        state.pending().take(PENDING).map(|incident| pending(state, incident)).collect();
    let rows = state.list().rows(&state.model);
    if rows.is_empty() && lines.is_empty() {
        let text = if state.model.incidents == 0 && state.model.near_misses == 0 {
            "no incident yet"
        } else {
            "no incident passes the filter (Esc clears it)"
        };
        return vec![Line::styled(text, style::faint())];
    }
    let selected = state.list().selected(&state.model);
    let height = usize::from(size.height).saturating_sub(lines.len());
    let first = selected.saturating_sub(height / 2).min(rows.len().saturating_sub(height));
    let follows = state.list().follows() && !lines.is_empty();
    let part = rows.iter().enumerate().skip(first).take(height);
    lines.extend(
        part.map(|(at, row)| {
            line(state, *row, at == selected && !follows, usize::from(size.width))
        }),
    );
    if follows {
        lines[0] = reversed(std::mem::take(&mut lines[0]));
    }
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

fn line(state: &State, row: Row, selected: bool, width: usize) -> Line<'static> {
    let Some((group, kept)) = row.kept(&state.model) else { return Line::default() };
    let incident = &kept.incident;
    let victim = &incident.victim;
    let program = style::charset(state).short(victim.comm.as_deref().unwrap_or("?"), 16);
    let line = match row {
        Row::Group(place) => {
            let sign = if state.list().is_expanded(place) { '-' } else { '+' };
            let file = match &group.cause {
                Some(_) => group.tally.file.text().unwrap_or_else(|| "(path unknown)".to_owned()),
                None => "(other groups)".to_owned(),
            };
            let kind = if kept.near.is_some() { style::good(state) } else { style::holder(state) };
            let room = width.saturating_sub(2 + 7 + BAR + 1 + 20 + 18);
            vec![
                Span::raw(format!("{sign} ")),
                Span::styled(format!("{:>5}x ", short(group.count())), style::strong()),
                Span::styled(bar(state, group) + " ", style::holder(state)),
                Span::styled(format!("{:<19} ", name(incident.verdict.kind)), kind),
                Span::raw(format!("{program:<17} ")),
                Span::raw(style::charset(state).short(&file, room)),
            ]
        }
        Row::Single(..) => {
            let clock = time::clock(&incident.time);
            let wait = kept.near.map_or_else(|| wait(state, incident), |near| missed(state, near));
            let clock = clock.unwrap_or_else(|| style::charset(state).short(&incident.time, 16));
            let id = match kept.near {
                Some(_) => "near miss".to_owned(),
                None => format!("#{}", incident.id),
            };
            vec![Span::raw(format!("    {id}  {clock}  {program}[{}]  ", victim.pid)), wait]
        }
    };
    let line = Line::from(line);
    if selected { reversed(line) } else { line }
}

/// When the file was released.
fn wait(state: &State, incident: &Incident) -> Span<'static> {
    match Wait::of(incident) {
        Wait::Over(0) => Span::styled("released while the call was failing", style::good(state)),
        Wait::Over(ns) => {
            Span::styled(format!("released after {}", time::span(ns)), style::good(state))
        }
        Wait::Endless => Span::styled("still held", style::holder(state)),
        Wait::Unknown if !incident.unheld.is_empty() => {
            Span::styled("held by no process", style::holder(state))
        }
        Wait::Unknown => Span::styled("holder not found", style::bad(state)),
    }
}

/// By how much an exec missed failing.
fn missed(state: &State, Near { margin_ns, count }: Near) -> Span<'static> {
    let like_it = if count > 1 { format!(" ({count} like it)") } else { String::new() };
    let margin = match margin_ns {
        0 => "released during the exec".to_owned(),
        ns => format!("released {} before the exec", time::span(ns)),
    };
    Span::styled(margin + &like_it, style::good(state))
}

/// A count in five columns at most.
fn short(count: u64) -> String {
    match count {
        ..100_000 => count.to_string(),
        100_000..10_000_000 => format!("{}k", count / 1_000),
        _ => format!("{}M", count / 1_000_000),
    }
}

/// The rate of a group over time, relative to its own highest rate.
fn bar(state: &State, group: &Group) -> String {
    let signs = if state.ascii { DENSITIES } else { HEIGHTS };
    let until_ns = state.until_ns().unwrap_or(0);
    let levels = state.model.bar(group, until_ns, BAR, signs.len() - 1);
    levels.into_iter().map(|level| signs[level]).collect()
}
