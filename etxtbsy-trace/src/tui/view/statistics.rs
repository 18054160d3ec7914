//! The page of statistics: waits, verdicts, holders and victims.

use super::style;
use crate::{
    text::{
        escape::{self, Charset},
        name, time,
    },
    tui::model::{
        state::State,
        statistics::{DECADES, Program, Statistics, Top},
    },
};
use ratatui::{
    layout::Size,
    text::{Line, Span},
};

/// From this width on, two tables are side by side.
const WIDE: usize = 76;
/// The columns between them.
const GAP: usize = 2;
/// The fewest programs in a list.
const PROGRAMS: usize = 5;
/// The width of the labels of waits and verdicts.
const LABEL: usize = 19;
/// The width of a count and its percentage.
const COUNT: usize = 12;
/// The names of the classes of waits.
const CLASSES: [&str; DECADES.len() + 1] = [
    "under 1 µs",
    "1 - 10 µs",
    "10 - 100 µs",
    "0.1 - 1 ms",
    "1 - 10 ms",
    "10 - 100 ms",
    "0.1 - 1 s",
    "1 - 10 s",
    "10 - 100 s",
    "over 100 s",
];

/// The lines of the page for a size.
pub(super) fn lines(state: &State, size: Size) -> Vec<Line<'static>> {
    let statistics = &state.model.statistics;
    let width = usize::from(size.width);
    let two = width >= WIDE;
    let table = Table { state, width: if two { (width - GAP) / 2 } else { width } };
    let (waits, verdicts) = (table.waits(), table.verdicts());
    let above = if two { waits.len().max(verdicts.len()) } else { 0 };
    // Three lines: an empty line, the heading, and the line of the others.
    let room = usize::from(size.height).saturating_sub(above + 3).max(PROGRAMS);
    let holders = table.programs("holders, by incidents", &statistics.holders, room);
    let victims = table.programs("victims", &statistics.victims, room);
    if two {
        let mut lines = table.beside(waits, verdicts);
        lines.push(Line::default());
        lines.extend(table.beside(holders, victims));
        return lines;
    }
    [waits, verdicts, holders, victims].join(&Line::default())
}

/// A table of the page.
struct Table<'a> {
    state: &'a State,
    width: usize,
}

impl Table<'_> {
    fn statistics(&self) -> &Statistics {
        &self.state.model.statistics
    }

    /// How long the files stayed busy after the failure, by class.
    fn waits(&self) -> Vec<Line<'static>> {
        let Statistics { tally, waits, unknown, .. } = self.statistics();
        let shown = tally.waits().map(|(median, longest)| {
            format!(": median {}, longest {}", time::span(median), time::span(longest))
        });
        let mut lines = vec![self.heading(&format!("busy{}", shown.unwrap_or_default()))];
        let first = waits.iter().position(|count| *count > 0).unwrap_or(waits.len());
        let last = waits.iter().rposition(|count| *count > 0).map_or(0, |last| last + 1);
        let mut rows: Vec<(String, u64)> =
            (first..last).map(|class| (CLASSES[class].to_owned(), waits[class])).collect();
        rows.push(("still held".to_owned(), tally.endless));
        rows.push(("holder not found".to_owned(), *unknown));
        lines.extend(self.bars(&rows));
        let skipped = self.state.model.incidents.saturating_sub(tally.count);
        if skipped > 0 {
            let text = format!("{skipped} more not counted here: they came too fast");
            lines.push(Line::styled(text, style::bad(self.state)));
        }
        lines
    }

    /// The number of incidents by verdict.
    fn verdicts(&self) -> Vec<Line<'static>> {
        let mut rows: Vec<(String, u64)> =
            self.statistics().verdicts.iter().map(|(kind, count)| (name(*kind), *count)).collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        let mut lines = vec![self.heading("verdicts")];
        lines.extend(self.bars(&rows));
        lines
    }

    /// The most frequent programs.
    fn programs(&self, title: &str, top: &Top, most: usize) -> Vec<Line<'static>> {
        let (first, rest) = top.first(most.saturating_sub(1));
        let mut lines = vec![self.heading(title)];
        let room = self.width.saturating_sub(COUNT);
        let charset = style::charset(self.state);
        let row = |label: String, count| {
            let pad = " ".repeat(room.saturating_sub(escape::width(&label)));
            Line::from(vec![Span::raw(label + &pad), self.count(count)])
        };
        lines.extend(
            first
                .into_iter()
                .map(|(program, count)| row(program_name(program, charset, room), count)),
        );
        if rest > 0 {
            lines.push(row("(others)".to_owned(), rest));
        }
        lines
    }

    /// Rows of a label, a bar that is proportional to the count, and the count.
    fn bars(&self, rows: &[(String, u64)]) -> Vec<Line<'static>> {
        let highest = rows.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
        let room = self.width.saturating_sub(LABEL + COUNT + 1);
        let block = if self.state.ascii { "#" } else { "█" };
        let row = |(label, count): &(String, u64)| {
            let length = (u128::from(*count) * room as u128).div_ceil(u128::from(highest));
            let length = usize::try_from(length).unwrap_or(room).min(room);
            let bar = format!("{}{} ", block.repeat(length), " ".repeat(room - length));
            Line::from(vec![
                Span::raw(format!("{label:<LABEL$}")),
                Span::styled(bar, style::holder(self.state)),
                self.count(*count),
            ])
        };
        rows.iter().map(row).collect()
    }

    /// A count, and its percentage of all incidents.
    fn count(&self, count: u64) -> Span<'static> {
        let all = u128::from(self.statistics().tally.count.max(1));
        let percent = (u128::from(count) * 100 + all / 2) / all;
        let percent = match percent {
            0 if count > 0 => "<1%".to_owned(),
            percent => format!("{percent}%"),
        };
        Span::styled(format!("{count:>7} {percent:>4}"), style::strong())
    }

    fn heading(&self, text: &str) -> Line<'static> {
        style::fit(Line::styled(text.to_owned(), style::strong()), self.width)
    }

    /// Two tables side by side.
    fn beside(&self, left: Vec<Line<'static>>, right: Vec<Line<'static>>) -> Vec<Line<'static>> {
        let rows = left.len().max(right.len());
        let (mut left, mut right) = (left.into_iter(), right.into_iter());
        let pair = |_| {
            let mut line = left.next().unwrap_or_default();
            let gap = (self.width + GAP).saturating_sub(line.width());
            // A style of the whole line would also apply to the right half.
            let style = std::mem::take(&mut line.style);
            line.spans.iter_mut().for_each(|span| span.style = style.patch(span.style));
            line.push_span(" ".repeat(gap));
            let right = right.next().unwrap_or_default();
            line.spans.extend(right.spans.into_iter().map(|span| span.patch_style(right.style)));
            line
        };
        (0..rows).map(pair).collect()
    }
}

/// A program in that many columns: its executable and, if it differs, its name.
fn program_name((comm, exe): &Program, charset: Charset, columns: usize) -> String {
    let base = exe.as_deref().and_then(|exe| exe.rsplit('/').next());
    match (comm.as_deref(), exe.as_deref()) {
        (Some(comm), Some(exe)) if base != Some(comm) => {
            let comm = charset.short(comm, 16);
            let room = columns.saturating_sub(escape::width(&comm) + 3);
            format!("{} ({comm})", charset.short(exe, room))
        }
        (_, Some(exe)) => charset.short(exe, columns),
        (Some(comm), None) => charset.short(comm, columns),
        (None, None) => "(unknown)".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_names_have_their_limits() {
        for (limit, name) in DECADES.iter().zip(&CLASSES[1..]) {
            let (number, unit) = time::parts(*limit);
            let number = number.trim_end_matches(".00").trim_end_matches(".0");
            let begins = match *limit {
                100_000_000_000 => "over 100 s".to_owned(),
                _ if number == "100" => "0.1 - 1 ".to_owned(),
                _ => format!("{number} - {number}0 {unit}"),
            };
            assert!(name.starts_with(&begins), "{name} is not {begins}");
        }
        assert!(CLASSES.iter().all(|name| escape::width(name) < LABEL));
    }

    #[test]
    fn program_names_do_not_repeat_the_executable() {
        let named = |comm: Option<&str>, exe: Option<&str>, columns| {
            let program = (comm.map(str::to_owned), exe.map(str::to_owned));
            program_name(&program, Charset::Unicode, columns)
        };
        assert_eq!(named(Some("demo"), Some("/usr/bin/demo"), 40), "/usr/bin/demo");
        assert_eq!(named(Some("worker-N"), Some("/usr/bin/demo"), 40), "/usr/bin/demo (worker-N)");
        assert_eq!(named(Some("worker-N"), Some("/usr/bin/demo"), 18), "/u…demo (worker-N)");
        assert_eq!(named(Some("x\n"), None, 40), r"x\n");
        assert_eq!(named(None, None, 40), "(unknown)");
    }
}
