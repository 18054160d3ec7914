//! A page: it is shown instead of the panes.

use crate::tui::state::{Room, State};
use ratatui::{
    Frame,
    layout::{Rect, Size},
    text::Line,
    widgets::{Block, Borders, Paragraph},
};
use std::fmt;

/// A page; a key leads to it.
pub struct Page {
    /// Its name; no two have the same.
    pub(super) title: &'static str,
    /// Whether its end is shown, and one scrolls up from there.
    pub(crate) from_end: bool,
    /// Its lines, for so much room.
    pub(super) lines: fn(&State, Size) -> Vec<Line<'static>>,
}

impl PartialEq for Page {
    fn eq(&self, other: &Self) -> bool {
        self.title == other.title
    }
}

impl Eq for Page {}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.title)
    }
}

impl Page {
    /// Draws it.
    pub(super) fn draw(&self, frame: &mut Frame, state: &State, area: Rect) {
        let block = Block::new().borders(Borders::TOP).title(format!(" {} ", self.title));
        let inner = block.inner(area);
        let mut lines = (self.lines)(state, inner.as_size());
        let height = usize::from(inner.height);
        let most = lines.len().saturating_sub(height);
        state.room.set(Room { height, most });
        let scrolled = state.scroll.min(most);
        lines.drain(..if self.from_end { most - scrolled } else { scrolled });
        frame.render_widget(block, area);
        frame.render_widget(Paragraph::new(lines), inner);
    }
}
