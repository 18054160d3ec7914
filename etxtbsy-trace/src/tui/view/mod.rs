//! What is drawn: a header, the panes, a footer, or the help page.

mod chain;
mod header;
mod help;
mod incidents;
mod style;
mod timeline;
mod verdict;

use super::state::State;
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect, Size},
    text::Line,
    widgets::{Block, Borders, Clear, Paragraph},
};

/// Where a terminal is wide and high enough to have the list beside the other panes.
const WIDE: Size = Size { width: 140, height: 30 };

/// A part of the screen.
struct Pane {
    title: &'static str,
    /// Its lines, for so much room; the list shows its part of them itself.
    lines: fn(&State, Size) -> Vec<Line<'static>>,
}

/// The panes from top to bottom, the list first.
const PANES: [Pane; 4] = [
    Pane { title: "incidents", lines: incidents::lines },
    Pane { title: "chain", lines: chain::lines },
    Pane { title: "timeline", lines: timeline::lines },
    Pane { title: "verdict", lines: verdict::lines },
];

/// How many panes can have the focus.
pub const COUNT: usize = PANES.len();

/// Draws everything.
pub fn draw(frame: &mut Frame, state: &State) {
    let rows = [Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(header::line(state), head);
    frame.render_widget(help::footer(state), foot);
    if state.help {
        let block = Block::new().borders(Borders::TOP).title(" keys ");
        frame.render_widget(Clear, body);
        frame.render_widget(Paragraph::new(help::lines()).block(block), body);
        return;
    }
    let share = |pane: usize| Constraint::Fill(if pane == state.focus { 3 } else { 2 });
    let areas: Vec<Rect> = if body.width >= WIDE.width && body.height >= WIDE.height {
        let columns = Layout::horizontal([Constraint::Fill(2), Constraint::Fill(3)]).spacing(1);
        let [left, right] = columns.areas(body);
        let below = Layout::vertical((1..COUNT).map(share)).split(right);
        [left].into_iter().chain(below.iter().copied()).collect()
    } else {
        Layout::vertical((0..COUNT).map(share)).split(body).to_vec()
    };
    for (at, (pane, area)) in PANES.iter().zip(areas).enumerate() {
        let focused = at == state.focus;
        let title = if focused { format!("[{}]", pane.title) } else { format!(" {} ", pane.title) };
        let block =
            Block::new().borders(Borders::TOP).title(title).title_style(style::title(focused));
        let inner = block.inner(area);
        let mut lines = (pane.lines)(state, inner.as_size());
        let most = lines.len().saturating_sub(usize::from(inner.height));
        let skip = if focused && at > 0 { state.scroll.min(most) } else { 0 };
        lines.drain(..skip);
        frame.render_widget(block, area);
        frame.render_widget(Paragraph::new(lines), inner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lines::Line, output::samples};
    use proptest::prelude::*;
    use ratatui::{Terminal, backend::TestBackend};

    /// What a terminal of that size shows.
    fn screen(state: &State, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, state)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells = buffer.content().chunks(usize::from(width));
        let lines =
            cells.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
        lines.map(|line| line.trim_end().to_owned() + "\n").collect()
    }

    /// After `lines` came in.
    fn state(lines: Vec<Line>) -> State {
        let mut state = State::new(COUNT, true);
        for line in lines {
            state.add(line);
        }
        state
    }

    /// The race came in, after all other samples.
    fn race() -> State {
        let mut lines = samples::every_line();
        lines.push(samples::race().into());
        state(lines)
    }

    /// Compares with a file beside this one, or writes it if `UPDATE_SNAPSHOTS` is set.
    #[track_caller]
    fn matches(name: &str, shown: &str) {
        let place = format!("{}/src/tui/view/snapshots/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::write(&place, shown).unwrap();
        }
        let wanted = std::fs::read_to_string(&place).unwrap();
        assert!(shown == wanted, "{name}: got:\n{shown}\nwanted:\n{wanted}");
    }

    #[test]
    fn a_race_at_both_sizes() {
        matches("race-80x24", &screen(&race(), 80, 24));
        matches("race-200x60", &screen(&race(), 200, 60));
    }

    #[test]
    fn every_sample_on_its_own() {
        let mut all = String::new();
        for line in samples::every_line() {
            all += &screen(&state(vec![samples::meta().into(), line]), 80, 24);
        }
        matches("each-80x24", &all);
    }

    #[test]
    fn the_help_page_fits() {
        let mut state = race();
        state.help = true;
        matches("help-80x24", &screen(&state, 80, 24));
    }

    #[test]
    fn any_size_is_drawn() {
        for (width, height) in [(1, 1), (3, 2), (20, 5), (79, 23), (500, 3), (10, 200)] {
            let mut state = race();
            screen(&state, width, height);
            state.help = true;
            screen(&state, width, height);
        }
    }

    #[test]
    fn without_colour_there_is_none() {
        let mut state = race();
        for color in [true, false] {
            state.color = color;
            let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
            terminal.draw(|frame| draw(frame, &state)).unwrap();
            let reset = ratatui::style::Color::Reset;
            let cells = terminal.backend().buffer().content();
            let plain = cells.iter().all(|cell| cell.fg == reset && cell.bg == reset);
            assert_eq!(plain, !color);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn nothing_hostile_reaches_the_terminal(strings in samples::strings()) {
            let incident = samples::with_strings(&samples::several(), &strings);
            let mut meta = samples::meta();
            meta.kernel.clone_from(&strings[0]);
            meta.filter.command = Some(strings);
            let state = state(vec![meta.into(), incident.into()]);
            prop_assert!(samples::harmless(&screen(&state, 200, 60)));
        }
    }
}
