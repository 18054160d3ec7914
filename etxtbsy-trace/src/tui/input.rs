//! The keys: one table, by which they act, and which the footer and the help page show.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the program.
    Quit,
    /// Show or leave the help page.
    Help,
    /// Leave what was opened last.
    Back,
    /// Show or hide the single incidents of a story.
    Toggle,
    /// The next pane.
    NextPane,
    /// Lines down, or up if below zero.
    Move(i32),
    /// Pages down, or up.
    Page(i32),
    /// To the first line.
    First,
    /// To the last line.
    Last,
    /// Type what to look for.
    Search,
    /// To the next match.
    NextMatch,
    /// To the match before.
    PreviousMatch,
    /// Keep the newest selected, or stop that.
    Follow,
    /// Hold back what comes in, or take it.
    Pause,
}

/// A row of the table.
pub struct Binding {
    /// The keys, as the help page names them.
    pub name: &'static str,
    /// What they do, for the help page.
    pub help: &'static str,
    /// The same in a word, for the footer; empty where it has no room.
    pub word: &'static str,
    keys: &'static [KeyCode],
    action: Action,
}

/// A row.
const fn key(
    name: &'static str,
    keys: &'static [KeyCode],
    action: Action,
    word: &'static str,
    help: &'static str,
) -> Binding {
    Binding { name, help, word, keys, action }
}

/// All keys.
pub const KEYS: [Binding; 16] = [
    key("q", &[KeyCode::Char('q')], Action::Quit, "quit", "quit (Ctrl-C, too)"),
    key("?", &[KeyCode::Char('?'), KeyCode::F(1)], Action::Help, "help", "this page (F1, too)"),
    key("Enter", &[KeyCode::Enter], Action::Toggle, "expand", "show the incidents of a story"),
    key("Tab", &[KeyCode::Tab], Action::NextPane, "pane", "to the next pane, which grows"),
    key("/", &[KeyCode::Char('/')], Action::Search, "search", "search; Enter goes to the match"),
    key("n", &[KeyCode::Char('n')], Action::NextMatch, "next", "to the next match"),
    key("f", &[KeyCode::Char('f')], Action::Follow, "follow", "keep the newest selected"),
    key("Space", &[KeyCode::Char(' ')], Action::Pause, "pause", "hold back what comes in"),
    key("N", &[KeyCode::Char('N')], Action::PreviousMatch, "", "to the match before"),
    key("j Down", &[KeyCode::Char('j'), KeyCode::Down], Action::Move(1), "", "down"),
    key("k Up", &[KeyCode::Char('k'), KeyCode::Up], Action::Move(-1), "", "up"),
    key("PgDn", &[KeyCode::PageDown], Action::Page(1), "", "a page down"),
    key("PgUp", &[KeyCode::PageUp], Action::Page(-1), "", "a page up"),
    key("g Home", &[KeyCode::Char('g'), KeyCode::Home], Action::First, "", "to the first line"),
    key("G End", &[KeyCode::Char('G'), KeyCode::End], Action::Last, "", "to the last line"),
    key("Esc", &[KeyCode::Esc], Action::Back, "", "leave help, search, a pane, a story"),
];

/// Whether this is Ctrl-C, which ends the program wherever it is.
#[must_use]
pub fn interrupts(event: KeyEvent) -> bool {
    event.modifiers.contains(KeyModifiers::CONTROL) && event.code == KeyCode::Char('c')
}

/// What a key press does, if anything.
#[must_use]
pub fn action(event: KeyEvent) -> Option<Action> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    if interrupts(event) {
        return Some(Action::Quit);
    }
    if event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        return None;
    }
    KEYS.iter().find(|binding| binding.keys.contains(&event.code)).map(|binding| binding.action)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_meanings() {
        let mut seen = Vec::new();
        for code in KEYS.iter().flat_map(|binding| binding.keys) {
            assert!(!seen.contains(code), "{code:?}");
            seen.push(*code);
        }
    }

    #[test]
    fn keys_act() {
        let with = |code, modifiers| action(KeyEvent::new(code, modifiers));
        for (code, wanted) in [
            (KeyCode::Char('q'), Some(Action::Quit)),
            (KeyCode::F(1), Some(Action::Help)),
            (KeyCode::Up, Some(Action::Move(-1))),
            (KeyCode::End, Some(Action::Last)),
            (KeyCode::Char('x'), None),
        ] {
            assert_eq!(with(code, KeyModifiers::NONE), wanted);
        }
        assert_eq!(with(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Action::Last));
        assert_eq!(with(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(with(KeyCode::Char('q'), KeyModifiers::CONTROL), None);
    }
}
