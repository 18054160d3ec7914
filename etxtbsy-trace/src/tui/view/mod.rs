//! Draws a header, the panes or a page, and a footer.

mod ascii;
mod axis;
mod chain;
mod header;
mod help;
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
    let rows = [Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(header::line(state, head.width.into()), head);
    frame.render_widget(help::footer(state, foot.width.into()), foot);
    let room = match state.page {
        Some(page) => page::draw(page, frame, state, body),
        None => panes(frame, state, body),
    };
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
        0 => state.list().rows(&state.model).len(),
        _ => (ALL[pane].lines)(state, Size::new(width, u16::MAX)).len(),
    };
    let wants = |pane: usize, width: u16| u16::try_from(all(pane, width) + 1).unwrap_or(u16::MAX);
    let areas = layout::areas(body, state.focus, wants);
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
        let skip = if focused { state.scroll.min(hidden) } else { 0 };
        // A pane that scrolls needs all its lines, any other pane only those that fit.
        let scrolls = focused && hidden > 0;
        let size = Size::new(inner.width, if scrolls { u16::MAX } else { inner.height });
        let mut lines = (pane.lines)(state, size);
        lines.drain(..skip);
        if focused {
            room = Room { height, most: hidden };
        }
        if hidden > skip {
            let more = format!(" {} more ▼ ", hidden - skip);
            block = block.title(Line::styled(more, style::faint()).right_aligned());
        }
        frame.render_widget(block, area);
        frame.render_widget(Paragraph::new(lines), inner);
    }
    room
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Incident, Line},
        output::samples,
        tui::{input::keys::KEYS, model::live::Live},
    };
    use proptest::prelude::*;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
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
        press(&mut state, "?");
        let lines = help::lines(&state, Size::new(80, 22));
        assert!(lines.iter().all(|line| line.width() <= 80), "{lines:#?}");
        assert!(lines.len() <= 21, "{}", lines.len());
    }

    #[test]
    fn without_unicode_bars_are_ascii() {
        let mut state = race();
        state.ascii = true;
        let list = incidents::lines(&state, Size::new(80, 6));
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
            steps in prop::collection::vec(0..120_usize, 0..80),
            size in (1..120_u16, 1..40_u16),
        ) {
            let lines = samples::no_near_misses();
            let mut state = State::new(true);
            for step in steps {
                match step {
                    0..30 => state.add(lines[step % lines.len()].clone()),
                    30..60 => {
                        let key = KEYS[(step - 30) % KEYS.len()].event();
                        state.key(key);
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
            at in 0..12_usize,
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
