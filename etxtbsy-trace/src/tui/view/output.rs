//! The page with the output of the traced command, which has no terminal.

use super::style;
use crate::tui::model::state::State;
use ratatui::{layout::Size, text::Line};

/// The lines of the page.
pub(super) fn lines(state: &State, _: Size) -> Vec<Line<'static>> {
    match state.live.as_ref().and_then(|live| live.output.as_ref()) {
        Some(output) => {
            let charset = style::charset(state);
            output.lines().map(|line| charset.text(&line).into()).collect()
        }
        None => vec![Line::styled("no command is traced", style::faint())],
    }
}
