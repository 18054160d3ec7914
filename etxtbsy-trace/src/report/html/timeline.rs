//! The lanes of an incident as inline SVG.

use super::escaped;
use crate::{
    event::Incident,
    text::{escape, time},
    timeline::{
        lanes::{Bar, Event, Lane, Mark, extent, lanes},
        zoom::Span,
    },
};

/// The columns of a process's name.
const NAME: usize = 26;
/// The place of the names, and the whole width.
const LEFT: i128 = 210;
const WIDTH: i128 = 960;
/// The height of a lane, and of the scale below.
const LANE: usize = 26;
const SCALE: usize = 22;

/// The drawing.
pub(super) fn svg(incident: &Incident) -> String {
    let lanes = lanes(incident, None);
    let window = extent(&lanes).0.fit;
    let below = lanes.len() * LANE;
    let height = below + SCALE;
    let label = format!(
        "timeline of {}, from {} before the failure to {} after it; the text below has all times",
        processes(lanes.len()),
        time::span(window.from.unsigned_abs()),
        time::span(window.to.unsigned_abs()),
    );
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">\n",
        escaped(&label)
    );
    for (at, lane) in lanes.iter().enumerate() {
        out += &self::lane(lane, at * LANE, window);
    }
    let failure = place(0, window);
    out += &format!(
        "<line class=\"failure\" x1=\"{failure}\" x2=\"{failure}\" y1=\"0\" y2=\"{below}\"/>\n"
    );
    let y = below + 15;
    for (x, anchor, offset) in
        [(LEFT.to_string(), "start", window.from), ((WIDTH - 5).to_string(), "end", window.to)]
    {
        let sign = if offset < 0 { '-' } else { '+' };
        let text = format!("{sign}{}", time::span(offset.unsigned_abs()));
        out += &format!(
            "<text class=\"scale\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>\n"
        );
    }
    out += &format!(
        "<text class=\"scale\" x=\"{failure}\" y=\"{y}\" text-anchor=\"middle\">failure</text>\n"
    );
    out + "</svg>\n"
}

fn processes(count: usize) -> String {
    crate::output::incident::count(count as u64, "process", "processes")
}

fn lane(lane: &Lane, top: usize, window: Span) -> String {
    let name = match &lane.comm {
        Some(comm) => format!("{comm}[{}]", lane.pid),
        None => format!("pid {}", lane.pid),
    };
    let middle = top + LANE / 2;
    let mut out = format!(
        "<line class=\"lane\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{middle}\" y2=\"{middle}\"/>\n\
         <text x=\"5\" y=\"{}\">{}</text>\n",
        middle + 4,
        escaped(&escape::short(&name, NAME)),
    );
    for bar in &lane.bars {
        out += &self::bar(*bar, top, window);
    }
    for mark in &lane.marks {
        out += &self::mark(mark, middle, window);
    }
    out
}

fn bar(bar: Bar, top: usize, window: Span) -> String {
    let (from, to) = (bar.from.max(window.from), bar.to.min(window.to));
    if from > to {
        return String::new();
    }
    let (left, right) = (tenths(from, window), tenths(to, window));
    let width = (right - left).max(10);
    let word = bar.doing.word();
    let when = |at: i64, unknown: &str| match at {
        i64::MIN | i64::MAX => unknown.to_owned(),
        0 => "the failure".to_owned(),
        ..0 => format!("-{}", time::span(at.unsigned_abs())),
        _ => format!("+{}", time::span(at.unsigned_abs())),
    };
    let title = format!(
        "{word}, from {} to {}",
        when(bar.from, "an unknown time"),
        when(bar.to, "after this was written")
    );
    let mut out = format!(
        "<rect class=\"doing-{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{title}</title></rect>\n",
        word.replace(' ', "-"),
        decimal(left),
        top + 7,
        decimal(width),
        LANE - 14,
    );
    let y = top + LANE / 2 + 4;
    if bar.from < window.from {
        out += &format!("<text class=\"scale\" x=\"{LEFT}\" y=\"{y}\">◂</text>\n");
    }
    if bar.to > window.to {
        let x = WIDTH - 2;
        out += &format!("<text class=\"scale\" x=\"{x}\" y=\"{y}\" text-anchor=\"end\">▸</text>\n");
    }
    out
}

fn mark(mark: &Mark, middle: usize, window: Span) -> String {
    if mark.at < window.from || mark.at > window.to {
        return String::new();
    }
    let class = if mark.event == Event::Failed { "mark mark-failed" } else { "mark" };
    format!(
        "<circle class=\"{class}\" cx=\"{}\" cy=\"{middle}\" r=\"4\"><title>{}</title></circle>\n",
        place(mark.at, window),
        escaped(&escape::short(&mark.text, 200)),
    )
}

/// The horizontal place of a time.
fn place(at: i64, window: Span) -> String {
    decimal(tenths(at, window))
}

/// The same, in tenths.
fn tenths(at: i64, window: Span) -> i128 {
    let offset = i128::from(at) - i128::from(window.from);
    LEFT * 10 + offset * (WIDTH - LEFT - 5) * 10 / window.width().max(1)
}

fn decimal(tenths: i128) -> String {
    format!("{}.{}", tenths / 10, tenths % 10)
}
