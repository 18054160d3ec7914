//! Colours (of the 16 that every terminal's theme keeps readable), and line breaks.

use crate::{
    text::escape::{self, Charset},
    timeline::lanes::Part,
    tui::model::state::State,
};
use ratatui::style::{Color, Modifier, Style};

/// The title of a pane.
pub(super) fn title(focused: bool) -> Style {
    if focused { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() }
}

/// What a reader needs first.
pub(super) fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// What a reader needs second.
pub(super) fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// The victim, the failure, anything lost.
pub(super) fn bad(state: &State) -> Style {
    colored(state, Color::Red).add_modifier(Modifier::BOLD)
}

/// A holder, and a file still held.
pub(super) fn holder(state: &State) -> Style {
    colored(state, Color::Yellow)
}

/// A release.
pub(super) fn good(state: &State) -> Style {
    colored(state, Color::Green)
}

/// The opener, and a file it had open.
pub(super) fn opener(state: &State) -> Style {
    colored(state, Color::Cyan)
}

/// A fork.
pub(super) fn fork(state: &State) -> Style {
    colored(state, Color::Magenta)
}

/// An unfinished exec.
pub(super) fn exec(state: &State) -> Style {
    colored(state, Color::Blue)
}

/// The part of a process in the failure.
pub(super) fn part(state: &State, part: Part) -> Style {
    match part {
        Part::Opener => opener(state),
        Part::Forker => fork(state),
        Part::Holder => holder(state),
        Part::Victim => bad(state),
    }
}

fn colored(state: &State, color: Color) -> Style {
    if state.color { Style::new().fg(color) } else { Style::new() }
}

/// The charset for text of other processes.
pub(super) fn charset(state: &State) -> Charset {
    if state.ascii { Charset::Ascii } else { Charset::Unicode }
}

/// Text, escaped, in lines of at most `columns`; longer words lose their middle.
pub(super) fn wrap(state: &State, raw: &str, columns: usize) -> Vec<String> {
    let charset = charset(state);
    let mut lines: Vec<String> = Vec::new();
    for raw in raw.split(' ') {
        let whole = charset.prose(raw);
        let fits = escape::width(&whole) <= columns;
        let word = if fits { whole } else { charset.short(raw, columns) };
        match lines.last_mut() {
            Some(line) if escape::width(line) + 1 + escape::width(&word) <= columns => {
                line.push(' ');
                line.push_str(&word);
            }
            _ => lines.push(word),
        }
    }
    lines
}
