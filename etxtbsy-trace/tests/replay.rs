//! `replay`, as a user calls it; it needs neither root nor eBPF.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    io::Write as _,
    process::{Command, Output, Stdio},
};

const META: &str = r#"{"type":"meta","schema":1,"version":"0.1.0","time":"2026-11-20T14:03:00Z","time_ns":1,"kernel":"6.18.0","arch":"x86_64","argv":[],"filter":{"pids":[],"command":null,"as":"victim"}}"#;
const LOST: &str = r#"{"type":"lost","kind":"unknown","what":"ring buffer full","count":3}"#;

/// Runs `replay` with more arguments, `input` on its stdin.
fn replay(args: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_etxtbsy-trace"))
        .arg("replay")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It does not read to the end of what is wrong.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
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
fn errors_are_one_line_with_the_number_of_theirs() {
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
fn a_last_line_that_is_cut_off_is_told_and_no_failure() {
    let cut = replay(&["-", "--json"], &format!("{META}\n{}", &LOST[..20]));
    assert_eq!(cut.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&cut.stdout), format!("{META}\n"));
    assert_eq!(
        String::from_utf8_lossy(&cut.stderr),
        "etxtbsy-trace: stdin line 2: cut off; it is left out\n"
    );
}

#[test]
fn it_ends_after_as_many_incidents_as_are_wanted() {
    let run = replay(&["-", "--json", "--stop-after", "1"], &format!("{META}\n{LOST}\n"));
    assert_eq!(String::from_utf8_lossy(&run.stdout).lines().count(), 2);
}
