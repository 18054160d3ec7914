//! What the traced command writes, which has no terminal to write to.

use super::style;
use crate::tui::model::state::State;
use ratatui::{layout::Size, text::Line};

/// The lines of the page, for so much room.
pub(super) fn lines(state: &State, _: Size) -> Vec<Line<'static>> {
    match state.live.as_ref().and_then(|live| live.output.as_ref()) {
        Some(output) => {
            let charset = style::charset(state);
            output.lines().map(|line| charset.text(&line).into()).collect()
        }
        None => vec![Line::styled("no command is traced", style::faint())],
    }
}
