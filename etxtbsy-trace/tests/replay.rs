//! `replay` as a user calls it. It needs neither root nor eBPF.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const META: &str = r#"{"type":"meta","schema":1,"version":"0.1.0","time":"2026-11-20T14:03:00Z","time_ns":1,"kernel":"6.18.0","arch":"x86_64","host":null,"boot_id":null,"argv":[],"filter":{"pids":[],"command":null,"as":"victim"},"provoke":null}"#;
const LOST: &str = r#"{"type":"lost","kind":"unknown","what":"ring buffer full","count":3}"#;

/// Runs `replay` with these arguments and `input` on its stdin.
fn replay(args: &[&str], input: &str) -> Output {
    replay_in(&[("LC_ALL", "C.UTF-8")], args, input)
}

/// The same, with these variables in the environment.
fn replay_in(variables: &[(&str, &str)], args: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etxtbsy-trace"));
    command.env_remove("COLUMNS").env_remove("GITHUB_ACTIONS").envs(variables.iter().copied());
    test_support::fed(command.arg("replay").args(args), input.as_bytes()).unwrap()
}

/// A recording of races.
fn races() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/race.jsonl");
    std::fs::read_to_string(file).unwrap()
}

/// What `replay` writes as text.
fn text(variables: &[(&str, &str)], args: &[&str], input: &str) -> String {
    let run = replay_in(variables, &[args, &["-"]].concat(), input);
    assert_eq!((run.status.code(), run.stderr.len()), (Some(0), 0), "{run:?}");
    String::from_utf8(run.stdout).unwrap()
}

#[test]
fn only_the_summary_is_printed_on_request() {
    let utf8 = &[("LC_ALL", "C.UTF-8")];
    let (all, only) = (text(utf8, &[], &races()), text(utf8, &["--summary-only"], &races()));
    assert!(all.ends_with(&only) && all.len() > 2 * only.len(), "{only}");
    assert!(only.contains(" explained, ") && !only.contains("  holder   "), "{only}");
    let refused = replay(&["-", "--summary-only", "--json"], &races());
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
}

#[test]
fn the_environment_selects_characters_width_and_groups() {
    let plain = text(&[("LC_ALL", "C.UTF-8")], &[], &races());
    assert!(!plain.is_ascii() && plain.lines().any(|line| line.len() > 120), "{plain}");
    assert!(text(&[("LC_ALL", "C")], &[], &races()).is_ascii());
    let narrow = text(&[("LC_ALL", "C"), ("COLUMNS", "70")], &[], &races());
    let wide = narrow.lines().find(|line| line.len() > 70 && line.trim().contains(' '));
    assert_eq!(wide, None, "{narrow}");
    let github = text(&[("LC_ALL", "C.UTF-8"), ("GITHUB_ACTIONS", "true")], &[], &races());
    assert!(github.contains("\n::group::etxtbsy-trace: #1  "), "{github}");
    let without: String =
        github.split_inclusive('\n').filter(|line| !line.starts_with("::")).collect();
    assert_eq!(without, plain);
}

#[test]
fn json_passes_through_and_is_text_otherwise() {
    let input = format!("{META}\n{LOST}\n");
    let json = replay(&["-", "--json"], &input);
    assert_eq!(String::from_utf8_lossy(&json.stdout), input);
    let text = replay(&["-"], &input);
    assert_eq!(
        String::from_utf8_lossy(&text.stdout),
        "etxtbsy-trace 0.1.0 on 6.18.0 x86_64, since 2026-11-20 14:03:00.000000Z: watching the \
         whole machine\nlost 3: ring buffer full\n"
    );
    for run in [json, text] {
        assert_eq!((run.status.code(), run.stderr.len()), (Some(0), 0));
    }
}

#[test]
fn a_file_is_read_and_output_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("trace.jsonl"), dir.path().join("copy.jsonl"));
    std::fs::write(&from, format!("{META}\n{LOST}\n")).unwrap();
    let from_name = from.to_str().unwrap();
    let run = replay(&[from_name, "-o", to.to_str().unwrap()], "");
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
    let refused = replay(&[from_name, "-o", from_name], "");
    assert_eq!(refused.status.code(), Some(125));
    assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
}

#[test]
fn errors_are_one_line_with_the_line_number() {
    let wrong = replay(&["-"], &format!("{META}\nhello\n"));
    assert_eq!(wrong.status.code(), Some(125));
    assert_eq!(
        String::from_utf8_lossy(&wrong.stderr),
        "etxtbsy-trace: stdin line 2: not JSON at column 1\n"
    );
    let missing = replay(&["/no/such/file"], "");
    assert_eq!(
        String::from_utf8_lossy(&missing.stderr),
        "etxtbsy-trace: cannot open /no/such/file: No such file or directory (os error 2)\n"
    );
}

#[test]
fn a_truncated_last_line_is_reported_and_no_failure() {
    let cut = replay(&["-", "--json"], &format!("{META}\n{}", &LOST[..20]));
    assert_eq!(cut.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&cut.stdout), format!("{META}\n"));
    assert_eq!(
        String::from_utf8_lossy(&cut.stderr),
        "etxtbsy-trace: stdin line 2: skipped, because it is cut off\n"
    );
}

#[test]
fn stop_after_ends_replay() {
    let run = replay(&["-", "--json", "--stop-after", "1"], &format!("{META}\n{LOST}\n"));
    assert_eq!(String::from_utf8_lossy(&run.stdout).lines().count(), 2);
}

/// A recording of a made-up later version.
fn later(name: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/later").join(name);
    std::fs::read_to_string(file).unwrap()
}

/// The lines of some JSON.
fn values(json: &[u8]) -> Vec<Value> {
    json.split_inclusive(|byte| *byte == b'\n')
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn words_of_a_later_version_are_shown_and_kept() {
    let recording = later("words.jsonl");
    let json = replay(&["-", "--json"], &recording);
    assert_eq!(values(&json.stdout), values(recording.as_bytes()));
    let text = replay(&["-", "-v"], &recording);
    for run in [&json, &text] {
        assert_eq!((run.status.code(), run.stderr.len()), (Some(0), 0), "{run:?}");
    }
    let text = String::from_utf8(text.stdout).unwrap();
    for shown in [
        ", as witness\n",
        " linkat2 ",
        " · library · ",
        " · via inherited, frozen · known by hardware\n",
        "released by revoked",
        "frozen-holder",
        "demo could not link ",
        "by verdict: frozen-holder 1\n",
        "unexplained by: holder-asleep 1\n",
        "lost 1: quota of records used up\n",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
}

#[test]
fn types_and_keys_of_a_later_version_are_skipped() {
    let recording = later("types-and-keys.jsonl");
    let json = replay(&["-", "--json"], &recording);
    let lines = values(&json.stdout);
    let types: Vec<&Value> = lines.iter().map(|line| &line["type"]).collect();
    assert_eq!(types, ["meta", "incident", "summary"]);
    assert!(!String::from_utf8_lossy(&json.stdout).contains("later"));
    assert_eq!(json.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&json.stderr),
        "etxtbsy-trace: stdin: skipped 3 lines of a later version, the first of type `heat_map` \
         in line 2\n"
    );
}

#[test]
fn a_later_schema_is_shown_as_far_as_it_is_known() {
    let run = replay(&["-", "--json"], &later("schema.jsonl"));
    let types: Vec<Value> = values(&run.stdout).iter().map(|line| line["type"].clone()).collect();
    assert_eq!(types, ["meta", "incident", "lost", "summary"]);
    assert_eq!(run.status.code(), Some(0));
    let stderr = String::from_utf8(run.stderr).unwrap();
    assert!(stderr.starts_with("etxtbsy-trace: stdin: has schema 5, this version reads up to 2: "));
    assert!(
        stderr.ends_with(
            "skipped 1 line of a later version, the first of type `incident` in line 3\n"
        )
    );
}
