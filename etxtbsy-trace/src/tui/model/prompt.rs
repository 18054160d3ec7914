//! Editing of the text at the bottom of the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// The most bytes of the text.
const LONGEST: usize = 100;

/// What a key did to the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// Nothing.
    Unchanged,
    /// It changed the text.
    Changed,
    /// It confirmed the text.
    Done,
    /// It cancelled the prompt.
    Cancelled,
}

/// Applies a key. Ctrl-U and Ctrl-W work as in a shell.
pub(super) fn edit(line: &mut String, event: KeyEvent) -> Typed {
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    match event.code {
        KeyCode::Enter => return Typed::Done,
        KeyCode::Esc => return Typed::Cancelled,
        KeyCode::Backspace if line.is_empty() => return Typed::Cancelled,
        KeyCode::Backspace => _ = line.pop(),
        KeyCode::Char('u') if control => line.clear(),
        KeyCode::Char('w') if control => {
            let kept = line.trim_end().rfind(' ').map_or(0, |at| at + 1);
            line.truncate(kept);
        }
        KeyCode::Char(c) if !control && line.len() < LONGEST => line.push(c),
        _ => return Typed::Unchanged,
    }
    Typed::Changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_edit_the_text() {
        let mut line = String::new();
        let mut press = |code, modifiers| {
            let typed = edit(&mut line, KeyEvent::new(code, modifiers));
            (typed, line.clone())
        };
        let (none, control) = (KeyModifiers::NONE, KeyModifiers::CONTROL);
        for c in "to be ".chars() {
            press(KeyCode::Char(c), none);
        }
        for (code, modifiers, typed, left) in [
            (KeyCode::Char('w'), control, Typed::Changed, "to "),
            (KeyCode::Backspace, none, Typed::Changed, "to"),
            (KeyCode::Char('x'), control, Typed::Unchanged, "to"),
            (KeyCode::Enter, none, Typed::Done, "to"),
            (KeyCode::Char('u'), control, Typed::Changed, ""),
            (KeyCode::Backspace, none, Typed::Cancelled, ""),
            (KeyCode::Esc, none, Typed::Cancelled, ""),
        ] {
            assert_eq!(press(code, modifiers), (typed, left.to_owned()));
        }
    }
}
