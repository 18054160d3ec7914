//! The verdict and the advice.

use super::style;
use crate::{
    analysis::{group::Tally, near_miss::is_near_miss, wait::Wait},
    event::Evidence,
    text::{escape, name, time},
    tui::model::state::State,
};
use ratatui::{
    layout::Size,
    text::{Line, Span},
};

/// The lines reserved for the first advice.
const FIRST: usize = 1;

/// Verdict, wait and advice of the incident shown. If there is little room, the sentence is cut so that
/// the first advice is visible.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let Some((group, incident)) = state.shown() else { return Vec::new() };
    let width = usize::from(size.width);
    let (held, style) = match Wait::of(incident) {
        _ if is_near_miss(incident) => ("no failure".to_owned(), style::good(state)),
        Wait::Over(0) => ("released while the call was failing".to_owned(), style::good(state)),
        Wait::Over(ns) => {
            (format!("busy for {} after the failure", time::span(ns)), style::good(state))
        }
        Wait::Endless => {
            let now = state
                .now_ns(incident)
                .map(|now_ns| time::span(now_ns.saturating_sub(incident.time_ns)));
            let words = now.map_or_else(
                || "still busy when this was written".to_owned(),
                |now| format!("still busy, {now} after the failure"),
            );
            (words, style::holder(state))
        }
        Wait::Unknown => ("no holder was found".to_owned(), style::bad(state)),
    };
    let likely = incident.holders.iter().any(|it| it.evidence == Some(Evidence::Elimination));
    let held =
        if likely && !incident.certain { format!("{held}; likely, not certain") } else { held };
    let tally = group.map(|group| &group.tally).filter(|tally| tally.count > 1);
    let tally = tally.filter(|_| !is_near_miss(incident));
    let others = tally.and_then(Tally::waits).map(|(median, most)| {
        format!("; in this group: median {}, longest {}", time::span(median), time::span(most))
    });
    let kind = style::holder(state).patch(style::strong());
    let mut lines = vec![Line::from(vec![
        Span::styled(name(incident.verdict.kind), kind),
        Span::styled(format!("  {held}"), style),
        Span::raw(others.unwrap_or_default()),
    ])];
    let mut sentence = style::wrap(state, &incident.verdict.summary, width);
    let most = usize::from(size.height).saturating_sub(1 + FIRST).max(1);
    let advice: Vec<Line> =
        incident.verdict.advice.iter().flat_map(|advice| item(state, advice, width)).collect();
    let room = usize::from(size.height).saturating_sub(1 + advice.len()).max(most);
    if sentence.len() > room {
        sentence.truncate(room);
        if let Some(last) = sentence.last_mut() {
            *last = cut(last, width);
        }
    }
    lines.extend(sentence.into_iter().map(Line::from));
    lines.extend(advice);
    lines
}

/// A line that ends with `…` because the rest has no room.
fn cut(line: &str, width: usize) -> String {
    let words = line.rsplit_once(' ').map_or(line, |(words, _)| words);
    let whole = escape::width(line) + 2 <= width;
    format!("{} …", if whole { line } else { words })
}

/// An advice with its sign: `→` for a remedy, `×` for what does not help.
fn item(state: &State, advice: &str, width: usize) -> Vec<Line<'static>> {
    let (sign, style) = if advice.starts_with("does not help") {
        ("× ", style::bad(state))
    } else {
        ("→ ", style::good(state))
    };
    let wrapped = style::wrap(state, advice, width.saturating_sub(2));
    let wrapped = wrapped.into_iter().enumerate().map(|(at, line)| {
        Line::from(vec![Span::styled(if at == 0 { sign } else { "  " }, style), Span::raw(line)])
    });
    wrapped.collect()
}
