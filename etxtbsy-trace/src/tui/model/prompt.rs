//! A line that is typed at the bottom of the screen.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// How many bytes can be typed.
const LONGEST: usize = 100;

/// What a key did to the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// It is as it was.
    Nothing,
    /// It is another.
    Changed,
    /// It is done.
    Done,
    /// It is given up.
    Given,
}

/// Takes a key. Ctrl-U and Ctrl-W are a shell's.
pub(super) fn edit(line: &mut String, event: KeyEvent) -> Typed {
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    match event.code {
        KeyCode::Enter => return Typed::Done,
        KeyCode::Esc => return Typed::Given,
        KeyCode::Backspace if line.is_empty() => return Typed::Given,
        KeyCode::Backspace => _ = line.pop(),
        KeyCode::Char('u') if control => line.clear(),
        KeyCode::Char('w') if control => {
            let kept = line.trim_end().rfind(' ').map_or(0, |at| at + 1);
            line.truncate(kept);
        }
        KeyCode::Char(c) if !control && line.len() < LONGEST => line.push(c),
        _ => return Typed::Nothing,
    }
    Typed::Changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_edit() {
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
            (KeyCode::Char('x'), control, Typed::Nothing, "to"),
            (KeyCode::Enter, none, Typed::Done, "to"),
            (KeyCode::Char('u'), control, Typed::Changed, ""),
            (KeyCode::Backspace, none, Typed::Given, ""),
            (KeyCode::Esc, none, Typed::Given, ""),
        ] {
            assert_eq!(press(code, modifiers), (typed, left.to_owned()));
        }
    }
}
