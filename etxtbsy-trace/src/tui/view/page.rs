//! A page, which is shown instead of the panes.

use super::{help, output, statistics, style};
use crate::tui::{
    input::keys::Page,
    model::state::{Room, State},
};
use ratatui::{
    Frame,
    layout::Rect,
    widgets::{Block, Borders, Paragraph},
};

/// Draws a page; returns its visible part.
pub(super) fn draw(page: Page, frame: &mut Frame, state: &State, area: Rect) -> Room {
    let (title, lines): (_, super::Lines) = match page {
        Page::Help => ("keys", help::lines),
        Page::Statistics => ("statistics", statistics::lines),
        Page::Output => ("output of the command", output::lines),
    };
    let block = Block::new().borders(Borders::TOP).title(format!(" {title} "));
    let inner = block.inner(area);
    let mut lines = lines(state, inner.as_size());
    let height = usize::from(inner.height);
    let most = lines.len().saturating_sub(height);
    let scrolled = state.scroll.min(most);
    lines.drain(..if page.from_end() { most - scrolled } else { scrolled });
    frame.render_widget(block, area);
    let fitting = lines.into_iter().map(|line| style::fit(line, inner.width.into()));
    frame.render_widget(Paragraph::new(fitting.collect::<Vec<_>>()), inner);
    Room { height, most, ..Room::default() }
}
