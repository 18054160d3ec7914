//! Colours, which are readable on dark and on light backgrounds, and line breaks.

use crate::{
    text::escape::{self, Charset},
    timeline::lanes::Part,
    tui::model::state::State,
};
use ratatui::{
    buffer::Cell,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

// Of the 256 colours: a theme can change only the first 16, and makes some of these unreadable.
const RED: u8 = 196;
const YELLOW: u8 = 130;
const GREEN: u8 = 28;
const CYAN: u8 = 30;
const MAGENTA: u8 = 133;
const BLUE: u8 = 33;
const BLACK: u8 = 16;
/// Behind what the search found.
const BRIGHT: u8 = 226;

/// The title of a pane.
pub(super) fn title(focused: bool) -> Style {
    if focused { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() }
}

/// What a reader needs first.
pub(super) fn strong() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

/// What runs.
pub(super) fn caption() -> Style {
    Style::new().add_modifier(Modifier::ITALIC)
}

/// What a reader needs second.
pub(super) fn faint() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

/// The victim, the failure, anything lost.
pub(super) fn bad(state: &State) -> Style {
    colored(state, RED).add_modifier(Modifier::BOLD)
}

/// A holder, and a file still held.
pub(super) fn holder(state: &State) -> Style {
    colored(state, YELLOW)
}

/// A release.
pub(super) fn good(state: &State) -> Style {
    colored(state, GREEN)
}

/// The opener, and a file it had open.
pub(super) fn opener(state: &State) -> Style {
    colored(state, CYAN)
}

/// A fork.
pub(super) fn fork(state: &State) -> Style {
    colored(state, MAGENTA)
}

/// An unfinished exec.
pub(super) fn exec(state: &State) -> Style {
    colored(state, BLUE)
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

fn colored(state: &State, color: u8) -> Style {
    if state.color { Style::new().fg(Color::Indexed(color)) } else { Style::new() }
}

/// Highlights a character that the search found.
pub(super) fn highlight(state: &State, cell: &mut Cell) {
    let look = strong().add_modifier(Modifier::UNDERLINED);
    if state.color {
        cell.modifier.remove(Modifier::REVERSED);
        cell.set_style(look.fg(Color::Indexed(BLACK)).bg(Color::Indexed(BRIGHT)));
    } else {
        cell.modifier.toggle(Modifier::REVERSED);
        cell.set_style(look);
    }
}

/// The charset for text of other processes.
pub(super) fn charset(state: &State) -> Charset {
    if state.ascii { Charset::Ascii } else { Charset::Unicode }
}

/// A line in that many columns; what has no room is marked with `…`.
pub(super) fn fit(line: Line<'static>, columns: usize) -> Line<'static> {
    let text = line.to_string();
    // Spaces at the end need no room.
    if escape::width(text.trim_end_matches(' ')) <= columns {
        return line;
    }
    let mut room = columns.saturating_sub(1);
    let mut fitting = Line { spans: Vec::new(), ..line };
    for Span { content, style } in line.spans {
        let mut text = String::new();
        for c in content.chars() {
            let wide = escape::width(c.encode_utf8(&mut [0; 4]));
            if wide > room {
                fitting.push_span(Span::styled(text + "…", style));
                return fitting;
            }
            room -= wide;
            text.push(c);
        }
        fitting.push_span(Span::styled(text, style));
    }
    fitting
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Black, white, and the backgrounds of common themes, as red, green, blue.
    const BACKGROUNDS: [[u8; 3]; 7] = [
        [0, 0, 0],
        [30, 30, 30],
        [0, 43, 54],
        [40, 42, 54],
        [255, 255, 255],
        [253, 246, 227],
        [238, 238, 238],
    ];

    /// Of the colour cube, from 16 on.
    fn rgb(color: u8) -> [u8; 3] {
        let level = |part: u8| if part == 0 { 0 } else { 55 + 40 * part };
        let cube = color - 16;
        [cube / 36, cube / 6 % 6, cube % 6].map(level)
    }

    /// The relative luminance of WCAG 2.
    fn luminance(rgb: [u8; 3]) -> f64 {
        let linear = rgb.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    }

    fn contrast(a: [u8; 3], b: [u8; 3]) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn colours_are_readable_on_dark_and_light_backgrounds() {
        for color in [RED, YELLOW, GREEN, CYAN, MAGENTA, BLUE] {
            for background in BACKGROUNDS {
                let contrast = contrast(rgb(color), background);
                assert!(contrast >= 3.0, "{color} on {background:?}: {contrast:.1}");
            }
        }
        assert!(contrast(rgb(BLACK), rgb(BRIGHT)) >= 4.5);
    }

    #[test]
    fn a_line_without_room_ends_with_an_ellipsis() {
        let line = Line::from(vec![Span::raw("one "), Span::styled("two 家", strong())]);
        for (columns, text) in [(10, "one two 家"), (9, "one two …"), (5, "one …"), (1, "…")]
        {
            assert_eq!(fit(line.clone(), columns).to_string(), text);
        }
        assert_eq!(fit(line, 4).spans.len(), 1);
    }
}
