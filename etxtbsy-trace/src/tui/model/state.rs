//! The state of the view.

use super::prompt;
use crate::timeline::{
    lanes,
    zoom::{Extent, Span, Zoom},
};
use crate::tui::{
    input::keys::{self, Action, Page},
    model::{
        effect::Effect,
        export::Scope,
        filter::Filter,
        incidents::{Group, Kept, Model},
        list::{List, Row},
        live::{Live, Probed, Probes},
        prompt::Typed,
        sort::By,
    },
};
use crate::{
    event::{Incident, Line},
    output::{Output as _, look::Look, text::Text},
};
use ratatui::{
    crossterm::event::{KeyCode, KeyEvent},
    layout::Rect,
};
use std::collections::VecDeque;

/// The most lines that wait during a pause; older ones are shown despite the pause.
const PAUSED_LINES: usize = 10_000;

/// What the user types at the bottom of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// The text to search for.
    Search,
    /// The filter.
    Filter,
    /// The scope of an export.
    Export,
    /// Whether to quit although nothing was saved.
    Quit,
}

/// The number of panes: the list, the chain, the timeline, the verdict.
pub const PANES: usize = 4;
/// The chain.
const CHAIN: usize = 1;

/// The visible part of the focused pane, or of the page, when it was last drawn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Room {
    /// The number of visible lines.
    pub height: usize,
    /// The number of lines by which it can be scrolled.
    pub most: usize,
    /// Where the panes are, and what of them can be clicked.
    pub panes: Panes,
}

/// Where the panes were drawn; all empty if a page was.
#[derive(Clone, Copy, Debug, Default)]
pub struct Panes {
    /// The panes with their titles.
    pub areas: [Rect; PANES],
    /// The number of lines by which each can be scrolled.
    pub most: [usize; PANES],
    /// The rows of the list.
    pub rows: Rect,
    /// The index of the first one.
    pub top: usize,
    /// The column headers.
    pub heads: Option<Heads>,
    /// The scale of the timeline.
    pub scale: Option<Scale>,
}

/// The column headers that sort the list.
#[derive(Clone, Copy, Debug)]
pub struct Heads {
    /// Their line.
    pub y: u16,
    /// From which column to which, and by what each sorts.
    pub columns: [(u16, u16, By); HEADS],
}

/// The number of columns of the list that sort it.
pub const HEADS: usize = 5;

/// The part of the timeline that is to scale.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Its first column.
    pub x: u16,
    /// The number of its columns.
    pub columns: u16,
    /// Its period.
    pub span: Span,
}

/// The state of the view, which determines all that is drawn.
#[expect(clippy::struct_excessive_bools, reason = "the flags are independent")]
pub struct State {
    /// What the view received.
    pub model: Model,
    /// Whether to colour.
    pub color: bool,
    /// Whether to draw only ASCII.
    pub ascii: bool,
    /// The focused pane; 0 is the list.
    pub focus: usize,
    /// The scroll position of the page, or of the focused pane unless that is the list.
    pub scroll: usize,
    /// The scroll position of one more pane, which the wheel moved.
    pub scrolled: Option<(usize, usize)>,
    /// The visible part when it was last drawn.
    pub room: Room,
    /// The page that is shown instead of the panes.
    pub page: Option<Page>,
    /// Whether new lines wait.
    pub paused: bool,
    /// The visible part of the timeline.
    pub zoom: Zoom,
    /// What the user types, if anything.
    pub prompt: Option<Prompt>,
    /// A message in the footer, until the next key.
    pub notice: Option<String>,
    /// The live session, if it is one.
    pub live: Option<Live>,
    /// How the input ended, once it has.
    pub ended: Option<String>,
    /// Whether the view closes.
    pub quit: bool,
    /// What is read before each frame.
    pub probes: Probes,
    /// What was read.
    pub probed: Probed,
    /// Whether the mouse is used.
    pub mouse: bool,
    /// Whether quitting loses nothing that was not shown before: a recording, or one is written.
    pub is_saved: bool,
    filter: Filter,
    pub(super) list: List,
    /// The column at which the timeline is dragged.
    pub(super) drag: Option<u16>,
    /// How many incidents there were when all were exported.
    exported: u64,
    /// The failure that the panes showed last: its time, thread and id.
    last_shown: Option<(u64, u32, u64)>,
    paused_lines: VecDeque<Line>,
}

impl State {
    /// A view without lines.
    #[must_use]
    pub fn new(color: bool) -> Self {
        Self {
            model: Model::default(),
            color,
            ascii: false,
            focus: 0,
            scroll: 0,
            scrolled: None,
            room: Room::default(),
            page: None,
            paused: false,
            zoom: Zoom::default(),
            prompt: None,
            notice: None,
            live: None,
            ended: None,
            quit: false,
            probes: Probes::default(),
            probed: Probed::default(),
            mouse: false,
            is_saved: false,
            filter: Filter::default(),
            list: List::default(),
            drag: None,
            exported: 0,
            last_shown: None,
            paused_lines: VecDeque::new(),
        }
    }

    /// Adds a line, or keeps it until the pause ends.
    pub fn add(&mut self, line: Line) {
        if let (Some(live), Line::Incident(incident)) = (&mut self.live, &line) {
            live.remove_pending(incident);
        }
        if !self.paused {
            return self.show(line);
        }
        self.paused_lines.push_back(line);
        if self.paused_lines.len() > PAUSED_LINES
            && let Some(line) = self.paused_lines.pop_front()
        {
            self.show(line);
        }
    }

    fn show(&mut self, line: Line) {
        self.model.add(line, |incident| self.filter.passes(incident));
        self.list.changed();
    }

    /// The number of lines that wait for the end of a pause.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.paused_lines.len()
    }

    /// The end of the displayed time, nanoseconds of CLOCK_MONOTONIC.
    #[must_use]
    pub fn until_ns(&self) -> Option<u64> {
        let now_ns = self.live.as_ref().map(|live| live.now_ns);
        now_ns.max(self.model.latest_ns)
    }

    /// How long tracing has been live, in nanoseconds.
    #[must_use]
    pub fn elapsed_ns(&self) -> Option<u64> {
        if let Some(summary) = &self.model.summary {
            return Some(summary.duration_ns);
        }
        self.until_ns()?.checked_sub(self.model.meta.as_ref()?.time_ns)
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// The list.
    #[must_use]
    pub fn list(&self) -> &List {
        &self.list
    }

    /// The incident that the panes show, and its group unless the incident is pending.
    #[must_use]
    pub fn shown(&self) -> Option<(Option<&Group>, &Incident)> {
        if self.list.follows()
            && let Some(incident) = self.pending().next()
        {
            return Some((None, incident));
        }
        let (group, incident) = self.list.row(&self.model)?.incident(&self.model)?;
        Some((Some(group), incident))
    }

    /// The pending failures, the newest first. None during a pause or with a filter, because a pending
    /// failure has no verdict yet.
    pub fn pending(&self) -> impl Iterator<Item = &Incident> {
        let live = self.live.as_ref().filter(|_| !self.paused && !self.filter.is_on());
        live.into_iter().flat_map(|live| live.pending.iter().rev()).map(|incident| &**incident)
    }

    /// The possible exports: key, name and scope.
    #[must_use]
    pub fn scopes(&self) -> Vec<(char, &'static str, Scope)> {
        let mut scopes = Vec::new();
        if let Some(row) = self.list.row(&self.model) {
            let word = match row {
                Row::Group(_) => "selected group",
                Row::Single(..) => "selected",
            };
            scopes.push(('s', word, Scope::Selected(row)));
        }
        if self.filter.is_on() {
            scopes.push(('f', "filtered", Scope::Filtered));
        }
        scopes.push(('a', "all", Scope::All));
        scopes
    }

    /// Shows another failure from the start: call this after changes, before drawing.
    pub fn refresh(&mut self) {
        let shown = self.shown().map(|(_, it)| (it.time_ns, it.victim.tid, it.id));
        let is_same = match (shown, self.last_shown) {
            // A pending failure has no id yet.
            (Some((time, tid, id)), Some((last_time, last_tid, last_id))) => {
                (time, tid) == (last_time, last_tid) && (id == last_id || last_id == 0)
            }
            (shown, last) => shown == last,
        };
        self.last_shown = shown;
        if !is_same {
            self.zoom = Zoom::default();
            self.scrolled = None;
            if self.page.is_none() {
                self.scroll = 0;
            }
        }
    }

    /// Whether there is nothing to list.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.model.received() == 0 && self.pending().next().is_none()
    }

    /// All incidents that arrived so far were exported.
    pub fn mark_exported(&mut self) {
        self.exported = self.model.incidents;
    }

    /// How many incidents nobody can show again once the view has closed.
    #[must_use]
    pub fn unsaved(&self) -> u64 {
        if self.is_saved { 0 } else { self.model.incidents.saturating_sub(self.exported) }
    }

    /// Handles a key press; returns what needs I/O.
    pub fn key(&mut self, event: KeyEvent) -> Option<Effect> {
        self.notice = None;
        self.refresh();
        let effect = self.press(event);
        self.refresh();
        effect
    }

    fn press(&mut self, event: KeyEvent) -> Option<Effect> {
        if keys::interrupts(event) {
            self.quit = true;
            return None;
        }
        match self.prompt {
            None => self.act(keys::action(event)?),
            Some(Prompt::Search) => {
                self.type_search(event);
                None
            }
            Some(Prompt::Filter) => {
                self.type_filter(event);
                None
            }
            Some(Prompt::Export) => self.choose_export(event),
            Some(Prompt::Quit) => {
                self.answer_quit(event);
                None
            }
        }
    }

    fn type_search(&mut self, event: KeyEvent) {
        let mut text = self.model.search().text().to_owned();
        match prompt::edit(&mut text, event) {
            Typed::Unchanged => {}
            Typed::Changed => self.search_for(&text),
            Typed::Done => {
                self.prompt = None;
                self.find(true);
            }
            Typed::Cancelled => {
                self.prompt = None;
                self.search_for("");
            }
        }
    }

    fn search_for(&mut self, text: &str) {
        self.model.search_for(text);
        self.list.changed();
    }

    /// Whether to quit although incidents were not saved.
    fn answer_quit(&mut self, event: KeyEvent) {
        self.prompt = None;
        match event.code {
            KeyCode::Char('q' | 'y') | KeyCode::Enter | KeyCode::F(10) => self.quit = true,
            KeyCode::Char('s') => self.prompt = Some(Prompt::Export),
            _ => {}
        }
    }

    fn type_filter(&mut self, event: KeyEvent) {
        let mut text = self.filter.text().to_owned();
        let typed = prompt::edit(&mut text, event);
        match typed {
            Typed::Unchanged => {}
            Typed::Changed => self.change_filter(|filter| filter.set_text(&text)),
            Typed::Done => self.prompt = None,
            Typed::Cancelled => {
                self.prompt = None;
                self.change_filter(|filter| filter.set_text(""));
            }
        }
    }

    fn choose_export(&mut self, event: KeyEvent) -> Option<Effect> {
        if event.code == KeyCode::Esc {
            self.prompt = None;
        }
        let scopes = self.scopes();
        let (_, _, scope) = scopes.iter().find(|(key, ..)| event.code == KeyCode::Char(*key))?;
        self.prompt = None;
        Some(Effect::Export(*scope))
    }

    fn act(&mut self, action: Action) -> Option<Effect> {
        match action {
            // The panes are not visible.
            Action::Toggle
            | Action::NextPane
            | Action::PreviousPane
            | Action::Focus(_)
            | Action::Side(_)
            | Action::Zoom(_)
            | Action::Pan(_)
            | Action::Fit
                if self.page.is_some() => {}
            Action::Quit if self.page.is_some() => self.open(None),
            Action::Quit if self.unsaved() > 0 => self.prompt = Some(Prompt::Quit),
            Action::Interrupt | Action::Quit => self.quit = true,
            Action::Page(page) => self.open((self.page != Some(page)).then_some(page)),
            Action::Back => self.back(),
            Action::Toggle => self.enter(),
            Action::NextPane => self.focus_on((self.focus + 1) % PANES),
            Action::PreviousPane => self.focus_on((self.focus + PANES - 1) % PANES),
            Action::Focus(pane) => self.focus_on(pane),
            Action::Side(right) if self.focus > 0 => self.pan(right),
            Action::Side(true) => self.list.right(&self.model),
            Action::Side(false) => self.list.left(&self.model),
            Action::Move(lines) => self.step(lines),
            Action::Pages(pages) => self.step(pages.saturating_mul(self.page_height())),
            Action::HalfPages(halves) => {
                self.step(halves.saturating_mul((self.page_height() / 2).max(1)));
            }
            Action::First => self.step(isize::MIN),
            Action::Last => self.step(isize::MAX),
            Action::Zoom(closer) => {
                if let Some(extent) = self.extent() {
                    self.zoom = self.zoom.zoomed(&extent, closer);
                }
            }
            Action::Pan(later) => self.pan(later),
            Action::Fit => self.zoom = Zoom::default(),
            Action::Search => {
                self.search_for("");
                self.prompt = Some(Prompt::Search);
            }
            Action::NextMatch => self.find(true),
            Action::PreviousMatch => self.find(false),
            Action::Filter => self.prompt = Some(Prompt::Filter),
            Action::Verdict => {
                let occurring = self.model.statistics.verdicts.keys().copied();
                let next = occurring.filter(|kind| Some(*kind) > self.filter.verdict).min();
                self.change_filter(|filter| filter.verdict = next);
            }
            Action::Unexplained => {
                self.change_filter(|filter| filter.unexplained = !filter.unexplained);
            }
            Action::NearMisses => {
                self.change_filter(|filter| filter.no_near_misses = !filter.no_near_misses);
            }
            Action::Sort => self.list.sort(),
            Action::Invert => self.list.invert(),
            Action::Follow => self.list.toggle_follow(&self.model),
            Action::Pause => self.pause(),
            Action::Copy => return self.copy(),
            Action::Export if self.model.kept() > 0 => self.prompt = Some(Prompt::Export),
            Action::Export => self.notice = Some("no incident to export".to_owned()),
        }
        None
    }

    /// Opens or closes the selected group, or goes to the chain of the selected incident.
    fn enter(&mut self) {
        match self.list.row(&self.model).filter(|_| self.focus == 0) {
            Some(Row::Group(_)) => self.list.toggle(&self.model),
            Some(Row::Single(..)) => self.focus_on(CHAIN),
            None => {}
        }
    }

    fn pan(&mut self, later: bool) {
        if let Some(extent) = self.extent() {
            self.zoom = self.zoom.panned(&extent, later);
        }
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if !self.paused {
            for line in std::mem::take(&mut self.paused_lines) {
                self.show(line);
            }
        }
    }

    /// The current time, nanoseconds of CLOCK_MONOTONIC, if the incident is pending.
    #[must_use]
    pub fn now_ns(&self, incident: &Incident) -> Option<u64> {
        let live = self.live.as_ref()?;
        live.is_pending(incident).then_some(live.now_ns)
    }

    /// The periods that the timeline can show of the incident shown.
    pub(super) fn extent(&self) -> Option<Extent> {
        let (_, incident) = self.shown()?;
        Some(lanes::extent(&lanes::lanes(incident, self.now_ns(incident))).0)
    }

    fn back(&mut self) {
        if self.page.is_some() {
            self.open(None);
        } else if !self.model.search().is_empty() {
            self.search_for("");
        } else if self.focus > 0 {
            self.focus_on(0);
        } else if self.filter.is_on() {
            self.change_filter(|filter| *filter = Filter::default());
        } else {
            self.list.close(&self.model);
        }
    }

    /// Changes the filter.
    fn change_filter(&mut self, change: impl FnOnce(&mut Filter)) {
        change(&mut self.filter);
        self.model.apply_filter(|incident| self.filter.passes(incident));
        self.list.changed();
    }

    fn open(&mut self, page: Option<Page>) {
        self.page = page;
        self.scroll = 0;
    }

    pub(super) fn focus_on(&mut self, pane: usize) {
        if pane == self.focus {
            return;
        }
        self.focus = pane;
        let scrolled = self.scrolled.filter(|(scrolled, _)| *scrolled == pane);
        self.scroll = scrolled.map_or(0, |(_, lines)| lines);
        self.scrolled = None;
    }

    /// The lines by which a page key moves: one line stays visible.
    fn page_height(&self) -> isize {
        self.room.height.saturating_sub(1).max(1).cast_signed()
    }

    pub(super) fn step(&mut self, lines: isize) {
        if self.focus > 0 || self.page.is_some() {
            let most = self.room.most;
            let from_end = self.page.is_some_and(Page::from_end);
            let lines = if from_end { lines.saturating_neg() } else { lines };
            self.scroll = self.scroll.min(most).saturating_add_signed(lines).min(most);
        } else {
            self.list.step(&self.model, lines);
        }
    }

    /// Selects the next or previous row that matches.
    fn find(&mut self, forward: bool) {
        let wanted = self.model.search().text();
        if !wanted.is_empty() && !self.list.find(&self.model, forward) {
            self.notice = Some(format!("not found: {wanted}"));
        }
    }

    /// The incident shown, as text.
    fn copy(&self) -> Option<Effect> {
        let (group, incident) = self.shown()?;
        let row = self.list.row(&self.model).filter(|_| group.is_some());
        let kept = row.and_then(|row| row.kept(&self.model)).map(|(_, kept)| kept);
        let line = kept.map_or_else(|| Line::Incident(Box::new(incident.clone())), Kept::line);
        let mut text = Vec::new();
        // Writing to a vector does not fail.
        let look = Look { verbose: true, ..Look::PLAIN };
        Text::new(&mut text, look).line(&line).ok()?;
        let text = String::from_utf8(text).ok()?;
        let what = match line {
            Line::NearMiss(_) => "near miss".to_owned(),
            _ => format!("#{}", incident.id),
        };
        Some(Effect::Copy { what, text })
    }
}

#[cfg(test)]
impl State {
    /// A view that received these lines.
    pub(in crate::tui) fn showing(lines: Vec<Line>, color: bool) -> Self {
        let mut state = Self::new(color);
        for line in lines {
            state.add(line);
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{event::VerdictKind, output::samples};
    use ratatui::crossterm::event::KeyModifiers;

    /// A view with every sample.
    fn state() -> State {
        State::showing(samples::no_near_misses(), false)
    }

    /// Presses keys that need no I/O.
    fn press(state: &mut State, keys: &[KeyCode]) {
        for code in keys {
            assert_eq!(state.key(KeyEvent::new(*code, KeyModifiers::NONE)), None);
        }
    }

    /// Presses a key with Ctrl.
    fn control(state: &mut State, c: char) -> Option<Effect> {
        state.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL))
    }

    /// The number of rows of the list.
    fn rows(state: &State) -> usize {
        state.list.rows(&state.model).len()
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

    /// Adds another race.
    fn add_race(state: &mut State, id: u64) {
        let mut incident = samples::race();
        incident.id = id;
        state.add(incident.into());
    }

    #[test]
    fn the_newest_is_shown_until_another_is_chosen() {
        let mut state = state();
        assert_eq!(shown(&state), 6);
        add_race(&mut state, 7);
        assert_eq!(shown(&state), 7);
        typed(&mut state, "j");
        assert_eq!(shown(&state), 6);
        add_race(&mut state, 8);
        assert_eq!(shown(&state), 6);
        typed(&mut state, "f");
        assert_eq!(shown(&state), 8);
        typed(&mut state, "f");
        add_race(&mut state, 9);
        assert_eq!(shown(&state), 9, "the group stays selected, and shows its latest");
    }

    #[test]
    fn the_selection_stops_at_both_ends() {
        let mut state = state();
        for (keys, id) in [("G", 2), ("j", 2), ("k", 3), ("g", 6), ("k", 6)] {
            typed(&mut state, keys);
            assert_eq!(shown(&state), id, "{keys}");
        }
        state.room = Room { height: 4, ..Room::default() };
        for (key, id) in [(KeyCode::PageDown, 3), (KeyCode::PageDown, 2), (KeyCode::PageUp, 5)] {
            press(&mut state, &[key]);
            assert_eq!(shown(&state), id);
        }
        press(&mut state, &[KeyCode::Home, KeyCode::Down]);
        assert_eq!(shown(&state), 5);
        state.room.height = 5;
        control(&mut state, 'd');
        assert_eq!(shown(&state), 3);
        control(&mut state, 'u');
        assert_eq!(shown(&state), 5);
        press(&mut State::new(false), &[KeyCode::Down, KeyCode::End, KeyCode::Enter]);
    }

    #[test]
    fn a_group_opens_and_closes() {
        let mut state = state();
        press(&mut state, &[KeyCode::Down, KeyCode::Enter]);
        assert_eq!(rows(&state), 7);
        press(&mut state, &[KeyCode::Down, KeyCode::Down]);
        assert_eq!(shown(&state), 1);
        press(&mut state, &[KeyCode::Enter, KeyCode::Enter]);
        assert_eq!((rows(&state), state.focus), (7, 1), "an incident leads to its chain");
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((rows(&state), state.focus), (7, 0));
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((rows(&state), shown(&state)), (5, 5));
    }

    #[test]
    fn a_search_is_typed_and_wraps_around() {
        let mut state = state();
        typed(&mut state, "/LEAqk");
        press(&mut state, &[KeyCode::Backspace, KeyCode::Backspace]);
        typed(&mut state, "k");
        assert!(state.prompt == Some(Prompt::Search) && !state.quit);
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
        assert_eq!(state.notice.as_deref(), Some("not found: nowhere"));
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((state.notice.as_deref(), state.model.search().text()), (None, ""));
    }

    #[test]
    fn lines_that_arrive_during_a_pause_are_shown_after_it() {
        let mut state = state();
        typed(&mut state, " ");
        add_race(&mut state, 7);
        assert_eq!((state.model.incidents, state.waiting()), (6, 1));
        typed(&mut state, " ");
        assert_eq!((state.model.incidents, state.waiting()), (7, 0));
        typed(&mut state, " ");
        for id in 8..=PAUSED_LINES as u64 + 10 {
            add_race(&mut state, id);
        }
        assert_eq!((state.model.incidents, state.waiting()), (10, PAUSED_LINES));
    }

    #[test]
    fn the_focused_pane_gets_the_keys() {
        let mut state = state();
        press(&mut state, &[KeyCode::Tab]);
        state.room = Room { height: 5, most: 7, ..Room::default() };
        for (keys, scroll) in [("jj", 2), ("G", 7), ("jk", 6), ("g", 0)] {
            typed(&mut state, keys);
            assert_eq!((state.focus, state.scroll, shown(&state)), (1, scroll, 6));
        }
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((state.focus, state.scroll), (0, 0));
        press(&mut state, &[KeyCode::Tab; 4]);
        assert_eq!(state.focus, 0);
        press(&mut state, &[KeyCode::BackTab]);
        assert_eq!(state.focus, 3);
    }

    #[test]
    fn the_timeline_can_be_zoomed_from_every_pane() {
        let mut state = state();
        typed(&mut state, "k");
        for (keys, fit) in [("+", false), ("-", true), ("=>", false), ("0", true), ("<", true)] {
            typed(&mut state, keys);
            assert_eq!(state.zoom == Zoom::default(), fit, "{keys}");
        }
        press(&mut State::new(false), &[KeyCode::Char('+'), KeyCode::Left]);
    }

    #[test]
    fn ctrl_c_quits_even_at_a_prompt() {
        let mut state = state();
        typed(&mut state, "/q");
        assert!(!state.quit);
        state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
        assert!(state.quit);
    }

    #[test]
    fn quitting_asks_once_if_incidents_were_not_saved() {
        let mut state = state();
        typed(&mut state, "q");
        assert_eq!((state.prompt, state.quit), (Some(Prompt::Quit), false));
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((state.prompt, state.quit), (None, false));
        typed(&mut state, "qs");
        assert_eq!(state.prompt, Some(Prompt::Export));
        press(&mut state, &[KeyCode::Esc]);
        typed(&mut state, "qq");
        assert!(state.quit);
        for saved in [false, true] {
            let mut state = self::state();
            state.is_saved = saved;
            if !saved {
                state.mark_exported();
            }
            typed(&mut state, "?q");
            assert_eq!((state.page, state.quit), (None, false), "q closes a page");
            typed(&mut state, "q");
            assert!(state.quit);
        }
        let mut state = State::new(false);
        typed(&mut state, "q");
        assert!(state.quit);
    }

    #[test]
    fn left_and_right_fold_the_list_and_move_the_timeline() {
        let mut state = state();
        press(&mut state, &[KeyCode::Down, KeyCode::Right]);
        assert_eq!((rows(&state), state.zoom), (7, Zoom::default()));
        press(&mut state, &[KeyCode::Right, KeyCode::Left, KeyCode::Left]);
        assert_eq!((rows(&state), shown(&state)), (5, 5));
        typed(&mut state, "3+");
        press(&mut state, &[KeyCode::Right]);
        assert!(rows(&state) == 5 && state.zoom != Zoom::default());
        typed(&mut state, "1jk");
        assert_eq!(state.zoom, Zoom::default(), "another incident is shown whole");
    }

    #[test]
    fn the_filter_narrows_as_it_is_typed() {
        let mut state = state();
        typed(&mut state, "\\");
        for (c, left) in [('d', 5), ('a', 1), ('e', 1), ('m', 1), ('q', 0)] {
            typed(&mut state, &c.to_string());
            assert_eq!(rows(&state), left, "{}", state.filter.text());
        }
        assert!(!state.quit && state.shown().is_none());
        press(&mut state, &[KeyCode::Backspace, KeyCode::Enter]);
        assert_eq!((shown(&state), state.prompt), (2, None));
        add_race(&mut state, 7);
        assert_eq!((rows(&state), shown(&state)), (1, 2), "new incidents are filtered");
        // Typing can be continued, and cancelled.
        typed(&mut state, "\\x");
        assert_eq!(state.filter.text(), "daemx");
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((rows(&state), state.filter.is_on()), (5, false));
    }

    #[test]
    fn the_verdict_key_cycles_through_the_verdicts_that_occur() {
        let mut state = state();
        let mut seen = Vec::new();
        for _ in 0..6 {
            typed(&mut state, "v");
            seen.push((state.filter.verdict, rows(&state)));
        }
        let kinds = [
            VerdictKind::ForkExecRace,
            VerdictKind::StillOpen,
            VerdictKind::LeakedFd,
            VerdictKind::RunningExecutable,
            VerdictKind::Unexplained,
        ];
        let mut wanted: Vec<_> = kinds.iter().map(|kind| (Some(*kind), 1)).collect();
        wanted.push((None, 5));
        assert_eq!(seen, wanted);
        typed(&mut state, "u");
        assert_eq!(rows(&state), 2);
        typed(&mut state, "v");
        assert_eq!((rows(&state), shown(&state)), (1, 5));
        press(&mut state, &[KeyCode::Esc]);
        assert_eq!((rows(&state), state.filter.is_on()), (5, false));
    }

    #[test]
    fn pages_open_and_close() {
        let mut state = state();
        state.room = Room { height: 5, most: 3, ..Room::default() };
        typed(&mut state, "?jj");
        assert!(state.page.is_some() && state.scroll == 2);
        let help = state.page;
        typed(&mut state, "t");
        assert!(state.page.is_some() && state.page != help && state.scroll == 0);
        typed(&mut state, "jt");
        assert!(state.page.is_none() && state.scroll == 0);
        typed(&mut state, "?");
        press(&mut state, &[KeyCode::Esc]);
        assert!(state.page.is_none());
        assert_eq!(shown(&state), 6, "the keys were for the pages");
    }

    #[test]
    fn an_export_asks_for_its_scope() {
        let mut state = state();
        let answer = |state: &mut State, c| {
            assert_eq!(control(state, 's'), None);
            assert_eq!(state.prompt, Some(Prompt::Export));
            state.key(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE))
        };
        let export = |scope| Some(Effect::Export(scope));
        assert_eq!(answer(&mut state, 's'), export(Scope::Selected(Row::Group(4))));
        assert_eq!(answer(&mut state, 'a'), export(Scope::All));
        assert_eq!((answer(&mut state, 'f'), state.prompt), (None, Some(Prompt::Export)));
        press(&mut state, &[KeyCode::Esc]);
        typed(&mut state, "u");
        assert_eq!((answer(&mut state, 'f'), state.prompt), (export(Scope::Filtered), None));
        let mut empty = State::new(false);
        assert_eq!((control(&mut empty, 's'), empty.prompt), (None, None));
        assert_eq!(empty.notice.as_deref(), Some("no incident to export"));
    }

    #[test]
    fn a_copy_is_the_whole_incident_as_text() {
        let mut state = state();
        typed(&mut state, "G");
        let effect = state.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::NONE));
        let Some(Effect::Copy { what, text }) = effect else { panic!("{effect:?}") };
        assert_eq!(what, "#2");
        assert!(text.starts_with("#2 ") && text.contains("Text file busy"), "{text}");
        let advice = &samples::leaked().verdict.advice;
        assert!(advice.iter().all(|one| text.contains(one)) && samples::harmless(&text), "{text}");
        let none = State::new(false).key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::NONE));
        assert_eq!(none, None);
    }

    #[test]
    fn elapsed_time_ends_at_the_last_line_or_now() {
        let mut state = State::new(false);
        assert_eq!(state.elapsed_ns(), None);
        state.add(samples::meta().into());
        let start = samples::meta().time_ns;
        state.live = Some(Live { now_ns: start + 5, ..Live::default() });
        assert_eq!(state.elapsed_ns(), Some(5));
        add_race(&mut state, 1);
        assert_eq!(state.elapsed_ns(), Some(7_000_000_000));
        state.add(Line::Summary(samples::summary(1, &[])));
        assert_eq!(state.elapsed_ns(), Some(12_345_678_901));
    }
}
