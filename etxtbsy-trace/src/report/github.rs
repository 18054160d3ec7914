//! The report as warnings of a GitHub Actions job: workflow commands, a line each.

use std::io::{self, Write};

use super::{
    compare::{self, Change, Row},
    model::Document,
    words,
};
use crate::{
    analysis::group::Member as _,
    output::{
        incident::{count, sentence},
        look::Look,
    },
};

/// GitHub shows no more warnings of a step.
const MOST: usize = 10;

/// Writes the commands.
pub(super) fn write(document: &Document, out: &mut dyn Write) -> io::Result<()> {
    let rows = compare::rows(document);
    let failed: Vec<&Row<'_>> = rows.iter().filter(|row| row.now.is_some()).collect();
    let warnings = words::warnings(&document.now);
    let mut lines = Vec::new();
    if !warnings.is_empty() {
        lines.push(command("warning", "ETXTBSY: the trace is not complete", &warnings.join("\n")));
    }
    let room = MOST - lines.len();
    let (shown, rest) = failed.split_at(if failed.len() > room { room - 1 } else { failed.len() });
    lines.extend(shown.iter().map(|row| warning(row)));
    if !rest.is_empty() {
        let incidents: u64 = rest.iter().map(|row| row.counts().0).sum();
        let groups = count(rest.len() as u64, "more group", "more groups");
        let text = format!(
            "{}; the other formats of the report show them",
            count(incidents, "incident", "incidents")
        );
        lines.push(command("warning", &format!("ETXTBSY: {groups}"), &text));
    }
    if lines.is_empty() {
        lines.push(command("notice", "ETXTBSY", &words::title(document, &rows)));
    }
    out.write_all(lines.concat().as_bytes())
}

/// The warning about a group.
fn warning(row: &Row<'_>) -> String {
    let mut text = vec![words::plain_sentence(row)];
    if let Some(group) = row.now {
        text.extend(group.places.lines().map(|(label, place)| format!("{label}: {place}")));
        text.push(format!("wait: {}", words::waits(group.tally())));
        let (helps, in_vain) = group.advice();
        let advice = helps.first().map(|one| format!("advice: {one}"));
        let in_vain = in_vain.first().map(|one| format!("does not help: {one}"));
        text.extend(advice.into_iter().chain(in_vain).map(|one| sentence(&one, Look::PLAIN)));
    }
    let incidents = count(row.counts().0, "incident", "incidents");
    let change = match (row.change(), row.counts().1) {
        (None, _) => String::new(),
        (Some(change @ Change::New), _) => format!(" ({})", change.word()),
        (Some(change), before) => format!(" ({}: {before} before)", change.word()),
    };
    let title = format!("ETXTBSY: {}, {incidents}{change}", words::verdict(row));
    command("warning", &title, &text.join("\n"))
}

/// A workflow command. The runner reads one a line, and undoes these escapes.
fn command(name: &str, title: &str, text: &str) -> String {
    format!("::{name} title={}::{}\n", property(title), data(text))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{self, HOSTILE, written};

    /// Name, properties and data.
    type Command = (String, Vec<(String, String)>, String);

    /// The commands as the runner reads them.
    fn read(text: &str) -> Vec<Command> {
        let undo = |text: &str| {
            let text = text.replace("%0D", "\r").replace("%0A", "\n");
            text.replace("%3A", ":").replace("%2C", ",").replace("%25", "%")
        };
        text.lines()
            .map(|line| {
                let (head, data) = line.strip_prefix("::").unwrap().split_once("::").unwrap();
                let (name, properties) = head.split_once(' ').unwrap();
                let properties = properties.split(',').map(|property| {
                    let (key, value) = property.split_once('=').unwrap();
                    (key.to_owned(), undo(value))
                });
                (name.to_owned(), properties.collect(), undo(data))
            })
            .collect()
    }

    #[test]
    fn recordings_a_baseline_and_nothing() {
        samples::shows_all("github", |document| written(write, document));
    }

    #[test]
    fn hostile_names_are_no_commands_and_ten_warnings_are_all() {
        for document in [samples::hostile(), samples::large()] {
            let commands = read(&written(write, &document));
            assert_eq!(commands.len(), MOST);
            for (name, properties, _) in &commands {
                assert_eq!(name, "warning");
                let keys: Vec<&str> = properties.iter().map(|(key, _)| key.as_str()).collect();
                assert_eq!(keys, ["title"]);
            }
            let groups = &commands[MOST - 1].1[0].1;
            assert!(groups.contains("more groups"), "{groups}");
        }
    }

    #[test]
    fn data_and_properties_are_read_back_equal() {
        for raw in HOSTILE {
            let line = command("warning", raw, raw);
            assert_eq!(line.matches('\n').count(), 1, "{line}");
            let title = ("title".to_owned(), (*raw).to_owned());
            assert_eq!(read(&line), [("warning".to_owned(), vec![title], (*raw).to_owned())]);
        }
    }
}
