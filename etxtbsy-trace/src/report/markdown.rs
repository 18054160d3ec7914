//! The report as Markdown, as GitHub renders it in the summary of a CI job.

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
    text::{
        escape::{self, unlike_commands},
        time,
    },
};

/// How many groups the table has.
const TABLE: usize = 50;
/// The most advice of a group that is shown at once.
const SHORT: usize = 3;

/// Writes the report.
pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let rows = compare::rows(document);
    let mut text = Bounded::new(MOST);
    text.block(&head(document, &rows));
    if !rows.is_empty() {
        text.block(&table(&rows));
    }
    for row in &rows {
        text.block(&group(document, row));
    }
    let text = text.finish(|more| {
        format!("\n{}: the report has no room for them\n", count(more, "more part", "more parts"))
    });
    out.write_all(unlike_commands(&text).as_bytes())
}

fn head(document: &Document, rows: &[Row<'_>]) -> String {
    let mut out = format!("## ETXTBSY: {}\n", prose(&words::title(document, rows)));
    for part in words::parts(document) {
        out += &part.heading.map(|heading| format!("\n### {heading}\n")).unwrap_or_default();
        let warnings = words::warnings(part.report);
        for line in &warnings {
            out += &format!("\n> **Warning:** {}\n", prose(line));
        }
        out.push('\n');
        for line in words::totals(part.report) {
            out += &format!("- {}\n", prose(&line));
        }
        if let Some(first) = part.report.change_first() {
            out += &format!("- **Change first:** {}\n", prose(&sentence(&first, Look::PLAIN)));
        }
        out += "\n<details><summary>What was traced</summary>\n\n";
        for line in words::runs(part.report) {
            out += &format!("- {}\n", prose(&line));
        }
        out += "\n</details>\n";
    }
    out
}

/// The groups, a row each.
fn table(rows: &[Row<'_>]) -> String {
    let is_compared = rows.iter().any(|row| row.is_compared);
    let counts = if is_compared { "Before | Now | Change" } else { "Count" };
    let lines = if is_compared { "--: | --: | :--" } else { "--:" };
    let mut out = format!(
        "\n| | {counts} | Explained | Verdict | Median wait | Longest wait | Still held | What |\n\
         | --: | {lines} | --: | :-- | --: | --: | --: | :-- |\n"
    );
    for row in rows.iter().take(TABLE) {
        let Some(group) = row.group() else { continue };
        let tally = group.tally();
        let (now, before) = row.counts();
        let counts = match row.change() {
            Some(change) => format!("{before} | {now} | **{}**", change.word()),
            None => now.to_string(),
        };
        let (median, longest) = tally.waits().map_or_else(
            || ("–".to_owned(), "–".to_owned()),
            |(median, longest)| (time::span(median), time::span(longest)),
        );
        let what = words::sentence(row, &|_, raw, columns| code(raw, columns, true));
        out += &format!(
            "| {} | {counts} | {} | {} | {median} | {longest} | {} | {what} |\n",
            row.number,
            tally.explained,
            prose(&words::verdict(row)),
            tally.endless,
        );
    }
    if rows.len() > TABLE {
        let more = count((rows.len() - TABLE) as u64, "more group", "more groups");
        out += &format!("\n{more} below.\n");
    }
    out + &format!("\n{}\n", prose(words::WAIT))
}

fn group(document: &Document, row: &Row<'_>) -> String {
    let mut out = format!("\n### {}. {}\n\n", row.number, prose(&words::verdict(row)));
    out += &words::sentence(row, &|_, raw, columns| code(raw, columns, false));
    out += "\n\n";
    for (label, fact) in words::facts(document, row) {
        out += &format!("- {label}: {}\n", prose(&fact));
    }
    let Some(group) = row.group() else { return out };
    let (helps, in_vain) = group.advice();
    out += &list("What helps", &helps);
    out += &list("What does not help here", &in_vain);
    let sizes = words::histogram(group.tally());
    if sizes.len() > 1 {
        out += "\n<details><summary>How long a retry would have had to wait</summary>\n\n";
        out += "| Wait | Incidents |\n| --: | --: |\n";
        for (size, count) in sizes {
            out += &format!("| {size} | {count} |\n");
        }
        out += "\n</details>\n";
    }
    for (label, example) in words::shown(group) {
        out += &format!("\n<details><summary>In full: {label}</summary>\n\n");
        out += &prose(&words::origin(words::source(document, row), example));
        out += &format!(
            "\n\n{}\n</details>\n",
            block(&without_advice(&example.incident, Look::PLAIN))
        );
    }
    out
}

/// Advice: the first at once, the rest on demand.
fn list(heading: &str, advice: &[String]) -> String {
    if advice.is_empty() {
        return String::new();
    }
    let line = |one: &String| format!("- {}\n", prose(&sentence(one, Look::PLAIN)));
    let (first, rest) = advice.split_at(advice.len().min(SHORT));
    let mut out = format!("\n**{heading}**\n\n{}", first.iter().map(line).collect::<String>());
    if !rest.is_empty() {
        out += "\n<details><summary>More</summary>\n\n";
        out += &rest.iter().map(line).collect::<String>();
        out += "\n</details>\n";
    }
    out
}

/// The longest run of backticks.
fn backticks(text: &str) -> usize {
    text.split(|c| c != '`').map(str::len).max().unwrap_or(0)
}

/// A name as a code span, in at most that many columns before quoting. Within a table, `|` would end the
/// cell, in code too.
fn code(raw: &str, columns: usize, in_table: bool) -> String {
    let shown = match escape::short(raw, columns) {
        empty if empty.is_empty() => "(empty)".to_owned(),
        shown => shown,
    };
    let fence = "`".repeat(backticks(&shown) + 1);
    // A span loses one space at each end; a backtick there would lengthen the fence.
    let pad = if shown.starts_with(['`', ' ']) || shown.ends_with(['`', ' ']) { " " } else { "" };
    let shown = if in_table { shown.replace('|', "\\|") } else { shown };
    format!("{fence}{pad}{shown}{pad}{fence}")
}

/// Lines that are shown as they are.
fn block(text: &str) -> String {
    let fence = "`".repeat(backticks(text).max(2) + 1);
    format!("{fence}text\n{}\n{fence}\n", text.trim_end())
}

/// A sentence with names that other processes chose, as plain text: no character of it is markup, and
/// nothing becomes a link or a mention.
fn prose(text: &str) -> String {
    /// Invisible; what it separates is no address.
    const APART: &str = "&#8203;";
    let mut out = String::with_capacity(text.len() + 16);
    let begin = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let marker = text.len() - begin.len();
    for (at, c) in text.char_indices() {
        let rest = &text[at + c.len_utf8()..];
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '$' => out.push_str("&#36;"),
            '@' => {
                out.push('@');
                out.push_str(APART);
            }
            ':' if rest.starts_with("//") => {
                out.push(':');
                out.push_str(APART);
            }
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' | '{' | '}' | '^' => {
                out.push('\\');
                out.push(c);
            }
            // What begins a list, a heading or a rule.
            '-' | '+' | '=' if at == 0 => {
                out.push('\\');
                out.push(c);
            }
            '.' | ')' if marker > 0 && at == marker => {
                out.push('\\');
                out.push(c);
            }
            '.' if text[..at].to_ascii_lowercase().ends_with("www") => {
                out.push_str(APART);
                out.push('.');
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

    use super::*;
    use crate::report::samples::{self, HOSTILE, written};

    /// What a reader of `text` sees, and all HTML in it.
    fn rendered(text: &str) -> (String, Vec<String>) {
        let (mut shown, mut html) = (String::new(), Vec::new());
        for event in Parser::new_ext(
            text,
            Options::ENABLE_TABLES
                | Options::ENABLE_GFM
                | Options::ENABLE_STRIKETHROUGH
                | Options::ENABLE_MATH,
        ) {
            match event {
                Event::Text(text) | Event::Code(text) => shown += &text,
                Event::Html(text) | Event::InlineHtml(text) => {
                    html.extend(text.lines().map(str::to_owned));
                }
                Event::End(
                    TagEnd::Item | TagEnd::TableCell | TagEnd::Paragraph | TagEnd::Heading(_),
                ) => {
                    shown.push('\n');
                }
                Event::Start(
                    tag @ (Tag::Link { .. }
                    | Tag::Image { .. }
                    | Tag::Emphasis
                    | Tag::Strikethrough),
                ) => panic!("{tag:?} in {text}"),
                Event::InlineMath(text) | Event::DisplayMath(text) => panic!("math: {text}"),
                _ => {}
            }
        }
        (shown.replace('\u{200b}', ""), html)
    }

    #[test]
    fn recordings_a_baseline_and_nothing() {
        samples::shows_all("markdown", |document| written(write, document));
    }

    #[test]
    fn names_are_no_markup() {
        for raw in HOSTILE {
            let shown = escape::short(raw, 60);
            let visible = shown.trim();
            for in_table in [false, true] {
                let span = code(raw, 60, in_table);
                let text = if in_table { format!("| a |\n| - |\n| {span} |\n") } else { span };
                let (seen, html) = rendered(&text);
                assert!(seen.contains(visible) && html.is_empty(), "{raw:?} as {text} is {seen}");
            }
            for text in [format!("- {}", prose(&shown)), prose(&shown)] {
                let (seen, html) = rendered(&text);
                assert!(seen.contains(visible) && html.is_empty(), "{raw:?} as {text} is {seen}");
            }
            let (seen, html) = rendered(&block(&shown));
            assert!(seen.contains(visible) && html.is_empty(), "{raw:?} is {seen}");
        }
    }

    #[test]
    fn hostile_names_inject_neither_html_nor_commands() {
        let text = written(write, &samples::hostile());
        let (_, html) = rendered(&text);
        assert!(!html.is_empty());
        for line in html {
            let own = line.starts_with("<details><summary>") || line == "</details>";
            assert!(own && !line.contains("script"), "{line}");
        }
        samples::has_no_commands(&text);
    }

    #[test]
    fn the_length_is_bounded() {
        let text = written(write, &samples::large());
        assert!(text.len() <= MOST && text.len() > MOST / 2, "{}", text.len());
    }
}
