//! What the user did with what came in: selection, focus, search, pause.

use super::{
    input::{self, Action},
    live::Live,
    model::{Group, Model},
};
use crate::{
    lines::{Incident, Line},
    output::name,
};
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use std::collections::{HashSet, VecDeque};

/// How many lines a page is.
const PAGE: i32 = 10;
/// How many lines are held back at most; those before are taken in nevertheless.
const HELD: usize = 10_000;
/// How many characters can be searched for.
const SEARCH: usize = 100;

/// A row of the list of incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A story, by its place in the model.
    Story(usize),
    /// An incident of a story, by its id.
    Single(usize, u64),
}

impl Row {
    /// The place of its story.
    #[must_use]
    pub fn story(self) -> usize {
        match self {
            Self::Story(place) | Self::Single(place, _) => place,
        }
    }
}

/// All that is drawn follows from this.
#[expect(clippy::struct_excessive_bools, reason = "each can be on or off whatever the others are")]
pub struct State {
    /// What came in.
    pub model: Model,
    /// Whether to colour.
    pub color: bool,
    /// Whether to draw with nothing but ASCII.
    pub ascii: bool,
    /// Which pane the keys are for; 0 is the list.
    pub focus: usize,
    /// By how many lines the focused pane is scrolled, if it is not the list.
    pub scroll: usize,
    /// Whether the help page is shown.
    pub help: bool,
    /// Whether the newest stays selected.
    pub follow: bool,
    /// Whether lines are held back.
    pub paused: bool,
    /// What is searched for.
    pub search: String,
    /// Whether that is being typed.
    pub typing: bool,
    /// What only a live session has.
    pub live: Option<Live>,
    /// How the input ended, once it has.
    pub ended: Option<String>,
    /// Whether to end.
    pub quit: bool,
    selected: Option<Row>,
    expanded: HashSet<usize>,
    held: VecDeque<Line>,
    panes: usize,
}

impl State {
    /// Nothing came in yet; there are so many panes.
    #[must_use]
    pub fn new(panes: usize, color: bool) -> Self {
        Self {
            model: Model::default(),
            color,
            ascii: false,
            focus: 0,
            scroll: 0,
            help: false,
            follow: true,
            paused: false,
            search: String::new(),
            typing: false,
            live: None,
            ended: None,
            quit: false,
            selected: None,
            expanded: HashSet::new(),
            held: VecDeque::new(),
            panes,
        }
    }

    /// Takes a line.
    pub fn add(&mut self, line: Line) {
        if let (Some(live), Line::Incident(incident)) = (&mut self.live, &line) {
            live.settle(incident);
        }
        if !self.paused {
            return self.model.add(line);
        }
        self.held.push_back(line);
        if self.held.len() > HELD
            && let Some(line) = self.held.pop_front()
        {
            self.model.add(line);
        }
    }

    /// How many lines are held back.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The rows of the list, the newest story first, and in each the newest incident.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for place in self.model.newest_first() {
            rows.push(Row::Story(place));
            if self.expanded.contains(&place)
                && let Some(group) = self.model.group(place)
            {
                rows.extend(group.kept.iter().rev().map(|one| Row::Single(place, one.id)));
            }
        }
        rows
    }

    /// Where the selected one is among `rows`; the story of one that was folded, else the first.
    #[must_use]
    pub fn selected(&self, rows: &[Row]) -> usize {
        let at = |wanted: Row| rows.iter().position(|row| *row == wanted);
        let known = self.selected.filter(|_| !self.follow);
        known.and_then(|row| at(row).or_else(|| at(Row::Story(row.story())))).unwrap_or(0)
    }

    /// The incident of a row; of a story, the latest.
    #[must_use]
    pub fn incident(&self, row: Row) -> Option<(&Group, &Incident)> {
        let group = self.model.group(row.story())?;
        let incident = match row {
            Row::Story(_) => group.kept.back(),
            Row::Single(_, id) => group.kept.iter().find(|incident| incident.id == id),
        };
        Some((group, incident?))
    }

    /// The incident that the panes are about.
    #[must_use]
    pub fn shown(&self) -> Option<(&Group, &Incident)> {
        let rows = self.rows();
        self.incident(*rows.get(self.selected(&rows))?)
    }

    /// Whether an expanded story.
    #[must_use]
    pub fn is_expanded(&self, place: usize) -> bool {
        self.expanded.contains(&place)
    }

    /// Takes a key press.
    pub fn key(&mut self, event: KeyEvent) {
        if self.typing && !input::interrupts(event) {
            return self.type_search(event);
        }
        if let Some(action) = input::action(event) {
            self.act(action);
        }
    }

    fn type_search(&mut self, event: KeyEvent) {
        match event.code {
            KeyCode::Enter => {
                self.typing = false;
                self.find(1);
            }
            KeyCode::Esc => {
                self.typing = false;
                self.search.clear();
            }
            KeyCode::Backspace => {
                self.search.pop();
            }
            KeyCode::Char(c) if self.search.len() < SEARCH => self.search.push(c),
            _ => {}
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Quit => self.quit = true,
            Action::Help => self.help = !self.help,
            Action::Back => self.back(),
            Action::Toggle => self.toggle(),
            Action::NextPane => self.focus_on((self.focus + 1) % self.panes),
            Action::Move(lines) => self.step(lines),
            Action::Page(pages) => self.step(pages * PAGE),
            Action::First => self.step(i32::MIN),
            Action::Last => self.step(i32::MAX),
            Action::Search => {
                self.search.clear();
                self.typing = true;
            }
            Action::NextMatch => self.find(1),
            Action::PreviousMatch => self.find(-1),
            Action::Follow => {
                self.hold_selection();
                self.follow = !self.follow;
            }
            Action::Pause => {
                self.paused = !self.paused;
                if !self.paused {
                    for line in std::mem::take(&mut self.held) {
                        self.model.add(line);
                    }
                }
            }
        }
    }

    fn back(&mut self) {
        let rows = self.rows();
        let place = rows.get(self.selected(&rows)).map(|row| row.story());
        if self.help {
            self.help = false;
        } else if !self.search.is_empty() {
            self.search.clear();
        } else if self.focus > 0 {
            self.focus_on(0);
        } else if let Some(place) = place
            && self.expanded.remove(&place)
        {
            self.select(Row::Story(place));
        }
    }

    fn toggle(&mut self) {
        let rows = self.rows();
        let Some(row) = rows.get(self.selected(&rows)) else { return };
        let place = row.story();
        self.select(Row::Story(place));
        if !self.expanded.remove(&place) {
            self.expanded.insert(place);
        }
    }

    fn focus_on(&mut self, pane: usize) {
        self.focus = pane;
        self.scroll = 0;
    }

    /// Selects a row, which ends following.
    fn select(&mut self, row: Row) {
        self.selected = Some(row);
        self.follow = false;
        self.scroll = 0;
    }

    /// Notes what is selected, so that it stays so.
    fn hold_selection(&mut self) {
        let rows = self.rows();
        self.selected = rows.get(self.selected(&rows)).copied();
    }

    fn step(&mut self, lines: i32) {
        let moved = |at: usize| at.saturating_add_signed(lines as isize);
        if self.focus > 0 {
            self.scroll = moved(self.scroll);
            return;
        }
        let rows = self.rows();
        let to = moved(self.selected(&rows)).min(rows.len().saturating_sub(1));
        if let Some(row) = rows.get(to) {
            self.select(*row);
        }
    }

    /// Selects the next row that matches, or the one before, round the end.
    fn find(&mut self, direction: isize) {
        if self.search.is_empty() {
            return;
        }
        let rows = self.rows();
        let from = self.selected(&rows);
        let count = rows.len();
        let found = (1..=count)
            .map(|step| if direction > 0 { from + step } else { from + count - step } % count)
            .find(|at| self.matches(rows[*at]));
        if let Some(at) = found {
            self.select(rows[at]);
        }
    }

    /// Whether a row has what is searched for, in whatever case.
    #[must_use]
    pub fn matches(&self, row: Row) -> bool {
        let Some((_, incident)) = self.incident(row) else { return false };
        let wanted = self.search.to_lowercase();
        let verdict = name(incident.verdict.kind);
        let holders = incident.holders.iter().map(|holder| holder.comm.as_deref());
        let mut texts = [
            Some(verdict.as_str()),
            incident.path.as_deref(),
            incident.file.path.as_deref(),
            incident.victim.comm.as_deref(),
            incident.victim.exe.as_deref(),
        ]
        .into_iter()
        .chain(holders)
        .flatten();
        texts.any(|text| text.to_lowercase().contains(&wanted))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;
    use ratatui::crossterm::event::KeyModifiers;

    /// Every sample came in.
    fn state() -> State {
        let mut state = State::new(4, false);
        for line in samples::every_line() {
            state.add(line);
        }
        state
    }

    /// Presses keys, one after the other.
    fn press(state: &mut State, keys: &[KeyCode]) {
        for code in keys {
            state.key(KeyEvent::new(*code, KeyModifiers::NONE));
        }
    }

    /// Presses the keys of characters.
    fn typed(state: &mut State, text: &str) {
        for c in text.chars() {
            press(state, &[KeyCode::Char(c)]);
        }
    }

    /// The id of the incident shown.
    fn shown(state: &State) -> u64 {
        state.shown().unwrap().1.id
    }

    /// One more race.
    fn arrives(state: &mut State, id: u64) {
        let mut incident = samples::race();
        incident.id = id;
        state.add(incident.into());
    }

    #[test]
    fn the_newest_is_shown_until_another_is_chosen() {
        let mut state = state();
        assert_eq!(shown(&state), 6);
        arrives(&mut state, 7);
        assert_eq!(shown(&state), 7);
        typed(&mut state, "j");
        assert_eq!(shown(&state), 6);
        arrives(&mut state, 8);
        assert_eq!(shown(&state), 6);
        typed(&mut state, "f");
        assert_eq!(shown(&state), 8);
        typed(&mut state, "f");
        arrives(&mut state, 9);
        assert_eq!(shown(&state), 9, "the story stays selected, and shows its latest");
    }

    #[test]
    fn moving_stops_at_both_ends() {
        let mut state = state();
        for (keys, id) in [("G", 2), ("j", 2), ("k", 3), ("g", 6), ("k", 6)] {
            typed(&mut state, keys);
            assert_eq!(shown(&state), id, "{keys}");
        }
        press(&mut state, &[KeyCode::PageDown]);
        assert_eq!(shown(&state), 2);
        press(&mut state, &[KeyCode::Home, KeyCode::Down]);
        assert_eq!(shown(&state), 5);
        press(&mut State::new(4, false), &[KeyCode::Down, KeyCode::End, KeyCode::Enter]);
    }

    #[test]
    fn a_story_opens_and_closes() {
        let mut state = state();
        press(&mut state, &[KeyCode::Down, KeyCode::Enter]);
        assert_eq!(state.rows().len(), 7);
        press(&mut state, &[KeyCode::Down, KeyCode::Down]);
        assert_eq!(shown(&state), 1);
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((state.rows().len(), shown(&state)), (5, 5));
    }

    #[test]
    fn search_goes_round_and_is_typed_letter_by_letter() {
        let mut state = state();
        typed(&mut state, "/LEAqk");
        press(&mut state, &[KeyCode::Backspace, KeyCode::Backspace]);
        typed(&mut state, "k");
        assert!(state.typing && !state.quit);
        press(&mut state, &[KeyCode::Enter]);
        assert_eq!(shown(&state), 2);
        typed(&mut state, "n");
        assert_eq!(shown(&state), 2);
        typed(&mut state, "/demo");
        press(&mut state, &[KeyCode::Enter]);
        assert_eq!(shown(&state), 6);
        typed(&mut state, "N");
        assert_eq!(shown(&state), 2);
        typed(&mut state, "n/nowhere");
        press(&mut state, &[KeyCode::Enter]);
        assert_eq!(shown(&state), 6);
    }

    #[test]
    fn what_comes_in_during_a_pause_is_taken_after_it() {
        let mut state = state();
        typed(&mut state, " ");
        arrives(&mut state, 7);
        assert_eq!((state.model.incidents, state.held()), (6, 1));
        typed(&mut state, " ");
        assert_eq!((state.model.incidents, state.held()), (7, 0));
        typed(&mut state, " ");
        for id in 8..=HELD as u64 + 10 {
            arrives(&mut state, id);
        }
        assert_eq!((state.model.incidents, state.held()), (10, HELD));
    }

    #[test]
    fn panes_take_the_keys_in_turn() {
        let mut state = state();
        press(&mut state, &[KeyCode::Tab]);
        typed(&mut state, "jj");
        assert_eq!((state.focus, state.scroll, shown(&state)), (1, 2, 6));
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((state.focus, state.scroll), (0, 0));
        press(&mut state, &[KeyCode::Tab; 4]);
        assert_eq!(state.focus, 0);
    }

    #[test]
    fn ctrl_c_ends_it_even_while_typing() {
        let mut state = state();
        typed(&mut state, "/q");
        assert!(!state.quit);
        state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(state.quit);
    }
}
