//! The table of keys, which the footer and the help page also show.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// A page that is shown instead of the panes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The keys.
    Help,
    /// Totals of all incidents.
    Statistics,
    /// What the traced command writes.
    Output,
}

impl Page {
    /// Whether its end is shown first.
    #[must_use]
    pub fn from_end(self) -> bool {
        self == Self::Output
    }
}

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Close the page, or end the program.
    Quit,
    /// End the program.
    Interrupt,
    /// Show a page, or close it.
    Page(Page),
    /// Close what was opened last.
    Back,
    /// Show or hide the incidents of a group, or go to the chain of an incident.
    Toggle,
    /// The next pane.
    NextPane,
    /// The previous pane.
    PreviousPane,
    /// That pane.
    Focus(usize),
    /// Right (or left): open (or close) the group; the timeline moves.
    Side(bool),
    /// Move down by lines, or up if negative.
    Move(isize),
    /// Move down by pages, or up if negative.
    Pages(isize),
    /// Move down by half pages, or up if negative.
    HalfPages(isize),
    /// To the first line.
    First,
    /// To the last line.
    Last,
    /// Zoom the timeline in, or out.
    Zoom(bool),
    /// Move the timeline later, or earlier.
    Pan(bool),
    /// Reset the timeline.
    Fit,
    /// Type a search.
    Search,
    /// To the next match.
    NextMatch,
    /// To the previous match.
    PreviousMatch,
    /// Type a filter.
    Filter,
    /// Show only one verdict, then the next one, then all.
    Verdict,
    /// Show only unexplained incidents, or all.
    Unexplained,
    /// Hide near misses, or show them.
    NearMisses,
    /// Sort by the next criterion.
    Sort,
    /// Reverse the order.
    Invert,
    /// Keep the newest incident selected, or stop that.
    Follow,
    /// Pause, or continue.
    Pause,
    /// Copy the incident to the clipboard.
    Copy,
    /// Ask which incidents to export.
    Export,
}

/// A key, with or without Ctrl.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    code: KeyCode,
    control: bool,
}

/// The key of a character.
const fn c(c: char) -> Key {
    code(KeyCode::Char(c))
}

/// The key of a character, with Ctrl.
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
    /// What the keys do, for the help page.
    pub help: &'static str,
    /// The same in one word, for the footer; empty if the footer does not show it.
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

/// Makes a row.
const fn key(
    name: &'static str,
    keys: &'static [Key],
    action: Action,
    word: &'static str,
    help: &'static str,
) -> Binding {
    Binding { name, help, word, keys, action }
}

/// Ends the program, even at a prompt.
const INTERRUPT: Key = ctrl('c');

/// All keys, in the order of the footer, which shows as many as fit.
pub const KEYS: &[Binding] = &[
    key(
        "q",
        &[c('q'), code(KeyCode::F(10))],
        Action::Quit,
        "quit",
        "close the page, or quit (also F10); Ctrl-C quits, Ctrl-Z suspends",
    ),
    key("", &[INTERRUPT], Action::Interrupt, "", ""),
    key(
        "?",
        &[c('?'), code(KeyCode::F(1))],
        Action::Page(Page::Help),
        "help",
        "show or close this page (also F1)",
    ),
    key(
        "Enter",
        &[code(KeyCode::Enter)],
        Action::Toggle,
        "open",
        "open or close a group (also Right, Left); go to an incident's chain",
    ),
    key(
        "Tab",
        &[code(KeyCode::Tab)],
        Action::NextPane,
        "pane",
        "next pane; it gets more room (also Shift-Tab, 1 to 4)",
    ),
    key(
        "/ n N",
        &[c('/'), code(KeyCode::F(3))],
        Action::Search,
        "search",
        "search all that is shown (also F3); next, previous match",
    ),
    key("", &[c('n')], Action::NextMatch, "", ""),
    key("", &[c('N')], Action::PreviousMatch, "", ""),
    key(
        "\\",
        &[c('\\'), code(KeyCode::F(4))],
        Action::Filter,
        "filter",
        "fuzzy filter (also F4): 'exact ^prefix suffix$ !without",
    ),
    key(
        "s i",
        &[c('s'), code(KeyCode::F(6))],
        Action::Sort,
        "sort",
        "sort by newest, count, longest wait, verdict, path; i reverses",
    ),
    key("", &[c('i')], Action::Invert, "", ""),
    key("t", &[c('t')], Action::Page(Page::Statistics), "stats", "statistics of all incidents"),
    key("o", &[c('o')], Action::Page(Page::Output), "output", "output of the command of run"),
    key("Space", &[c(' ')], Action::Pause, "pause", "pause: new incidents wait until you continue"),
    key("f", &[c('f')], Action::Follow, "follow", "follow: keep the newest incident selected"),
    key(
        "v",
        &[c('v')],
        Action::Verdict,
        "verdict",
        "show only one verdict; again: the next one, then all",
    ),
    key(
        "u m",
        &[c('u')],
        Action::Unexplained,
        "unexplained",
        "show only unexplained incidents, or all; m hides near misses",
    ),
    key("", &[c('m')], Action::NearMisses, "", ""),
    key(
        "c",
        &[c('c')],
        Action::Copy,
        "copy",
        "copy the incident to the terminal's clipboard (OSC 52)",
    ),
    key(
        "Ctrl-S",
        &[ctrl('s')],
        Action::Export,
        "export",
        "export incidents to a file in the current directory",
    ),
    key(
        "j k",
        &[c('j'), code(KeyCode::Down), ctrl('n')],
        Action::Move(1),
        "",
        "one line down, up (also arrows)",
    ),
    key("", &[c('k'), code(KeyCode::Up), ctrl('p')], Action::Move(-1), "", ""),
    key(
        "PgDn PgUp",
        &[code(KeyCode::PageDown), ctrl('f')],
        Action::Pages(1),
        "",
        "one page down, up; half a page: Ctrl-D, Ctrl-U",
    ),
    key("", &[code(KeyCode::PageUp), ctrl('b')], Action::Pages(-1), "", ""),
    key("", &[ctrl('d')], Action::HalfPages(1), "", ""),
    key("", &[ctrl('u')], Action::HalfPages(-1), "", ""),
    key(
        "g G",
        &[c('g'), code(KeyCode::Home)],
        Action::First,
        "",
        "first, last line (also Home, End)",
    ),
    key("", &[c('G'), code(KeyCode::End)], Action::Last, "", ""),
    key("", &[code(KeyCode::BackTab)], Action::PreviousPane, "", ""),
    key("", &[c('1')], Action::Focus(0), "", ""),
    key("", &[c('2')], Action::Focus(1), "", ""),
    key("", &[c('3')], Action::Focus(2), "", ""),
    key("", &[c('4')], Action::Focus(3), "", ""),
    key(
        "+ - 0 < >",
        &[c('+'), c('=')],
        Action::Zoom(true),
        "",
        "zoom the timeline in, out, reset; earlier, later (also Left, Right)",
    ),
    key("", &[c('-'), c('_')], Action::Zoom(false), "", ""),
    key("", &[c('0')], Action::Fit, "", ""),
    key("", &[c('<'), c(',')], Action::Pan(false), "", ""),
    key("", &[c('>'), c('.')], Action::Pan(true), "", ""),
    key("", &[c('h'), code(KeyCode::Left)], Action::Side(false), "", ""),
    key("", &[c('l'), code(KeyCode::Right)], Action::Side(true), "", ""),
    key(
        "Esc",
        &[code(KeyCode::Esc)],
        Action::Back,
        "",
        "back: close the page, search, pane, filter or group",
    ),
];

/// Whether this key ends the program, even at a prompt.
#[must_use]
pub fn interrupts(event: KeyEvent) -> bool {
    pressed(event) == Some(INTERRUPT)
}

/// What a key press does.
#[must_use]
pub fn action(event: KeyEvent) -> Option<Action> {
    let key = pressed(event)?;
    KEYS.iter().find(|binding| binding.keys.contains(&key)).map(|binding| binding.action)
}

/// The key that was pressed; `None` for a release, or with a modifier that is not used here.
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
    fn no_key_has_two_actions() {
        let mut seen = Vec::new();
        for key in KEYS.iter().flat_map(|binding| binding.keys) {
            assert!(!seen.contains(key), "{key:?}");
            seen.push(*key);
        }
    }

    #[test]
    fn keys_lead_to_their_actions() {
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
        assert_eq!(with(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Interrupt));
        assert_eq!(with(KeyCode::Char('u'), KeyModifiers::CONTROL), Some(Action::HalfPages(-1)));
        assert_eq!(with(KeyCode::Char('s'), KeyModifiers::CONTROL), Some(Action::Export));
        assert_eq!(with(KeyCode::Char('q'), KeyModifiers::CONTROL), None);
        assert_eq!(with(KeyCode::Char('q'), KeyModifiers::ALT), None);
    }
}
