//! Checks that must hold for any bytes: of a recording, of the kernel's ring buffer, or of a command line
//! with its environment. `cargo xtask fuzz` searches for bytes that violate them; the tests run those of
//! `corpus/`.
#![allow(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::unnecessary_debug_formatting,
    reason = "the fuzzer reports panics with the bytes that caused them"
)]

mod cases;
mod copies;
mod words;

use std::collections::HashMap;

pub use self::{cases::attribution, copies::stacks, words::command};
use etxtbsy_trace::{
    analysis::{
        attribution::attribute,
        incident::{World, build},
        ledger::Ledger,
    },
    event::Line,
    output::{Output as _, bounds, json::Json, look::Look, recording::Recording, text::Text},
    tracer::records::Record,
    tui::{model::state::State, view},
};
use ratatui::{Terminal, backend::TestBackend};

/// Reads the bytes as a recording: each line can be written, shown, and read again.
pub fn replay(bytes: &[u8]) {
    let lines: Vec<Line> = Recording::new("fuzz", bytes).map_while(Result::ok).collect();
    assert_lines_hold(&lines);
}

/// Reads the bytes as records of the ring buffer, each after its length in two bytes: the incidents can be
/// written, shown, and read again.
pub fn records(mut bytes: &[u8]) {
    let mut ledger = Ledger::default();
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (record, rest) = rest.split_at(rest.len().min(u16::from_le_bytes(*length).into()));
        if let Some(record) = Record::decode(record) {
            let _ = ledger.record(record);
            let _ = (ledger.pending_releases(), ledger.deadline_ns());
        }
        bytes = rest;
    }
    let mut cases = ledger.settled(1 << 40);
    cases.extend(ledger.drain());
    let world = World {
        roots: &[],
        seen: &HashMap::new(),
        lineage: Box::new(|_| None),
        cgroup: Box::new(|_| None),
        realtime_offset_ns: 0,
        target_begins: Some(b"#!/b".to_vec()),
    };
    let lines: Vec<Line> = cases
        .iter()
        .map(|case| {
            let mut incident = build(1, case, &attribute(case), &world);
            bounds::apply(&mut incident);
            Line::Incident(Box::new(incident))
        })
        .collect();
    assert_lines_hold(&lines);
}

fn assert_lines_hold(lines: &[Line]) {
    // A recording has at least one line.
    if lines.is_empty() {
        return;
    }
    let mut state = State::new(true);
    let (mut json, mut text) = (Vec::new(), Vec::new());
    let mut pretty = Text::new(&mut text, Look { verbose: true, ..Look::PLAIN });
    for line in lines {
        Json::new(&mut json).line(line).expect("memory takes everything");
        pretty.line(line).expect("memory takes everything");
        state.add(line.clone());
    }
    drop(pretty);
    let again: Vec<Line> =
        Recording::new("fuzz", &json[..]).map(|line| line.expect("our own line")).collect();
    assert_eq!(again, lines);
    assert_eq!(json.split_inclusive(|byte| *byte == b'\n').count(), lines.len());
    for written in [json, text] {
        let written = String::from_utf8(written).expect("text is UTF-8");
        assert!(!written.chars().any(|c| c.is_control() && c != '\n'), "{written:?}");
    }
    let mut terminal = Terminal::new(TestBackend::new(100, 30)).expect("memory takes everything");
    let drawn = terminal.draw(|frame| _ = view::draw(frame, &state)).expect("memory");
    let shown = |symbol: &str| !symbol.chars().any(char::is_control);
    assert!(drawn.buffer.content.iter().all(|cell| shown(cell.symbol())));
}
