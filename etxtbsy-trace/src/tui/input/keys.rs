//! The keys: one table, by which they act, and which the footer and the help page show.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A page that is shown instead of the panes; a key leads to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The keys.
    Help,
    /// Sums over all incidents.
    Statistics,
    /// What the traced command writes.
    Output,
}

impl Page {
    /// Whether its end is shown, and one scrolls up from there.
    #[must_use]
    pub fn from_end(self) -> bool {
        self == Self::Output
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the program.
    Quit,
    /// Show a page, or leave it.
    Page(Page),
    /// Leave what was opened last.
    Back,
    /// Show or hide the single incidents of a group.
    Toggle,
    /// The next pane.
    NextPane,
    /// The pane before.
    PreviousPane,
    /// Lines down, or up if below zero.
    Move(isize),
    /// Pages down, or up.
    Pages(isize),
    /// To the first line.
    First,
    /// To the last line.
    Last,
    /// The timeline closer, or wider.
    Zoom(bool),
    /// The timeline later, or earlier.
    Pan(bool),
    /// The timeline as at first.
    Fit,
    /// Type what to look for.
    Search,
    /// To the next match.
    NextMatch,
    /// To the match before.
    PreviousMatch,
    /// Type what to show.
    Filter,
    /// Show one verdict only, then the next, then all.
    Verdict,
    /// Show only what is not explained, or all.
    Unexplained,
    /// Sort by something else.
    Sort,
    /// Sort the other way round.
    Invert,
    /// Keep the newest selected, or stop that.
    Follow,
    /// Hold back what comes in, or take it.
    Pause,
    /// Put the incident into the clipboard.
    Copy,
    /// Ask what to write to a file.
    Export,
}

/// A key, Ctrl held or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    code: KeyCode,
    control: bool,
}

/// A key that stands for a character.
const fn c(c: char) -> Key {
    code(KeyCode::Char(c))
}

/// Such a key with Ctrl.
const fn ctrl(c: char) -> Key {
    Key { code: KeyCode::Char(c), control: true }
}

/// Another key.
const fn code(code: KeyCode) -> Key {
    Key { code, control: false }
}

/// A row of the table.
pub struct Binding {
    /// The keys, as the help page names them.
    pub name: &'static str,
    /// What they do, for the help page.
    pub help: &'static str,
    /// The same in a word, for the footer; empty for what nobody has to be told.
    pub word: &'static str,
    keys: &'static [Key],
    action: Action,
}

#[cfg(test)]
impl Binding {
    /// A press of its first key.
    pub(in crate::tui) fn event(&self) -> KeyEvent {
        let Key { code, control } = self.keys[0];
        let modifiers = if control { KeyModifiers::CONTROL } else { KeyModifiers::NONE };
        KeyEvent::new(code, modifiers)
    }
}

/// A row.
const fn key(
    name: &'static str,
    keys: &'static [Key],
    action: Action,
    word: &'static str,
    help: &'static str,
) -> Binding {
    Binding { name, help, word, keys, action }
}

/// Ends the program wherever it is.
const INTERRUPT: Key = ctrl('c');

/// All keys; the footer shows as many of them as it has room for.
pub const KEYS: &[Binding] = &[
    key("q", &[c('q'), INTERRUPT], Action::Quit, "quit", "quit (Ctrl-C, too); Ctrl-Z suspends"),
    key("?", &[c('?'), code(KeyCode::F(1))], Action::Page(Page::Help), "help", "keys (F1, too)"),
    key("Enter", &[code(KeyCode::Enter)], Action::Toggle, "open", "show the incidents of a group"),
    key("Tab", &[code(KeyCode::Tab)], Action::NextPane, "pane", "to the next pane, which grows"),
    key("/", &[c('/')], Action::Search, "search", "search in what is shown; Enter goes to it"),
    key(
        "\\",
        &[c('\\'), code(KeyCode::F(4))],
        Action::Filter,
        "filter",
        "show what is like these words (F4): 'exact ^begins ends$ !without",
    ),
    key(
        "s i",
        &[c('s')],
        Action::Sort,
        "sort",
        "sort by newest, count, longest wait, verdict, path; invert that",
    ),
    key("", &[c('i')], Action::Invert, "", ""),
    key("t", &[c('t')], Action::Page(Page::Statistics), "stats", "statistics of all incidents"),
    key("o", &[c('o')], Action::Page(Page::Output), "output", "what the command of run wrote"),
    key("Space", &[c(' ')], Action::Pause, "pause", "hold back what comes in"),
    key("f", &[c('f')], Action::Follow, "follow", "keep the newest selected"),
    key("v", &[c('v')], Action::Verdict, "verdict", "show one verdict only, the next, all"),
    key("u", &[c('u')], Action::Unexplained, "unexplained", "show only what is not explained"),
    key("c", &[c('c')], Action::Copy, "copy", "copy the incident as text, by the terminal"),
    key("Ctrl-S", &[ctrl('s')], Action::Export, "export", "write incidents to a file here"),
    key("n", &[c('n')], Action::NextMatch, "next", "to the next match (N: the one before)"),
    key("N", &[c('N')], Action::PreviousMatch, "", ""),
    key(
        "j k",
        &[c('j'), code(KeyCode::Down)],
        Action::Move(1),
        "",
        "a line down, up (arrows, too)",
    ),
    key("", &[c('k'), code(KeyCode::Up)], Action::Move(-1), "", ""),
    key("PgDn PgUp", &[code(KeyCode::PageDown)], Action::Pages(1), "", "a page down, up"),
    key("", &[code(KeyCode::PageUp)], Action::Pages(-1), "", ""),
    key(
        "g G",
        &[c('g'), code(KeyCode::Home)],
        Action::First,
        "",
        "to the first, last line (Home, End)",
    ),
    key("", &[c('G'), code(KeyCode::End)], Action::Last, "", ""),
    key("", &[code(KeyCode::BackTab)], Action::PreviousPane, "", ""),
    key(
        "+ - 0 h l",
        &[c('+'), c('=')],
        Action::Zoom(true),
        "",
        "timeline closer, wider, as at first, earlier, later (arrows)",
    ),
    key("", &[c('-'), c('_')], Action::Zoom(false), "", ""),
    key("", &[c('0')], Action::Fit, "", ""),
    key("", &[c('h'), code(KeyCode::Left)], Action::Pan(false), "", ""),
    key("", &[c('l'), code(KeyCode::Right)], Action::Pan(true), "", ""),
    key("Esc", &[code(KeyCode::Esc)], Action::Back, "", "leave page, search, pane, filter, group"),
];

/// Whether this ends the program wherever it is.
#[must_use]
pub fn interrupts(event: KeyEvent) -> bool {
    pressed(event) == Some(INTERRUPT)
}

/// What a key press does, if anything.
#[must_use]
pub fn action(event: KeyEvent) -> Option<Action> {
    let key = pressed(event)?;
    KEYS.iter().find(|binding| binding.keys.contains(&key)).map(|binding| binding.action)
}

/// The key that was pressed; none if it was released, or has a modifier that means nothing here.
fn pressed(event: KeyEvent) -> Option<Key> {
    let other = KeyModifiers::ALT | KeyModifiers::SUPER | KeyModifiers::META | KeyModifiers::HYPER;
    if event.kind == KeyEventKind::Release || event.modifiers.intersects(other) {
        return None;
    }
    Some(Key { code: event.code, control: event.modifiers.contains(KeyModifiers::CONTROL) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_has_two_meanings() {
        let mut seen = Vec::new();
        for key in KEYS.iter().flat_map(|binding| binding.keys) {
            assert!(!seen.contains(key), "{key:?}");
            seen.push(*key);
        }
    }

    #[test]
    fn keys_act() {
        let with = |code, modifiers| action(KeyEvent::new(code, modifiers));
        for (code, wanted) in [
            (KeyCode::Char('q'), Some(Action::Quit)),
            (KeyCode::F(1), Some(Action::Page(Page::Help))),
            (KeyCode::Up, Some(Action::Move(-1))),
            (KeyCode::End, Some(Action::Last)),
            (KeyCode::Char('s'), Some(Action::Sort)),
            (KeyCode::Char('x'), None),
        ] {
            assert_eq!(with(code, KeyModifiers::NONE), wanted);
        }
        assert_eq!(with(KeyCode::Char('G'), KeyModifiers::SHIFT), Some(Action::Last));
        assert_eq!(with(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(with(KeyCode::Char('s'), KeyModifiers::CONTROL), Some(Action::Export));
        assert_eq!(with(KeyCode::Char('q'), KeyModifiers::CONTROL), None);
        assert_eq!(with(KeyCode::Char('q'), KeyModifiers::ALT), None);
    }
}
