//! The timeline: a lane for each process on one axis, and the failure in red across them.

use super::{axis::Axis, style};
use crate::analysis::near_miss::is_near_miss;
use crate::{
    text::{escape, time},
    timeline::{
        lanes::{Bar, Doing, Event, Lane, Mark, Part, extent, lanes},
        zoom::Extent,
    },
    tui::model::state::{Scale, State},
};
use ratatui::{
    layout::{Rect, Size},
    style::Style,
    text::{Line, Span},
};
use std::collections::BTreeMap;

/// The columns of the names on a narrow and on a wide terminal.
const NAMES: [usize; 2] = [22, 34];
/// A terminal is wide from this number of columns on.
const WIDE: usize = 120;
/// The rows of the axis and of the legend.
const FOOT: usize = 2;
/// The most rows of a lane.
const ROWS: usize = 4;
/// The fewest columns in which a text is shown.
const WORTH: usize = 12;

/// Where the scale changes.
const BREAK: char = '╱';

/// A character and its style.
type Cell = (char, Style);
/// The signs that occur, in the order of the legend, and their meanings.
type Legend = BTreeMap<usize, (char, Style, &'static str)>;

/// The lanes of the incident shown, the axis and the legend. They fill the height, or have their minimum
/// height if it is `u16::MAX`.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let Some((_, incident)) = state.shown() else { return Vec::new() };
    let width = usize::from(size.width);
    let names = NAMES[usize::from(width >= WIDE)];
    let columns = width.saturating_sub(names);
    if columns < WORTH {
        return Vec::new();
    }
    let lanes = lanes(incident, state.now_ns(incident));
    let (extent, known) = extent(&lanes);
    let axis = axis(state, &extent, columns);
    let ticks = if known { axis.ticks() } else { Vec::new() };
    let mut picture = Picture {
        state,
        axis,
        names,
        grid: vec![(' ', Style::new()); columns],
        legend: Legend::new(),
    };
    for tick in &ticks {
        picture.grid[tick.column] = ('┊', style::faint());
    }
    for column in axis.breaks() {
        picture.grid[column] = picture.sign(22, BREAK, style::faint(), "not to scale");
    }
    let room = match size.height {
        u16::MAX => lanes.len(),
        height => usize::from(height).saturating_sub(FOOT).max(2),
    };
    let mut lines = picture.lanes(&lanes, room);
    let mut under = String::new();
    for tick in ticks {
        let wide = escape::width(&tick.name);
        let start = tick.column.saturating_sub(wide / 2).min(columns.saturating_sub(wide));
        let gap = start.checked_sub(escape::width(&under));
        if let Some(gap) = gap.filter(|gap| *gap > 0 || under.is_empty()) {
            under = under + &" ".repeat(gap) + &tick.name;
        }
    }
    if !known {
        under.push_str("no times known");
    }
    let zero = if is_near_miss(incident) { "time from the exec" } else { "time from the failure" };
    lines.push(Line::styled(format!("{zero:names$}{under}"), style::faint()));
    lines.extend(legend(&picture.legend, width));
    lines
}

/// The axis: all events, or what the user chose.
fn axis(state: &State, extent: &Extent, columns: usize) -> Axis {
    if state.zoom.is_whole() {
        return Axis::whole(extent, columns);
    }
    Axis::new(state.zoom.window(extent), columns)
}

/// Where the timeline is to scale, if its pane is drawn there.
pub(super) fn scale(state: &State, area: Rect) -> Option<Scale> {
    let (_, incident) = state.shown()?;
    let width = usize::from(area.width);
    let names = NAMES[usize::from(width >= WIDE)];
    let columns = width.checked_sub(names).filter(|columns| *columns >= WORTH)?;
    let (extent, _) = extent(&lanes(incident, state.now_ns(incident)));
    let axis = axis(state, &extent, columns);
    let (first, count) = axis.scale();
    let x = area.x.saturating_add(u16::try_from(names + first).ok()?);
    Some(Scale { x, columns: u16::try_from(count).ok()?, span: axis.span })
}

/// The legend: the signs and their meanings.
fn legend(legend: &Legend, width: usize) -> Vec<Line<'static>> {
    let mut lines: Vec<Line> = vec![Line::default()];
    for (sign, style, word) in legend.values() {
        let item = format!(" {word}  ");
        let used = lines.last().map_or(0, Line::width);
        // The spaces at the end need no room.
        if used > 0 && used + item.chars().count() - 1 > width {
            lines.push(Line::default());
        }
        if let Some(line) = lines.last_mut() {
            line.push_span(Span::styled(sign.to_string(), *style));
            line.push_span(Span::raw(item));
        }
    }
    lines
}

struct Picture<'a> {
    state: &'a State,
    axis: Axis,
    names: usize,
    /// The background: spaces, and a line at each tick.
    grid: Vec<Cell>,
    legend: Legend,
}

impl Picture<'_> {
    /// The lanes in that many rows. If there is no room for all, those that matter most are shown.
    fn lanes(&mut self, lanes: &[Lane], room: usize) -> Vec<Line<'static>> {
        let rows = (room / lanes.len().max(1)).clamp(1, ROWS);
        let first = |part: Part| lanes.iter().position(|lane| lane.part == part);
        let firsts = [Part::Victim, Part::Holder, Part::Opener].map(first);
        let mut shown: Vec<usize> = (0..lanes.len()).collect();
        shown.sort_by_key(|at| firsts.iter().position(|it| *it == Some(*at)).unwrap_or(*at + 3));
        shown.truncate(room);
        shown.sort_unstable();
        shown.into_iter().flat_map(|at| self.lane(&lanes[at], rows)).collect()
    }

    /// A lane: its bars, and the texts of its events.
    fn lane(&mut self, lane: &Lane, rows: usize) -> Vec<Line<'static>> {
        let look = style::part(self.state, lane.part);
        let mut cells = self.bars(lane);
        let below = self.failure(cells.clone());
        self.marks(lane, &mut cells);
        if rows == 1 {
            self.word(lane, &mut cells);
        }
        let mut lines = vec![self.line(&self.name(lane), look, &cells)];
        let solid = |cell: &Cell| ['█', '▓', '▒', '░', '│', '┃'].contains(&cell.0);
        if rows == ROWS && lane.bars.iter().any(|bar| bar.doing > Doing::Open) {
            let thick = below.into_iter().zip(&self.grid);
            let thick = thick.map(|(bar, blank)| if solid(&bar) { bar } else { *blank });
            lines.push(self.line("", look, &thick.collect::<Vec<_>>()));
        }
        if rows > 1 {
            let blank = self.failure(self.grid.clone());
            let words = self.words(lane, vec![blank; 1 + usize::from(rows > 2)]);
            lines.extend(words.into_iter().map(|cells| self.line("", look, &cells)));
        }
        lines
    }

    /// The name of a lane.
    fn name(&self, lane: &Lane) -> String {
        let part = match lane.part {
            _ if self.names == NAMES[0] => "",
            Part::Opener => "opener ",
            Part::Forker => "forker ",
            Part::Holder => "holder ",
            Part::Victim => "victim ",
        };
        let pid = format!("[{}]", lane.pid);
        let room = self.names.saturating_sub(part.len() + pid.len() + 1);
        let comm = style::charset(self.state).short(lane.comm.as_deref().unwrap_or("?"), room);
        format!("{part}{comm}{pid}")
    }

    fn line(&self, name: &str, look: Style, cells: &[Cell]) -> Line<'static> {
        let padding = " ".repeat(self.names.saturating_sub(escape::width(name)));
        let mut spans = vec![Span::styled(name.to_owned(), look), Span::raw(padding)];
        for run in cells.chunk_by(|a, b| a.1 == b.1) {
            let text: String = run.iter().map(|(c, _)| *c).filter(|c| *c != '\0').collect();
            spans.push(Span::styled(text, run[0].1));
        }
        spans.into()
    }

    /// Adds a sign to the legend.
    fn sign(&mut self, place: usize, sign: char, look: Style, word: &'static str) -> Cell {
        self.legend.insert(place, (sign, look, word));
        (sign, look)
    }

    /// The sign at an edge for what continues beyond it.
    fn edge(&mut self, late: bool, look: Style) -> Cell {
        let sign = if late { '»' } else { '«' };
        self.sign(20 + usize::from(late), sign, look, if late { "later" } else { "earlier" })
    }

    /// The bars of a lane.
    fn bars(&mut self, lane: &Lane) -> Vec<Cell> {
        let mut cells = self.grid.clone();
        for bar in &lane.bars {
            self.bar(bar, &mut cells);
        }
        cells
    }

    fn bar(&mut self, bar: &Bar, cells: &mut [Cell]) {
        let state = self.state;
        let (place, sign, look) = match bar.doing {
            Doing::Open => (1, '━', style::opener(state)),
            Doing::Unknown => (11, '┄', style::faint()),
            Doing::Forking => (3, '░', style::fork(state)),
            Doing::Held => (4, '█', style::holder(state)),
            Doing::Exec => (5, '▓', style::exec(state)),
            Doing::Running => (6, '▒', style::holder(state)),
        };
        let word = bar.doing.word();
        let last = cells.len() - 1;
        let axis = self.axis;
        if axis.is_before(bar.to) {
            cells[0] = self.edge(false, look);
            return;
        }
        if axis.is_after(bar.from) {
            cells[last] = self.edge(true, look);
            return;
        }
        let cell = self.sign(place, sign, look, word);
        let (start, end) = (axis.nearest(bar.from), axis.nearest(bar.to));
        for column in &mut cells[start..=end.max(start)] {
            if column.0 != BREAK {
                *column = cell;
            }
        }
        if bar.from == i64::MIN {
            cells[0] = ('?', look);
        } else if axis.is_before(bar.from) {
            cells[0] = self.edge(false, look);
        }
        if bar.to == i64::MAX && bar.doing == Doing::Unknown {
            cells[last] = ('?', look);
        } else if bar.to == i64::MAX {
            let word = if bar.doing == Doing::Running { "still running" } else { "still held" };
            cells[last] = self.sign(8, '→', look, word);
        } else if axis.is_after(bar.to) {
            cells[last] = self.edge(true, look);
        }
    }

    /// Draws the failure across the cells.
    fn failure(&self, mut cells: Vec<Cell>) -> Vec<Cell> {
        let look = style::bad(self.state);
        if let Some(column) = self.axis.column(0) {
            let busy = !matches!(cells[column].0, ' ' | '┊' | '┄');
            cells[column] = (if busy { '┃' } else { '│' }, look);
        }
        cells
    }

    /// Draws the events as signs over the bars.
    fn marks(&mut self, lane: &Lane, cells: &mut Vec<Cell>) {
        *cells = self.failure(std::mem::take(cells));
        let state = self.state;
        for mark in &lane.marks {
            let (place, sign, look, word) = match mark.event {
                Event::Opened => (0, '●', style::opener(state), "opened"),
                Event::Forked => (2, '┬', style::fork(state), "fork"),
                Event::Released => (7, '○', style::good(state), "released"),
                Event::Failed => (10, 'X', style::bad(state), "failed"),
                Event::Succeeded => (11, 'E', style::good(state), "exec"),
                // The end of its bar shows this.
                Event::Holding if mark.at == i64::MAX => continue,
                Event::Holding => (9, '▶', style::holder(state), "held now"),
            };
            let look = look.patch(style::strong());
            let column = self.axis.nearest(mark.at);
            cells[column] = match self.axis.column(mark.at) {
                Some(_) => self.sign(place, sign, look, word),
                None => self.edge(column > 0, look),
            };
        }
    }

    /// Writes how it ended after its sign, if there is room.
    fn word(&self, lane: &Lane, cells: &mut [Cell]) {
        for mark in &lane.marks {
            let (raw, look) = match mark.event {
                Event::Failed => ("Text file busy", style::bad(self.state)),
                Event::Succeeded => ("succeeded", style::good(self.state)),
                Event::Released => (mark.text.as_str(), style::faint()),
                _ => continue,
            };
            let Some(column) = self.axis.column(mark.at) else { continue };
            let blank = |(c, _): &&Cell| [' ', '┊'].contains(c);
            let free = cells[column + 1..].iter().take_while(blank).count();
            if let Some(text) = self.fitting(raw, free.saturating_sub(2)) {
                put(cells, column + 2, &text, look);
            }
        }
    }

    /// A text, escaped and shortened to the room; `None` if there is too little room.
    fn fitting(&self, raw: &str, room: usize) -> Option<String> {
        let text = style::charset(self.state).short(raw, room);
        (room >= WORTH || escape::width(&text) <= room && !text.contains('…')).then_some(text)
    }

    /// Writes the texts of the events below their signs, in the first row with room: to the right, or
    /// else to the left.
    fn words(&self, lane: &Lane, mut rows: Vec<Vec<Cell>>) -> Vec<Vec<Cell>> {
        let mut marks: Vec<&Mark> = lane.marks.iter().collect();
        marks.sort_by_key(|mark| mark.at);
        let last = self.axis.columns - 1;
        let place = |at: i64| if at == i64::MAX { Some(last) } else { self.axis.column(at) };
        let failure = self.axis.column(0);
        let mut free = vec![0; rows.len()];
        for (at, mark) in marks.iter().enumerate() {
            let Some(column) = place(mark.at) else { continue };
            let sign = if mark.at < 0 { '-' } else { '+' };
            let time = match mark.at {
                0 | i64::MAX => String::new(),
                at => format!("{sign}{} ", time::span(at.unsigned_abs())),
            };
            // The hook, a space, and a space before the next text.
            let used = escape::width(&time) + 3;
            let wide = escape::width(&style::charset(self.state).text(&mark.text));
            let next = marks[at + 1..].iter().find_map(|mark| place(mark.at));
            let right = |row: usize| {
                // The next text is usually in the first row, so only that row needs room for it.
                let next = next.filter(|_| row == 0).into_iter();
                let next = next.chain(failure.filter(|it| *it > column)).min();
                (next.unwrap_or(last + 2) - column).saturating_sub(used)
            };
            let left = |row: usize| {
                let failure = failure.filter(|it| *it < column).map_or(0, |it| it + 2);
                (column + 2).saturating_sub(free[row].max(failure) + used)
            };
            let passable = |row: &usize| free[..=*row].iter().all(|free| *free <= column);
            let sides = (0..rows.len()).filter(passable);
            let sides: Vec<(usize, usize, bool)> =
                sides.flat_map(|row| [(row, right(row), true), (row, left(row), false)]).collect();
            let fits = sides.iter().find(|(_, room, _)| wide <= *room);
            let Some(&(row, room, rightwards)) =
                fits.or_else(|| sides.iter().max_by_key(|(_, room, _)| *room))
            else {
                continue;
            };
            let Some(text) = self.fitting(&mark.text, room) else { continue };
            let text = format!("{time}{text}");
            let failed = mark.event == Event::Failed;
            let look = if failed { style::bad(self.state) } else { style::faint() };
            let text = if rightwards { format!("└ {text}") } else { format!("{text} ┘") };
            let start =
                if rightwards { column } else { (column + 1).saturating_sub(escape::width(&text)) };
            free[row] = put(&mut rows[row], start, &text, look) + 1;
            for above in &mut rows[..row] {
                above[column] = ('│', look);
            }
        }
        rows
    }
}

/// Puts a text into the cells from `column` on; returns its end.
fn put(cells: &mut [Cell], column: usize, text: &str, look: Style) -> usize {
    let mut at = column;
    for c in text.chars() {
        let wide = escape::width(c.encode_utf8(&mut [0; 4]));
        if let Some(cells) = cells.get_mut(at..at + wide) {
            // A wide character takes several columns.
            cells.fill(('\0', look));
            cells[0].0 = c;
        }
        at += wide;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{output::samples, tui::model::live::Live};
    use ratatui::{crossterm::event::KeyCode, layout::Size};

    /// The rows of a state with one incident.
    fn shown(incident: crate::event::Incident, zoom: &str, now_ns: Option<u64>) -> Vec<String> {
        let mut state = State::new(false);
        state.add(incident.clone().into());
        state.live = now_ns.map(|now_ns| Live::pending(incident, now_ns));
        for c in zoom.chars() {
            let code = KeyCode::Char(c);
            let _ = state.key(code.into());
        }
        let lines = lines(&state, Size::new(100, u16::MAX));
        lines.iter().map(|line| line.to_string().trim_end().to_owned()).collect()
    }

    #[test]
    fn the_bar_of_the_holder_crosses_the_failure() {
        let rows = shown(samples::race(), "", None);
        let column = |row: &str, sign: char| row.chars().position(|c| c == sign);
        let failure = column(&rows[2], 'X');
        assert_eq!(column(&rows[0], '│'), failure);
        assert_eq!(column(&rows[1], '┃'), failure);
        assert!(rows[3].contains('0'));
        assert!(column(&rows[0], '●') < column(&rows[0], '┬'));
        assert!(column(&rows[1], '█') < failure && failure < column(&rows[1], '○'));
    }

    #[test]
    fn a_file_still_held_and_an_end_out_of_view_have_different_signs() {
        let mut held = samples::race();
        held.holders[0].released = None;
        let rows = shown(held.clone(), "", None);
        assert!(rows[1].ends_with('→') && rows[4].contains("→ still held"), "{rows:#?}");
        let rows = shown(samples::race(), "++", None);
        assert!(rows[1].contains("«░") && rows[1].ends_with('»'), "{rows:#?}");
        assert!(rows[4].contains("« earlier") && rows[4].contains("» later"), "{rows:#?}");
        let now = held.time_ns + 50_000;
        let rows = shown(held, "", Some(now));
        assert!(rows[1].contains('▶') && rows[4].contains("▶ held now"), "{rows:#?}");
    }

    #[test]
    fn without_times_there_is_no_axis() {
        let mut incident = samples::write_direction();
        incident.holders[0].start_ns = None;
        let rows = shown(incident, "", None);
        assert!(rows[0].contains("?┄") && rows[0].ends_with("▒→"), "{rows:#?}");
        assert!(rows[2].ends_with("no times known"), "{rows:#?}");
    }
}
