//! What `cargo xtask fuzz` has found worth keeping.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{fs, path::Path};

/// Tries each file of a directory.
fn each(of: &str, hold: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join(of);
    let mut tried = 0;
    for file in fs::read_dir(corpus).unwrap() {
        hold(&fs::read(file.unwrap().path()).unwrap());
        tried += 1;
    }
    assert!(tried > 0);
}

#[test]
fn recordings() {
    each("corpus/replay", etxtbsy_trace_fuzz::replay);
}

#[test]
fn recordings_of_a_later_version() {
    each("../etxtbsy-trace/tests/later", etxtbsy_trace_fuzz::replay);
}

#[test]
fn command_lines() {
    each("corpus/command", etxtbsy_trace_fuzz::command);
}

#[test]
fn attributions() {
    each("corpus/attribution", etxtbsy_trace_fuzz::attribution);
}

#[test]
fn ring_buffers() {
    each("corpus/records", etxtbsy_trace_fuzz::records);
}
