//! Reports for the tests: of real recordings, and of hostile ones.

#![allow(clippy::unwrap_used)]

use std::io::{self, Write};

use super::{
    compare::rows,
    merge,
    model::{Document, Report},
};
use crate::{
    event::{Incident, Line, bytes::text},
    output::{recording::Recording, samples},
};

/// Two recordings of real failures, and two of before. They are from Linux 6.18, by `etxtbsy-trace run -o
/// FILE -- etxtbsy-trace workload go22315 --failures 4` and the like; cgroup and shell are made up.
const RACE: &[u8] = include_bytes!("../../tests/recordings/race.jsonl");
const INTERPRETER: &[u8] = include_bytes!("../../tests/recordings/interpreter.jsonl");
const RACE_BEFORE: &[u8] = include_bytes!("../../tests/recordings/race-before.jsonl");
const STILL_OPEN: &[u8] = include_bytes!("../../tests/recordings/still-open.jsonl");

/// Names that are markup, control sequences or commands somewhere.
pub(super) const HOSTILE: &[&str] = &[
    "a\nb\r\n::error::pwned",
    "::error file=a,line=1::pwned",
    "##[error]pwned",
    "\x1b[2J\x1b]0;owned\x07",
    "<script>alert(1)</script>",
    "</pre></style></svg><img src=x onerror=alert(1)>",
    "]]>&lt;&#0;",
    "\u{0}\u{1}\u{b}\u{ffff}\u{fffe}",
    "a|b|c ``` `x`` |",
    "`",
    "**b** _i_ ~~s~~ [l](http://a.example) ![i](x)",
    "http://a.example www.a.example @user me@a.example #12 $x$",
    "# h",
    "- x",
    "12. x",
    "100%25 a:b,c",
    "gpj.\u{202e}exe\u{200b}",
    "\"' onload=x",
];

fn report(recordings: &[(&str, &[u8])]) -> Report {
    let mut report = Report::default();
    for (name, bytes) in recordings {
        merge::add(&mut report, name, Recording::new(name, *bytes)).unwrap();
    }
    report
}

/// Of two real recordings.
pub(super) fn recorded() -> Document {
    let now = report(&[("race.jsonl", RACE), ("interpreter.jsonl", INTERPRETER)]);
    Document { now, before: None }
}

/// The same with a baseline.
pub(super) fn compared() -> Document {
    let before = report(&[("race-before.jsonl", RACE_BEFORE), ("still-open.jsonl", STILL_OPEN)]);
    Document { before: Some(before), ..recorded() }
}

/// Of a recording without failures.
pub(super) fn nothing() -> Document {
    let mut now = Report::default();
    now.file("quiet.jsonl");
    now.add(&samples::meta().into());
    now.add(&Line::Summary(crate::event::Summary {
        explained: 0,
        unexplained: 0,
        unexplained_by: [].into(),
        change_first: None,
        ..samples::summary(0, &[])
    }));
    Document { now, before: None }
}

/// Of one incident with stacks.
pub(super) fn with_stacks() -> Document {
    let mut now = Report::default();
    now.file("stacks.jsonl");
    now.add(&samples::with_stacks().into());
    Document { now, before: None }
}

/// An incident with hostile names everywhere, of which some were not UTF-8.
fn named(names: &[String]) -> Incident {
    let mut incident = samples::with_strings(&samples::with_stacks(), names);
    incident.time = "2026-11-20T14:03:07.123456789Z".to_owned();
    let (lossy, exact) = text(b"/tmp/\xff\xfe<b>");
    (incident.file.path, incident.file.path_b64) = (Some(lossy), exact);
    incident
}

/// Lines with hostile names.
pub(super) fn hostile_lines() -> Vec<Line> {
    let mut meta = samples::meta();
    meta.kernel = HOSTILE[4].to_owned();
    meta.filter.command = Some(HOSTILE.iter().map(ToString::to_string).collect());
    let mut lines = vec![Line::from(meta)];
    for (id, name) in (1..).zip(HOSTILE) {
        let mut incident = named(&[(*name).to_owned()]);
        incident.id = id;
        // A group of its own.
        incident.file.path = Some(format!("/{name}/{name}"));
        lines.push(incident.into());
        let mut leaked = samples::with_strings(&samples::leaked(), &[(*name).to_owned()]);
        leaked.holders[0].exe = Some(format!("/usr/bin/{name}"));
        leaked.victim.exe.clone_from(&leaked.holders[0].exe);
        lines.push(leaked.into());
        let mut lost = samples::lost();
        lost.what = (*name).to_owned();
        lines.push(Line::Lost(lost));
        let mut refusal = samples::refusal();
        refusal.syscall = (*name).to_owned();
        lines.push(Line::Refusal(refusal));
    }
    lines
}

/// Of a recording with hostile names, with itself as the baseline.
pub(super) fn hostile() -> Document {
    let mut now = Report::default();
    now.file("<b>::error::\n`|.jsonl");
    for line in hostile_lines() {
        now.add(&line);
    }
    assert!(now.groups.all().len() > HOSTILE.len());
    Document { before: Some(now.clone()), now }
}

/// Of incidents with very long names and many holders, each in a group of its own.
pub(super) fn large() -> Document {
    let mut now = Report::default();
    now.file("large.jsonl");
    for id in 0..700_u64 {
        let letters: String = id.to_string().bytes().map(|b| char::from(b + 55)).collect();
        let name = format!("/{letters}/{}", "<`|".repeat(1_300));
        let mut incident = samples::with_strings(&samples::with_stacks(), &[name]);
        incident.holders = vec![incident.holders[0].clone(); 9];
        now.add(&incident.into());
    }
    Document { now, before: None }
}

/// What a format writes, as text.
pub(super) fn written(
    write: impl Fn(&Document, &mut dyn Write) -> io::Result<()>,
    document: &Document,
) -> String {
    String::from_utf8(bytes(write, document)).unwrap()
}

/// What a format writes.
pub(super) fn bytes(
    write: impl Fn(&Document, &mut dyn Write) -> io::Result<()>,
    document: &Document,
) -> Vec<u8> {
    let mut out = Vec::new();
    write(document, &mut out).unwrap();
    assert!(rows(document).len() <= 1_001);
    out
}

/// Compares what a format writes, as text, with its snapshots: of recordings, the same with a baseline, and nothing that
/// failed.
pub(super) fn shows_all(format: &str, text: impl Fn(&Document) -> String) {
    shows(format, &text(&recorded()));
    shows(&format!("{format}-baseline"), &text(&compared()));
    shows(&format!("{format}-nothing"), &text(&nothing()));
}

/// Asserts that no line is a command to a runner of CI.
pub(super) fn has_no_commands(text: &str) {
    for line in text.lines() {
        assert!(!line.trim_start().starts_with("::") && !line.contains("##["), "{line}");
    }
}

/// Compares with the snapshot of that name; with `INSTA_UPDATE=always`, writes it.
pub(super) fn shows(name: &str, text: &str) {
    insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, text);
    });
}
