//! The report as plain text.

use std::io::{self, Write};

use super::{
    bounded::{Bounded, MOST},
    compare::{self, Row},
    model::Document,
    words,
};
use crate::{
    analysis::group::Member as _,
    output::{
        incident::{count, sentence, without_advice},
        look::Look,
    },
    text::escape::unlike_commands,
};

/// The longest bar of a histogram, in columns.
const BAR: u64 = 40;

/// Writes the report.
pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let rows = compare::rows(document);
    let mut text = Bounded::new(MOST);
    text.block(&head(document, &rows));
    for row in &rows {
        text.block(&group(document, row));
    }
    let text = text.finish(no_room);
    out.write_all(unlike_commands(&text).as_bytes())
}

/// The groups of a report, without what all of them have in common.
#[must_use]
pub fn groups(document: &Document) -> String {
    let mut text = Bounded::new(MOST);
    for row in &compare::rows(document) {
        text.block(&group(document, row));
    }
    unlike_commands(&text.finish(no_room))
}

/// What stands for groups that the report has no room for.
fn no_room(more: u64) -> String {
    let more = count(more, "more group", "more groups");
    format!("\n{more}: the report has no room for them\n")
}

fn head(document: &Document, rows: &[Row<'_>]) -> String {
    let mut out = words::title(document, rows) + "\n";
    for part in words::parts(document) {
        out += &part.heading.map(|heading| format!("\n{heading}\n")).unwrap_or_default();
        let labelled = [
            ("recorded", words::runs(part.report)),
            ("total", words::totals(part.report)),
            ("warning", words::warnings(part.report)),
            ("change first", part.report.change_first().into_iter().collect()),
        ];
        for (label, lines) in labelled {
            for (at, line) in lines.iter().enumerate() {
                let line = sentence(line, Look::PLAIN);
                out += &labelled_line(if at == 0 { label } else { "" }, &line);
            }
        }
    }
    if !rows.is_empty() {
        out += &format!("{}\n", words::WAIT);
    }
    out
}

fn labelled_line(label: &str, text: &str) -> String {
    format!("  {label:13}{text}\n")
}

fn group(document: &Document, row: &Row<'_>) -> String {
    let mut out =
        format!("\n{}. {}: {}\n", row.number, words::verdict(row), words::plain_sentence(row));
    for (label, fact) in words::facts(document, row) {
        out += &labelled_line(label, &fact);
    }
    let Some(group) = row.group() else { return out };
    let sizes = words::histogram(group.tally());
    // A single size is in the line above.
    if sizes.len() > 1 {
        let most = sizes.iter().map(|(_, count)| *count).max().unwrap_or(1).max(1);
        for (size, count) in sizes {
            let bar = "#".repeat(bar(count, most) as usize);
            out += &labelled_line("", format!("{size:>9} {count:>7} {bar}").trim_end());
        }
    }
    for (label, example) in words::shown(group) {
        out += &labelled_line(label, &words::origin(words::source(document, row), example));
        for line in without_advice(&example.incident, Look::PLAIN).lines() {
            out += &format!("    {line}\n");
        }
    }
    let (helps, in_vain) = group.advice();
    for (label, advice) in [("advice", helps), ("in vain", in_vain)] {
        for (at, one) in advice.iter().enumerate() {
            out += &labelled_line(if at == 0 { label } else { "" }, &sentence(one, Look::PLAIN));
        }
    }
    out
}

/// The length of a bar; a count above zero has one.
fn bar(count: u64, most: u64) -> u64 {
    (u128::from(count) * u128::from(BAR)).div_ceil(u128::from(most)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{self, written};

    #[test]
    fn recordings_a_baseline_and_nothing() {
        samples::shows_all("text", |document| written(write, document));
    }

    #[test]
    fn a_group_has_the_places_of_its_first_incident() {
        samples::shows("text-stacks", &written(write, &samples::with_stacks()));
    }

    #[test]
    fn hostile_names_stay_within_their_line() {
        let text = written(write, &samples::hostile());
        assert!(crate::output::samples::harmless(&text), "{text}");
        samples::has_no_commands(&text);
    }

    #[test]
    fn the_length_is_bounded() {
        let text = written(write, &samples::large());
        assert!(text.len() <= MOST && text.len() > MOST / 2, "{}", text.len());
        assert!(text.ends_with("the report has no room for them\n"));
    }
}
