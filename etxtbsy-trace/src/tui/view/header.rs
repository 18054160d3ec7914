//! The line on top: what is traced, and the counts.

use super::style;
use crate::{
    output::{escape, text},
    tui::state::State,
};
use ratatui::text::{Line, Span};

/// The line.
pub(super) fn line(state: &State) -> Line<'static> {
    let model = &state.model;
    let mut spans = vec![Span::styled("etxtbsy-trace", style::strong())];
    if model.lost > 0 {
        spans.push(Span::styled(format!("  lost: {}", model.lost), style::bad(state)));
    }
    if state.paused {
        spans.push(Span::styled(format!("  PAUSED, {} wait", state.held()), style::bad(state)));
    }
    let percent = (model.explained * 100).checked_div(model.incidents);
    let explained = percent.map(|percent| format!(", {percent}% explained"));
    spans.push(Span::styled(
        format!("  {} incidents{}", model.incidents, explained.unwrap_or_default()),
        style::strong(),
    ));
    if let Some(rate) = rate(state) {
        spans.push(Span::raw(format!(", {rate:.1}/s")));
    }
    if let Some(meta) = &model.meta {
        let kernel = escape::short(&meta.kernel, 20);
        spans.push(Span::raw(format!("  {}", text::watched(&meta.filter, 40))));
        spans.push(Span::styled(format!("  on {kernel}"), style::faint()));
    }
    spans.into()
}

/// Incidents a second, from the start of tracing to the latest.
fn rate(state: &State) -> Option<f64> {
    let model = &state.model;
    let ns = model.latest_ns?.checked_sub(model.meta.as_ref()?.time_ns)?;
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let rate = model.incidents as f64 * 1e9 / ns as f64;
    rate.is_finite().then_some(rate)
}
