//! The lines of `check` as text.

use super::look::{Look, Tone};
use crate::event::check::{Checked, Fact, Line, Status};
use crate::text::{escape, name};

/// The width of the column of names.
const NAME: usize = 26;

/// A line as text, with its newline.
#[must_use]
pub fn text(line: &Line, color: bool) -> String {
    let look = Look { color, verbose: true, ..Look::PLAIN };
    match line {
        Line::Fact(found) => fact(found, look),
        Line::Check(checked) => conclusion(checked, look),
    }
}

fn fact(fact: &Fact, look: Look) -> String {
    let status = look.paint(tone(fact.status), &format!("{:<8}", name(fact.status)));
    let finding = escape::prose(&fact.finding());
    let remedy = match &fact.remedy {
        Some(remedy) => format!(": {}", look.paint(Tone::Strong, remedy)),
        None => String::new(),
    };
    format!("{status} {:<NAME$} {finding}{remedy}\n", fact.name)
}

fn conclusion(checked: &Checked, look: Look) -> String {
    let Checked { mend_first, ok, degraded, missing, unknown, .. } = checked;
    let result = match mend_first {
        None => look.paint(Tone::Good, "tracing will work"),
        Some(what) => look.paint(Tone::Bad, &format!("tracing will not work: {what} is missing")),
    };
    format!("\n{result}: {ok} ok, {degraded} degraded, {missing} missing, {unknown} unknown\n")
}

fn tone(status: Status) -> Tone {
    match status {
        Status::Ok => Tone::Good,
        Status::Degraded => Tone::Holder,
        Status::Missing => Tone::Bad,
        Status::Unknown => Tone::Faint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::check::Theme;

    fn missing(found: &str) -> Line {
        Line::Fact(Fact {
            theme: Theme::Privileges,
            name: "CAP_PERFMON".to_owned(),
            status: Status::Missing,
            purpose: "to attach".to_owned(),
            found: found.to_owned(),
            instead: None,
            remedy: Some("put sudo before the command".to_owned()),
        })
    }

    #[test]
    fn a_fact_is_one_line_with_its_remedy() {
        assert_eq!(
            text(&missing("uid 1000 does not have it"), false),
            "missing  CAP_PERFMON                uid 1000 does not have it (needed to attach): put sudo before the command\n"
        );
        let hostile = text(&missing("a\nb\x1b[31m"), false);
        assert!(hostile.ends_with('\n') && hostile.lines().count() == 1, "{hostile}");
        assert!(!hostile.contains('\x1b'), "{hostile}");
    }

    #[test]
    fn the_status_is_coloured_on_request() {
        let coloured = text(&missing("no"), true);
        assert!(coloured.starts_with("\x1b[1m\x1b[31mmissing"), "{coloured:?}");
    }
}
