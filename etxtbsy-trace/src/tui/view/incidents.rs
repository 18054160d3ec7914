//! The list: stories with their counts, and the incidents of those that are open.

use super::style;
use crate::{
    output::{escape, name, story::Wait, time},
    tui::state::{Row, State},
};
use ratatui::{
    layout::Size,
    style::Modifier,
    text::{Line, Span},
};

/// The part of the list with the selected row in its middle.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let rows = state.rows();
    if rows.is_empty() {
        return vec![Line::styled("no incident yet", style::faint())];
    }
    let selected = state.selected(&rows);
    let height = usize::from(size.height);
    let first = selected.saturating_sub(height / 2).min(rows.len().saturating_sub(height));
    let part = rows.iter().enumerate().skip(first).take(height);
    part.map(|(at, row)| line(state, *row, at == selected, usize::from(size.width))).collect()
}

fn line(state: &State, row: Row, selected: bool, width: usize) -> Line<'static> {
    let Some((group, incident)) = state.incident(row) else { return Line::default() };
    let victim = &incident.victim;
    let program = escape::short(victim.comm.as_deref().unwrap_or("?"), 16);
    let line = match row {
        Row::Story(place) => {
            let sign = if state.is_expanded(place) { '-' } else { '+' };
            let story = group.story.as_ref();
            let file = story
                .map_or("(other stories)", |it| it.file.as_deref().unwrap_or("(path unknown)"));
            let room = width.saturating_sub(2 + 7 + 20 + 18);
            vec![
                Span::raw(format!("{sign} ")),
                Span::styled(format!("{:>5}x ", group.tally.count), style::strong()),
                Span::styled(format!("{:<19} ", name(incident.verdict.kind)), style::holder(state)),
                Span::raw(format!("{program:<17} ")),
                Span::raw(escape::short(file, room)),
            ]
        }
        Row::Single(_, id) => {
            let clock = time::clock(&incident.time);
            let wait = match Wait::of(incident) {
                Wait::Over(ns) => {
                    Span::styled(format!("released after {}", time::span(ns)), style::good(state))
                }
                Wait::Endless => Span::styled("still held", style::holder(state)),
                Wait::Unknown => Span::styled("holder not found", style::bad(state)),
            };
            let clock = clock.unwrap_or_else(|| escape::short(&incident.time, 16));
            vec![Span::raw(format!("    #{id}  {clock}  {program}[{}]  ", victim.pid)), wait]
        }
    };
    let line = Line::from(line);
    if selected { line.patch_style(style::strong().add_modifier(Modifier::REVERSED)) } else { line }
}
