//! The header: what is traced, and the counts.

use super::style;
use crate::{event::Filter, text::escape, tui::model::state::State};
use ratatui::text::{Line, Span};

/// The fewest columns in which what is traced is shown.
const WORTH: usize = 12;
/// The most columns of a process's name.
const NAME: usize = 16;

/// The header in that many columns. Losses and counts come first, in case there is little room.
pub(super) fn line(state: &State, columns: usize) -> Line<'static> {
    let model = &state.model;
    let mut line = Line::from(Span::styled("etxtbsy-trace", style::strong()));
    if model.lost > 0 {
        line.push_span(Span::styled(format!("  lost: {}", model.lost), style::bad(state)));
    }
    if state.paused {
        line.push_span(Span::styled(
            format!("  PAUSED ({} new)", state.waiting()),
            style::bad(state),
        ));
    }
    let percent = (u128::from(model.explained) * 100).checked_div(u128::from(model.incidents));
    let explained = percent.map(|percent| format!(", {percent}% explained"));
    let s = if model.incidents == 1 { "" } else { "s" };
    line.push_span(Span::styled(
        format!("  {} incident{s}{}", model.incidents, explained.unwrap_or_default()),
        style::strong(),
    ));
    if model.near_misses > 0 {
        let near = if model.near_misses == 1 { "near miss" } else { "near misses" };
        line.push_span(Span::raw(format!(", {} {near}", model.near_misses)));
    }
    if let Some(rate) = rate(state) {
        line.push_span(format!(", {rate:.1}/s"));
    }
    if let Some(ns) = state.elapsed_ns() {
        // While nothing happens, the header is drawn only once a minute.
        let is_running = state.live.as_ref().is_some_and(|live| !live.ended);
        let clock = if is_running { format!("{} min", ns / 60_000_000_000) } else { clock(ns) };
        line.push_span(format!("  {clock}"));
    }
    let Some(meta) = &model.meta else { return line };
    let room = columns.saturating_sub(line.width() + 2);
    if room >= WORTH {
        let (traced, ended) = traced(state, &meta.filter, room);
        line.push_span(format!("  {traced}"));
        line.push_span(Span::styled(ended, style::bad(state)));
        let refusals = format!("  other calls: {}", model.refusals);
        if model.refusals > 0 && line.width() + escape::width(&refusals) <= columns {
            line.push_span(Span::styled(refusals, style::bad(state)));
        }
        let provoking = "  provoking";
        if meta.provoke.is_some() && line.width() + provoking.len() <= columns {
            line.push_span(Span::styled(provoking, style::bad(state)));
        }
        let kernel = format!("  on {}", style::charset(state).short(&meta.kernel, 20));
        if line.width() + escape::width(&kernel) <= columns {
            line.push_span(Span::styled(kernel, style::faint()));
        }
    }
    line
}

/// What is traced, in about that many columns, and whether it has ended.
fn traced(state: &State, filter: &Filter, columns: usize) -> (String, &'static str) {
    let roots = state.live.as_ref().map(|live| live.traced.as_slice()).unwrap_or_default();
    let ended = match roots {
        [] => "",
        roots if roots.iter().any(|root| root.alive) => "",
        _ => " (ended)",
    };
    let room = columns.saturating_sub(ended.len());
    if let Some(command) = &filter.command {
        return (style::charset(state).command(command, room), ended);
    }
    let named = |pid: u32| {
        let comm = roots.iter().find(|root| root.pid == pid).and_then(|root| root.comm.as_deref());
        match comm {
            Some(comm) => format!("{}[{pid}]", style::charset(state).short(comm, NAME)),
            None => format!("pid {pid}"),
        }
    };
    let all = filter.pids.iter().map(|pid| named(*pid)).collect::<Vec<_>>().join(", ");
    let traced = match filter.pids.len() {
        0 => "the machine".to_owned(),
        count if escape::width(&all) > room => format!("{count} trees"),
        _ => all,
    };
    (traced, ended)
}

/// A duration as a clock: `0:07`, `1:02:03`, `2d 3:04:05`.
fn clock(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (days, hours) = (seconds / 86_400, seconds / 3_600 % 24);
    let (minutes, seconds) = (seconds / 60 % 60, seconds % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days}d {hours}:{minutes:02}:{seconds:02}"),
    }
}

/// Incidents per second since tracing began.
fn rate(state: &State) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
    let rate = state.model.incidents as f64 * 1e9 / state.elapsed_ns()? as f64;
    rate.is_finite().then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        output::samples,
        tui::model::live::{Live, Traced},
    };

    /// The header in 100 columns, with roots of these names that are alive or not.
    fn header(command: bool, names: &[&str], alive: bool) -> String {
        let mut meta = samples::meta();
        if !command {
            meta.filter.command = None;
        }
        let traced: Vec<Traced> = (4300..)
            .zip(names)
            .map(|(pid, name)| Traced { pid, comm: Some((*name).to_owned()), alive })
            .collect();
        meta.filter.pids = traced.iter().map(|root| root.pid).collect();
        let mut state = State::new(false);
        let now_ns = meta.time_ns + 3_723_000_000_000;
        state.add(meta.into());
        state.live = Some(Live { now_ns, traced, ..Live::default() });
        line(&state, 100).to_string()
    }

    #[test]
    fn the_header_names_the_traced_processes_and_their_end() {
        let start = "etxtbsy-trace  0 incidents, 0.0/s  62 min";
        for (command, names, alive, shown) in [
            (true, ["demo"].as_slice(), true, "make test"),
            (true, &["demo"], false, "make test (ended)"),
            (false, &[], true, "the machine"),
            (false, &["demo\n"], true, r"demo\n[4300]"),
            (false, &["demo\n"], false, r"demo\n[4300] (ended)"),
            (false, &["demo", "bash"], true, "demo[4300], bash[4301]"),
            (false, &["one of sixteen.."; 9], true, "9 trees"),
        ] {
            assert_eq!(header(command, names, alive), format!("{start}  {shown}  on 6.18.0"));
        }
        let replayed = State::new(false);
        let filter = Filter { pids: vec![4300], ..Filter::default() };
        assert_eq!(traced(&replayed, &filter, 40), ("pid 4300".to_owned(), ""));
    }

    #[test]
    fn durations_are_shown_as_clocks() {
        for (seconds, shown) in
            [(0, "0:00"), (67, "1:07"), (3_723, "1:02:03"), (183_845, "2d 3:04:05")]
        {
            assert_eq!(clock(seconds * 1_000_000_000), shown);
        }
    }
}
