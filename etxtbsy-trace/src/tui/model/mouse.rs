//! What the mouse does. With Shift, terminals select text and report nothing; what arrives with it is
//! ignored.

use super::state::{Heads, Panes, Scale, State};
use ratatui::{
    crossterm::event::{KeyModifiers, MouseButton, MouseEvent, MouseEventKind},
    layout::Position,
};

/// The lines by which the wheel moves.
const WHEEL: isize = 3;
/// The pane of the list.
const LIST: usize = 0;
/// The pane of the timeline.
const TIMELINE: usize = 2;

impl State {
    /// Handles a click, the wheel, or a drag.
    pub fn mouse(&mut self, event: MouseEvent) {
        if event.modifiers.contains(KeyModifiers::SHIFT) || self.prompt.is_some() {
            return;
        }
        self.refresh();
        let at = Position::new(event.column, event.row);
        match event.kind {
            MouseEventKind::Down(MouseButton::Left) => self.click(at),
            MouseEventKind::Drag(MouseButton::Left) => self.drag_to(at.x),
            MouseEventKind::Up(MouseButton::Left) => self.drag = None,
            MouseEventKind::ScrollDown => self.wheel(at, WHEEL),
            MouseEventKind::ScrollUp => self.wheel(at, -WHEEL),
            _ => {}
        }
        self.refresh();
    }

    /// The pane at that position.
    fn pane_at(&self, at: Position) -> Option<usize> {
        self.room.panes.areas.iter().position(|area| area.contains(at))
    }

    fn click(&mut self, at: Position) {
        self.notice = None;
        self.drag = None;
        if self.page.is_some() {
            return;
        }
        let Some(pane) = self.pane_at(at) else { return };
        let Panes { rows, top, heads, scale, .. } = self.room.panes;
        self.focus_on(pane);
        if pane == TIMELINE {
            self.drag = scale.filter(|scale| at.x >= scale.x).map(|_| at.x);
        } else if rows.contains(at) {
            let index = top + usize::from(at.y - rows.y);
            let was_selected = self.list.select_at(&self.model, index);
            // The sign of the group, or a second click.
            let is_sign = at.x < rows.x + 2;
            if was_selected.is_some_and(|was| was || is_sign) && self.list.is_group(&self.model) {
                self.list.toggle(&self.model);
            }
        } else if let Some(Heads { y, columns }) = heads
            && y == at.y
        {
            let column = columns.iter().find(|(from, to, _)| (*from..*to).contains(&at.x));
            if let Some((_, _, by)) = column {
                self.list.sort_by(*by);
            }
        }
    }

    fn wheel(&mut self, at: Position, lines: isize) {
        if self.page.is_some() {
            return self.step(lines);
        }
        let Some(pane) = self.pane_at(at) else { return };
        if pane == TIMELINE {
            let Some((scale, extent)) = self.room.panes.scale.zip(self.extent()) else { return };
            self.zoom = self.zoom.zoomed_at(&extent, lines < 0, scale.time(at.x));
        } else if pane == LIST {
            self.list.step(&self.model, lines);
        } else if pane == self.focus {
            self.step(lines);
        } else {
            let most = self.room.panes.most[pane];
            let before = self.scrolled.filter(|(other, _)| *other == pane);
            let before = before.map_or(0, |(_, lines)| lines);
            self.scrolled = Some((pane, before.saturating_add_signed(lines).min(most)));
        }
    }

    /// Moves the timeline with the mouse.
    fn drag_to(&mut self, x: u16) {
        let Some((from, scale)) = self.drag.zip(self.room.panes.scale) else { return };
        let Some(extent) = self.extent() else { return };
        let by = i128::from(scale.time(from)) - i128::from(scale.time(x));
        self.zoom = self.zoom.moved(&extent, by);
        self.drag = Some(x);
    }
}

impl Scale {
    /// The time at a column of the screen, in nanoseconds from the failure.
    fn time(self, x: u16) -> i64 {
        let columns = i128::from(self.columns.max(2)) - 1;
        let after = i128::from(x) - i128::from(self.x);
        let time = i128::from(self.span.from) + after * self.span.width() / columns;
        time.clamp(i64::MIN.into(), i64::MAX.into()) as i64
    }
}
