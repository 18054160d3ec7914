//! The lines of `check`, told to people.

use super::{
    escape,
    look::{Look, Tone},
    name,
};
use crate::check::lines::{Checked, Fact, Line, Status};

/// The columns of the longest name but one; the longest stands out.
const NAME: usize = 26;

/// A line of text, with its end.
#[must_use]
pub fn text(line: &Line, color: bool) -> String {
    let look = Look { color, verbose: true };
    match line {
        Line::Fact(found) => fact(found, look),
        Line::Check(checked) => conclusion(checked, look),
    }
}

fn fact(Fact { name: what, status, purpose, found, instead, remedy, .. }: &Fact, look: Look) -> String {
    let mut text = escape::prose(found);
    if *status != Status::Ok {
        text += &format!(" (needed {purpose})");
    }
    if let Some(instead) = instead {
        text += &format!("; instead: {instead}");
    }
    if let Some(remedy) = remedy {
        text += &format!(": {}", look.paint(Tone::Strong, remedy));
    }
    let (tone, status) = (tone(*status), name(status));
    format!("{} {what:<NAME$} {text}\n", look.paint(tone, &format!("{status:<8}")))
}

fn conclusion(checked: &Checked, look: Look) -> String {
    let Checked { works, ok, degraded, missing, unknown, .. } = checked;
    let (tone, comes_to) = match works {
        true => (Tone::Good, "tracing will work"),
        false => (Tone::Bad, "tracing will not work"),
    };
    format!(
        "\n{}: {ok} ok, {degraded} degraded, {missing} missing, {unknown} unknown\n",
        look.paint(tone, comes_to)
    )
}

fn tone(status: Status) -> Tone {
    match status {
        Status::Ok => Tone::Good,
        Status::Degraded => Tone::Holder,
        Status::Missing => Tone::Bad,
        Status::Unknown => Tone::Faint,
    }
}
