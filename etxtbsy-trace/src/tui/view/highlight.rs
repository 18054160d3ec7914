//! Highlights what the search finds, wherever it is visible.

use super::style;
use crate::tui::model::state::State;
use ratatui::{buffer::Buffer, layout::Rect};

/// Highlights each visible match in an area.
pub(super) fn matches(state: &State, buffer: &mut Buffer, area: Rect) {
    let wanted = state.model.search().lower();
    if wanted.is_empty() {
        return;
    }
    for y in area.top()..area.bottom() {
        let (text, columns) = row(buffer, area, y);
        for (start, _) in text.match_indices(wanted) {
            for x in &columns[start..start + wanted.len()] {
                style::highlight(state, &mut buffer[(*x, y)]);
            }
        }
    }
}

/// A row in lower case, and the column of each byte.
fn row(buffer: &Buffer, area: Rect, y: u16) -> (String, Vec<u16>) {
    let (mut text, mut columns) = (String::new(), Vec::new());
    for x in area.left()..area.right() {
        text += &buffer[(x, y)].symbol().to_lowercase();
        columns.resize(text.len(), x);
    }
    (text, columns)
}
