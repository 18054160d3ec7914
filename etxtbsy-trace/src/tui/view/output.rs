//! What the traced command writes, which has no terminal to write to.

use super::{Page, style};
use crate::tui::state::State;
use ratatui::{layout::Size, text::Line};

/// The page.
pub(crate) static PAGE: Page = Page { title: "output of the command", from_end: true, lines };

fn lines(state: &State, _: Size) -> Vec<Line<'static>> {
    match state.live.as_ref().and_then(|live| live.output.as_ref()) {
        Some(output) => {
            let charset = style::charset(state);
            output.lines().map(|line| charset.text(&line).into()).collect()
        }
        None => vec![Line::styled("no command is traced", style::faint())],
    }
}
