//! What it comes to, and what helps.

use super::style;
use crate::{
    output::{
        name,
        story::{Tally, Wait},
        time,
    },
    tui::state::State,
};
use ratatui::{
    layout::Size,
    text::{Line, Span},
};

/// Verdict, hold time and advice of the incident shown.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let Some((group, incident)) = state.shown() else { return Vec::new() };
    let width = usize::from(size.width);
    let held = match Wait::of(incident) {
        Wait::Over(ns) => format!("busy for {} after the failure", time::span(ns)),
        Wait::Endless => "still busy when this was written".to_owned(),
        Wait::Unknown => "no holder was found".to_owned(),
    };
    let tally = group.map(|group| &group.tally).filter(|tally| tally.count > 1);
    let others = tally.and_then(Tally::waits).map(|(median, most)| {
        format!("; of this story: median {}, longest {}", time::span(median), time::span(most))
    });
    let mut lines = vec![Line::from(vec![
        Span::styled(name(incident.verdict.kind), style::holder(state).patch(style::strong())),
        Span::raw(format!("  {held}{}", others.unwrap_or_default())),
    ])];
    lines.extend(style::wrap(&incident.verdict.summary, width).into_iter().map(Line::from));
    for advice in &incident.verdict.advice {
        let wrapped = style::wrap(advice, width.saturating_sub(2));
        lines.extend(wrapped.into_iter().enumerate().map(|(at, line)| {
            let sign = if at == 0 { "> " } else { "  " };
            Line::from(vec![Span::styled(sign, style::good(state)), Span::raw(line)])
        }));
    }
    lines
}
