//! Colours, of the 16 that every terminal's theme keeps readable, and how lines are broken.

use crate::{output::escape, tui::state::State};
use ratatui::style::{Color, Modifier, Style};

/// The title of a pane.
pub(super) fn title(focused: bool) -> Style {
    if focused { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() }
}

/// What a reader looks for first.
pub(super) fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// What is there for the second look.
pub(super) fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// The victim, the failure, anything lost.
pub(super) fn bad(state: &State) -> Style {
    colored(state, Color::Red).add_modifier(Modifier::BOLD)
}

/// A holder, and what it holds.
pub(super) fn holder(state: &State) -> Style {
    colored(state, Color::Yellow)
}

/// A release.
pub(super) fn good(state: &State) -> Style {
    colored(state, Color::Green)
}

fn colored(state: &State, color: Color) -> Style {
    if state.color { Style::new().fg(color) } else { Style::new() }
}

/// Text, made harmless, in lines of at most `columns` where its words allow.
pub(super) fn wrap(raw: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in escape::prose(raw).split(' ') {
        match lines.last_mut() {
            Some(line) if escape::width(line) + 1 + escape::width(word) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}
