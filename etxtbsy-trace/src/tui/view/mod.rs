//! Draws a header, the panes or a page, and a footer.

mod ascii;
mod axis;
mod chain;
mod empty;
mod header;
mod help;
mod highlight;
mod incidents;
mod layout;
mod output;
mod page;
mod statistics;
mod style;
mod timeline;
mod verdict;

use crate::tui::model::state::{PANES, Room, State};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect, Size},
    text::Line,
    widgets::{Block, Borders, Paragraph},
};

/// A part of the screen.
struct Pane {
    title: &'static str,
    /// The text at the right of the title.
    note: fn(&State) -> String,
    /// Its lines for a size, or all lines if the height is `u16::MAX`. The list returns only the visible
    /// part.
    lines: Lines,
}

/// Makes the lines of a pane or a page for a size.
type Lines = fn(&State, Size) -> Vec<Line<'static>>;

/// The panes from top to bottom, the list first.
const ALL: [Pane; PANES] = [
    Pane { title: "incidents", note: incidents::note, lines: incidents::lines },
    Pane { title: "chain", note: no_note, lines: chain::lines },
    Pane { title: "timeline", note: no_note, lines: timeline::lines },
    Pane { title: "verdict", note: no_note, lines: verdict::lines },
];

/// No text at the right of the title.
fn no_note(_: &State) -> String {
    String::new()
}

/// Draws everything; returns the visible part of the focused pane or the page.
pub fn draw(frame: &mut Frame, state: &State) -> Room {
    let caption = state.probed.caption.as_ref();
    let rows = [1, u16::from(caption.is_some()), 0, 1].map(Constraint::Length);
    let rows = [rows[0], rows[1], Constraint::Fill(1), rows[3]];
    let [head, about, body, foot] = Layout::vertical(rows).areas(frame.area());
    if let Some(caption) = caption {
        let caption = Line::styled(caption.clone(), style::caption());
        frame.render_widget(style::fit(caption, about.width.into()), about);
    }
    frame
        .render_widget(style::fit(header::line(state, head.width.into()), head.width.into()), head);
    frame
        .render_widget(style::fit(help::footer(state, foot.width.into()), foot.width.into()), foot);
    let room = match state.page {
        Some(page) => page::draw(page, frame, state, body),
        None if state.is_empty() => {
            empty::draw(frame, state, body);
            Room::default()
        }
        None => panes(frame, state, body),
    };
    highlight::matches(state, frame.buffer_mut(), body);
    if state.ascii {
        ascii::only(frame.buffer_mut());
    }
    room
}

/// Draws the panes.
fn panes(frame: &mut Frame, state: &State, body: Rect) -> Room {
    let mut room = Room::default();
    // The list may be long.
    let all = |pane: usize, width: u16| match pane {
        0 => incidents::count(state),
        _ => (ALL[pane].lines)(state, Size::new(width, u16::MAX)).len(),
    };
    let wants = |pane: usize, width: u16| u16::try_from(all(pane, width) + 1).unwrap_or(u16::MAX);
    let areas = layout::areas(body, state.focus, wants);
    room.panes.areas = areas;
    for (at, (pane, area)) in ALL.iter().zip(areas).enumerate() {
        let focused = at == state.focus;
        let title = if focused { format!("[{}]", pane.title) } else { format!(" {} ", pane.title) };
        let mut block =
            Block::new().borders(Borders::TOP).title(title).title_style(style::title(focused));
        let note = (pane.note)(state);
        if !note.is_empty() {
            block = block.title(Line::styled(format!(" {note} "), style::faint()).right_aligned());
        }
        let inner = block.inner(area);
        let height = usize::from(inner.height);
        let hidden = if at > 0 { all(at, inner.width).saturating_sub(height) } else { 0 };
        let wheel = state.scrolled.filter(|(pane, _)| *pane == at).map_or(0, |(_, lines)| lines);
        let skip = if focused { state.scroll } else { wheel }.min(hidden);
        // A pane that scrolls needs all its lines, any other pane only those that fit.
        let scrolls = hidden > 0 && (focused || skip > 0);
        let size = Size::new(inner.width, if scrolls { u16::MAX } else { inner.height });
        let mut lines = (pane.lines)(state, size);
        lines.drain(..skip);
        if focused {
            (room.height, room.most) = (height, hidden);
        }
        room.panes.most[at] = hidden;
        match at {
            0 => incidents::clickable(state, inner, &mut room.panes),
            2 => room.panes.scale = timeline::scale(state, inner),
            _ => {}
        }
        if hidden > skip {
            let more = format!(" {} more ▼ ", hidden - skip);
            block = block.title(Line::styled(more, style::faint()).right_aligned());
        }
        frame.render_widget(block, area);
        let fitting = lines.into_iter().map(|line| style::fit(line, inner.width.into()));
        frame.render_widget(Paragraph::new(fitting.collect::<Vec<_>>()), inner);
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Incident, Line},
        output::samples,
        tui::{
            input::keys::KEYS,
            model::live::{Live, Probed},
        },
    };
    use proptest::prelude::*;
    use ratatui::crossterm::event::{
        KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
    };
    use ratatui::{Terminal, backend::TestBackend};

    /// The screen of a terminal of that size.
    fn screen(state: &State, width: u16, height: u16) -> String {
        drawn(state, width, height).0
    }

    /// The same, and the visible part.
    fn drawn(state: &State, width: u16, height: u16) -> (String, Room) {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let mut room = Room::default();
        terminal.draw(|frame| room = draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(usize::from(width));
        let lines =
            cells.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
        (lines.map(|line| line.trim_end().to_owned() + "\n").collect(), room)
    }

    /// A view that received `lines`.
    fn state(lines: Vec<Line>) -> State {
        State::showing(lines, true)
    }

    /// A view that received all samples, and then the race.
    fn race() -> State {
        let mut lines = samples::no_near_misses();
        lines.push(samples::race().into());
        state(lines)
    }

    /// Compares with the snapshot of that name; with `INSTA_UPDATE=always`, writes it.
    fn matches(name: &str, shown: &str) {
        insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, shown);
        });
    }

    #[test]
    fn a_race_at_both_sizes() {
        matches("race-80x24", &screen(&race(), 80, 24));
        matches("race-200x60", &screen(&race(), 200, 60));
    }

    /// An incident of each kind.
    fn each() -> Vec<Incident> {
        let lines = samples::no_near_misses().into_iter().filter_map(|line| match line {
            Line::Incident(incident) => Some(*incident),
            _ => None,
        });
        let more = [
            samples::family(),
            samples::mapping(),
            samples::passed(),
            samples::unheld(),
            samples::running_for_ever(),
            samples::pending(),
            samples::with_stacks(),
        ];
        lines.chain(more).collect()
    }

    /// Screens with one incident each.
    fn screens(width: u16, height: u16, ascii: bool) -> String {
        let screens = each().into_iter().map(|incident| {
            let now_ns = incident.time_ns + 90_000;
            let shown = incident.clone();
            let pending = incident == samples::pending();
            let mut state = state(vec![samples::meta().into(), incident.into()]);
            if pending {
                state.live = Some(Live::pending(shown, now_ns));
            }
            state.ascii = ascii;
            screen(&state, width, height)
        });
        screens.collect()
    }

    #[test]
    fn every_kind_at_both_sizes() {
        matches("each-80x24", &screens(80, 24, false));
        matches("each-200x60", &screens(200, 60, false));
    }

    #[test]
    fn every_kind_in_ascii() {
        let shown = screens(80, 24, true);
        assert!(shown.is_ascii());
        matches("each-ascii-80x24", &shown);
    }

    #[test]
    fn without_incidents() {
        matches("empty-80x24", &screen(&state(vec![samples::meta().into()]), 80, 24));
    }

    #[test]
    fn the_focused_pane_grows_and_scrolls() {
        let mut all = String::new();
        for pane in 1..PANES {
            let mut state = state(vec![samples::meta().into(), samples::family().into()]);
            (state.focus, state.scroll) = (pane, 1);
            all += &screen(&state, 80, 24);
        }
        matches("focus-80x24", &all);
    }

    /// Presses keys, `\x13` being Ctrl-S.
    fn press(state: &mut State, keys: &str) {
        for c in keys.chars() {
            let event = match c {
                '\x13' => KeyEvent::new(KeyCode::Char('s'), KeyModifiers::CONTROL),
                '\n' => KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE),
                c => KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE),
            };
            state.key(event);
        }
    }

    #[test]
    fn pages_at_both_sizes() {
        for (name, keys) in [("help", "?"), ("statistics", "t")] {
            let mut state = race();
            press(&mut state, keys);
            matches(&format!("{name}-80x24"), &screen(&state, 80, 24));
            matches(&format!("{name}-200x60"), &screen(&state, 200, 60));
        }
    }

    #[test]
    fn the_list_shows_its_order_and_filter() {
        let mut all = String::new();
        for keys in ["\\demo worker", "\\demo\n", "vsi", "\\nowhere\n", "u \n\x13", "/nope\n"] {
            let mut state = race();
            press(&mut state, keys);
            all += &screen(&state, 80, 24);
        }
        matches("list-80x24", &all);
    }

    /// An event of the mouse on a screen of 80 by 24.
    fn mouse(state: &mut State, kind: MouseEventKind, (column, row): (u16, u16)) {
        state.room = drawn(state, 80, 24).1;
        state.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
    }

    fn click(state: &mut State, at: (u16, u16)) {
        mouse(state, MouseEventKind::Down(MouseButton::Left), at);
        mouse(state, MouseEventKind::Up(MouseButton::Left), at);
    }

    #[test]
    fn clicks_select_open_sort_and_focus() {
        let mut state = race();
        let at = |state: &State| state.list().selected(&state.model);
        click(&mut state, (30, 5));
        assert_eq!((at(&state), state.list().rows(&state.model).len()), (2, 5));
        click(&mut state, (30, 5));
        assert_eq!((at(&state), state.list().rows(&state.model).len()), (2, 6));
        click(&mut state, (0, 3));
        assert_eq!((at(&state), state.list().rows(&state.model).len()), (0, 9));
        click(&mut state, (20, 2));
        assert_eq!(state.list().order().name(), "by verdict");
        click(&mut state, (20, 2));
        assert_eq!(state.list().order().name(), "by verdict, reversed");
        click(&mut state, (30, 9));
        assert_eq!(state.focus, 1);
        // Nothing is under these.
        for nothing in [(0, 0), (79, 23), (500, 500)] {
            click(&mut state, nothing);
        }
        let event = MouseEvent {
            kind: MouseEventKind::Down(MouseButton::Left),
            column: 30,
            row: 5,
            modifiers: KeyModifiers::SHIFT,
        };
        state.mouse(event);
        assert_eq!(state.focus, 1, "with Shift, the terminal selects text");
    }

    #[test]
    fn a_click_does_not_move_the_rows() {
        let mut state = race();
        press(&mut state, "\n");
        click(&mut state, (30, 6));
        let top = |state: &State| drawn(state, 80, 24).1.panes.top;
        assert_eq!((top(&state), state.list().selected(&state.model)), (0, 3));
        press(&mut state, "jj");
        state.room = drawn(&state, 80, 24).1;
        assert_eq!(state.room.panes.top, 2);
        click(&mut state, (30, 4));
        assert_eq!((top(&state), state.list().selected(&state.model)), (2, 3));
    }

    #[test]
    fn the_wheel_scrolls_what_is_below_the_pointer() {
        let mut state = race();
        let verdict = (10, 20);
        let before = screen(&state, 80, 24);
        mouse(&mut state, MouseEventKind::ScrollDown, verdict);
        let after = screen(&state, 80, 24);
        assert!(before.contains("20 more") && after.contains("17 more"), "{after}");
        press(&mut state, "4");
        assert_eq!((state.focus, state.scroll), (3, 3));
        mouse(&mut state, MouseEventKind::ScrollDown, (10, 2));
        assert_eq!(state.list().selected(&state.model), 3);
        press(&mut state, "?");
        state.room = drawn(&state, 80, 12).1;
        let event = MouseEventKind::ScrollDown;
        state.mouse(MouseEvent { kind: event, column: 1, row: 1, modifiers: KeyModifiers::NONE });
        assert_eq!(state.scroll, 3);
    }

    #[test]
    fn the_timeline_is_zoomed_and_dragged_until_another_incident_is_selected() {
        let mut state = race();
        let timeline = (60, 14);
        for _ in 0..3 {
            mouse(&mut state, MouseEventKind::ScrollUp, timeline);
        }
        let zoomed = state.zoom;
        assert!(!zoomed.is_whole());
        mouse(&mut state, MouseEventKind::Down(MouseButton::Left), timeline);
        mouse(&mut state, MouseEventKind::Drag(MouseButton::Left), (50, 14));
        assert!(state.zoom != zoomed && state.focus == 2);
        mouse(&mut state, MouseEventKind::Drag(MouseButton::Left), timeline);
        assert_eq!(state.zoom, zoomed);
        press(&mut state, "1j");
        assert!(state.zoom.is_whole());
    }

    #[test]
    fn a_match_is_highlighted_wherever_it_is() {
        let mut state = race();
        press(&mut state, "/FORK-exec\n");
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        for color in [true, false] {
            state.color = color;
            terminal.draw(|frame| _ = draw(frame, &state)).unwrap();
            let buffer = terminal.backend().buffer();
            let is_marked = |x: u16, y: u16| {
                buffer[(x, y)].modifier.contains(ratatui::style::Modifier::UNDERLINED)
            };
            let marked = |y: u16| (0..80).filter(|x| is_marked(*x, y)).count();
            // A row of the list, and the chain.
            assert_eq!([3, 9].map(marked), [18, 9]);
        }
        assert!(
            screen(&state, 80, 24).contains("/FORK-exec  2 of 4"),
            "{}",
            screen(&state, 80, 24)
        );
        press(&mut state, "N");
        assert!(screen(&state, 80, 24).contains("/FORK-exec  1 of 4"));
    }

    #[test]
    fn long_and_hostile_names_in_frames_fit_the_screen() {
        let mut incident = samples::with_stacks();
        let opened = incident.holders[0].opened.as_mut().unwrap().stack.as_mut().unwrap();
        opened[4].function = Some("\x1b[2J家\n".repeat(150_000));
        opened[5].file = Some("\u{202e}".repeat(300_000));
        let mut state = state(vec![samples::meta().into(), incident.into()]);
        state.focus = 1;
        for (width, height) in [(10, 5), (80, 24), (200, 60)] {
            let shown = screen(&state, width, height);
            assert!(samples::harmless(&shown), "{shown}");
        }
        assert!(screen(&state, 200, 60).contains(r" at \x1b[2J"));
    }

    #[test]
    fn an_empty_session_says_what_is_watched_and_how_to_try_it() {
        let mut meta = samples::meta();
        meta.filter.command = None;
        let mut state = state(vec![meta.into()]);
        state.live = Some(Live::default());
        state.probed = Probed {
            execs: Some(1_234),
            forks: Some(1),
            caption: Some("demo passed-fd: the fd was sent over a socket".to_owned()),
        };
        matches("empty-live-80x24", &screen(&state, 80, 24));
    }

    #[test]
    fn near_misses_are_rows_that_m_hides() {
        let near = Line::NearMiss(Box::new(samples::near_miss()));
        let mut state = State::showing(vec![samples::meta().into(), near], false);
        press(&mut state, "+j");
        let shown = screen(&state, 100, 30);
        for expected in [
            "0 incidents, 1 near miss",
            "near-miss",
            "the exec succeeded, but demo[4310] had inherited",
            "execve: succeeded",
            "no failure",
            "time from the exec",
            "→ write the file in a child process",
        ] {
            assert!(shown.contains(expected), "no {expected:?} in: {shown}");
        }
        assert!(!shown.contains("Text file busy") && !shown.contains("retry"), "{shown}");
        press(&mut state, "m");
        let shown = screen(&state, 100, 30);
        assert!(shown.contains("no near misses") && !shown.contains("near-miss"), "{shown}");
    }

    #[test]
    fn the_help_page_names_all_keys_in_80_columns() {
        let mut state = race();
        state.mouse = true;
        press(&mut state, "?");
        let lines = help::lines(&state, Size::new(80, 22));
        assert!(lines.iter().all(|line| line.width() <= 80), "{lines:#?}");
        assert!(lines.len() <= 21, "{}", lines.len());
    }

    #[test]
    fn without_unicode_bars_are_ascii() {
        let mut state = race();
        state.ascii = true;
        let list = incidents::lines(&state, Size::new(100, 6));
        let note = incidents::note(&state);
        press(&mut state, "t");
        let text: String = list.iter().map(ToString::to_string).collect();
        assert!(text.contains('@') && text.is_ascii() && note.is_ascii(), "{text}");
        assert!(!screen(&state, 80, 24).contains('█'));
    }

    #[test]
    fn colours_can_be_turned_off() {
        let mut state = race();
        for color in [true, false] {
            state.color = color;
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            terminal.draw(|frame| _ = draw(frame, &state)).unwrap();
            let reset = ratatui::style::Color::Reset;
            let cells = terminal.backend().buffer().content();
            let plain = cells.iter().all(|cell| cell.fg == reset && cell.bg == reset);
            assert_eq!(plain, !color);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn the_selection_stays_valid_for_all_keys_and_lines(
            steps in prop::collection::vec(0..200_usize, 0..80),
            size in (1..120_u16, 1..40_u16),
        ) {
            let lines = samples::no_near_misses();
            let mut state = State::new(true);
            for step in steps {
                match step {
                    0..30 => state.add(lines[step % lines.len()].clone()),
                    120..180 => {
                        let key = KEYS[(step - 120) % KEYS.len()].event();
                        state.key(key);
                    }
                    180.. => {
                        let kinds = [
                            MouseEventKind::Down(MouseButton::Left),
                            MouseEventKind::Drag(MouseButton::Left),
                            MouseEventKind::ScrollDown,
                            MouseEventKind::ScrollUp,
                        ];
                        let (column, row) = (size.0 * 7 % 120, (step * 5 % 40) as u16);
                        let kind = kinds[step % kinds.len()];
                        state.mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE });
                    }
                    60..70 => {
                        let codes = [KeyCode::Enter, KeyCode::Esc, KeyCode::Backspace, KeyCode::Left];
                        state.key(KeyEvent::new(codes[step % codes.len()], KeyModifiers::NONE));
                    }
                    _ => press(&mut state, &char::from(step as u8).to_string()),
                }
                // Quitting ends the program, not the state.
                state.quit = false;
                let (list, model) = (state.list(), &state.model);
                let rows = list.rows(model);
                prop_assert!(rows.is_empty() || list.selected(model) < rows.len());
                prop_assert_eq!(state.shown().is_some(), !rows.is_empty());
                prop_assert!(rows.iter().all(|row| row.incident(model).is_some()));
                state.room = drawn(&state, size.0, size.1).1;
            }
        }

        #[test]
        fn hostile_strings_are_escaped(
            strings in samples::strings(),
            at in 0..13_usize,
            size in prop_oneof![
                (1_u16..24, 1_u16..8),
                (1_u16..250, 1_u16..80),
                Just((80, 24)),
                Just((200, 60)),
            ],
            keys in "[-+=0hlj?t]{0,6}",
            ascii in any::<bool>(),
            shift in any::<i64>(),
        ) {
            let mut incident = samples::with_strings(&each()[at], &strings);
            for holder in &mut incident.holders {
                holder.released.iter_mut().for_each(|it| it.after_ns = shift);
                holder.start_ns = Some(shift.unsigned_abs());
            }
            let shown = incident.clone();
            let mut meta = samples::meta();
            meta.kernel.clone_from(&strings[0]);
            let typed = strings[1].clone();
            meta.filter.command = Some(strings);
            let mut state = state(vec![meta.into(), incident.into()]);
            state.ascii = ascii;
            state.focus = at % PANES;
            if shift % 2 == 0 {
                state.live = Some(Live::pending(shown, shift.unsigned_abs()));
            }
            let drawn = |state: &State| {
                let shown = screen(state, size.0, size.1);
                samples::harmless(&shown) && (!ascii || shown.is_ascii())
            };
            press(&mut state, &keys);
            prop_assert!(drawn(&state));
            press(&mut state, "/");
            press(&mut state, &typed);
            prop_assert!(drawn(&state));
            press(&mut state, "\n\\");
            press(&mut state, &typed);
            state.notice = Some(typed);
            prop_assert!(drawn(&state));
        }
    }
}
