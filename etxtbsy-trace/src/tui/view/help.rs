//! The footer, and the page of keys.

use super::style;
use crate::{
    text::escape,
    tui::{
        input::keys::KEYS,
        model::{
            export::Export,
            state::{Prompt, State},
        },
    },
};
use ratatui::{
    layout::Size,
    text::{Line, Span},
};

/// The footer in that many columns: the prompt, or the messages and as many keys as fit.
pub(super) fn footer(state: &State, columns: usize) -> Line<'static> {
    match state.prompt {
        Some(Prompt::Search) => {
            return search(state, "_");
        }
        Some(Prompt::Filter) => {
            return format!("filter: {}_", style::charset(state).text(state.filter().text()))
                .into();
        }
        Some(Prompt::Export) => return export(state),
        Some(Prompt::Quit) => return quit(state),
        None => {}
    }
    let mut line = Line::default();
    if !state.model.search().is_empty() && state.page.is_none() && state.notice.is_none() {
        line = search(state, "");
        line.push_span("  ");
    }
    let messages = [(&state.notice, style::strong()), (&state.ended, style::holder(state))];
    for (message, style) in messages {
        if let Some(text) = message {
            line.push_span(Span::styled(format!("{}  ", style::charset(state).prose(text)), style));
        }
    }
    for binding in KEYS.iter().filter(|binding| !binding.word.is_empty()) {
        let width = line.width() + escape::width(binding.name) + 1 + escape::width(binding.word);
        if width > columns {
            break;
        }
        line.push_span(Span::styled(binding.name, style::strong()));
        line.push_span(format!(" {}  ", binding.word));
    }
    line
}

/// The text that is searched for, and which of how many matches is selected.
fn search(state: &State, cursor: &str) -> Line<'static> {
    let search = state.model.search();
    let text = style::charset(state).text(search.text());
    let mut line = Line::raw(format!("/{text}{cursor}"));
    if !search.is_empty() {
        let place = match state.list().found(&state.model) {
            (Some(place), count) => format!("  {place} of {count}"),
            (None, 0) => "  no match".to_owned(),
            (None, 1) => "  1 match".to_owned(),
            (None, count) => format!("  {count} matches"),
        };
        line.push_span(Span::styled(place, style::strong()));
    }
    line
}

/// The question before the end of a session that was not saved.
fn quit(state: &State) -> Line<'static> {
    let count = state.unsaved();
    let s = if count == 1 { " is" } else { "s are" };
    let mut line = Line::raw(format!("{count} incident{s} not saved: "));
    for (key, word) in [("q", " quit  "), ("s", " export  "), ("Esc", " stay")] {
        line.push_span(Span::styled(key, style::strong()));
        line.push_span(word);
    }
    line
}

/// The prompt for the scope of an export.
fn export(state: &State) -> Line<'static> {
    let mut line = Line::raw("export ");
    for (key, word, scope) in state.scopes() {
        let count = Export::new(&state.model, scope).count();
        line.push_span(Span::styled(key.to_string(), style::strong()));
        line.push_span(format!(" {word} ({count})  "));
    }
    line.push_span(Span::styled("Esc", style::strong()));
    line.push_span(" cancel");
    line
}

/// What the mouse does.
const MOUSE: (&str, &str) =
    ("mouse", "click, wheel, drag the timeline; Shift selects text; off: --no-mouse");

/// The lines of the page.
pub(super) fn lines(state: &State, _: Size) -> Vec<Line<'static>> {
    let row = |(name, help)| {
        Line::from(vec![Span::styled(format!("{name:>10}  "), style::strong()), Span::raw(help)])
    };
    let bindings = KEYS.iter().filter(|binding| !binding.help.is_empty());
    let bindings = bindings.map(|binding| (binding.name, binding.help));
    bindings.chain(state.mouse.then_some(MOUSE)).map(row).collect()
}
