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
            return format!("/{}_", style::charset(state).text(&state.search)).into();
        }
        Some(Prompt::Filter) => {
            return format!("filter: {}_", style::charset(state).text(state.filter().text()))
                .into();
        }
        Some(Prompt::Export) => return export(state),
        None => {}
    }
    let mut line = Line::default();
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

/// The lines of the page.
pub(super) fn lines(_: &State, _: Size) -> Vec<Line<'static>> {
    let row = |(name, help)| {
        Line::from(vec![Span::styled(format!("{name:>10}  "), style::strong()), Span::raw(help)])
    };
    let bindings = KEYS.iter().filter(|binding| !binding.help.is_empty());
    bindings.map(|binding| row((binding.name, binding.help))).collect()
}
