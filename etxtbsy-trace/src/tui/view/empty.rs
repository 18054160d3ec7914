//! What the view shows before the first incident: what is watched, what was seen, and how to try it.

use super::style;
use crate::{output::text::watched, tui::model::state::State};
use ratatui::{
    Frame,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph},
};

/// A failure that a shell can make, by itself and without root.
const TRY: &str = "(cp /bin/true /tmp/busy && exec 3>>/tmp/busy && /tmp/busy)";
/// The columns of the labels.
const LABEL: usize = 10;

/// Draws the page.
pub(super) fn draw(frame: &mut Frame, state: &State, area: Rect) {
    let block = Block::new().borders(Borders::TOP).title("[incidents]");
    let inner = block.inner(area);
    let width = usize::from(inner.width);
    let lines = lines(state, width).into_iter().map(|line| style::fit(line, width));
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inner);
}

fn lines(state: &State, width: usize) -> Vec<Line<'static>> {
    let is_over = state.ended.is_some() || state.model.summary.is_some();
    let title = match (&state.live, is_over) {
        (None, true) => "no incident in this recording",
        (Some(_), true) => "no incident",
        (_, false) => "no incident yet",
    };
    let mut lines = vec![Line::styled(title, style::strong()), Line::default()];
    let row = |label: &str, text: String| {
        let indent = |at: usize| if at == 0 { label.to_owned() } else { String::new() };
        let wrapped = style::wrap(state, &text, width.saturating_sub(LABEL));
        let rows = wrapped.into_iter().enumerate().map(move |(at, text)| {
            let label = Span::styled(format!("{:<LABEL$}", indent(at)), style::faint());
            Line::from(vec![label, Span::raw(text)])
        });
        rows.collect::<Vec<_>>()
    };
    if let Some(meta) = &state.model.meta {
        let watched =
            watched(&meta.filter, width.saturating_sub(LABEL + 24), style::charset(state));
        // Already escaped.
        let label = Span::styled(format!("{:<LABEL$}", "watched"), style::faint());
        lines.push(Line::from(vec![label, Span::raw(watched)]));
    }
    let filter = state.model.meta.as_ref().map(|meta| &meta.filter);
    let is_tree = filter.is_some_and(|it| !it.pids.is_empty() || it.command.is_some());
    let [of_tree, of_all] = if is_tree { [" in the tree", " on the machine"] } else { ["", ""] };
    let execs = state.probed.execs;
    let execs = execs.or_else(|| Some(state.model.summary.as_ref()?.execs.as_ref()?.total));
    let counts = [
        execs.map(|execs| counted(execs, "exec") + of_tree),
        state.probed.forks.map(|forks| counted(forks, "fork") + of_all),
    ];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    if !counts.is_empty() {
        lines.extend(row("seen", counts.join(", ")));
    }
    let reported = "each exec, open for writing or truncate that fails with ETXTBSY (Text file busy), \
                    and who held or ran the file";
    lines.extend(row("reported", reported.to_owned()));
    if !is_over {
        lines.push(Line::default());
        if !is_tree && state.live.is_some() {
            lines.push(Line::raw("To try it, run this in another terminal:"));
            lines.push(Line::raw(format!("  {TRY}")));
        } else {
            lines.push(Line::raw("To see failures that are made on purpose:"));
            lines.push(Line::raw("  sudo etxtbsy-trace demo"));
        }
    }
    lines
}

/// `1 exec`, `2 execs`.
fn counted(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}
