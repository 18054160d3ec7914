//! The keys: in a line at the bottom, and on a page of their own.

use super::style;
use crate::{
    output::escape,
    tui::{input::KEYS, state::State},
};
use ratatui::text::{Line, Span};

/// The line at the bottom.
pub(super) fn footer(state: &State) -> Line<'static> {
    if state.typing {
        return format!("/{}_", escape::text(&state.search)).into();
    }
    let mut spans = Vec::new();
    for binding in KEYS.iter().filter(|binding| !binding.word.is_empty()) {
        spans.push(Span::styled(binding.name, style::strong()));
        spans.push(Span::raw(format!(" {}  ", binding.word)));
    }
    if let Some(ended) = &state.ended {
        spans.insert(0, Span::styled(format!("{}  ", escape::prose(ended)), style::holder(state)));
    }
    spans.into()
}

/// The page.
pub(super) fn lines() -> Vec<Line<'static>> {
    let row = |(name, help)| {
        Line::from(vec![Span::styled(format!("{name:>10}  "), style::strong()), Span::raw(help)])
    };
    KEYS.iter().map(|binding| row((binding.name, binding.help))).collect()
}
