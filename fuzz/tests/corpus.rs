//! Runs the inputs that `cargo xtask fuzz` has kept.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{fs, path::Path};

/// Runs a check on each file of a directory.
fn for_each_file(directory: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let mut tried = 0;
    for file in fs::read_dir(corpus).unwrap() {
        check(&fs::read(file.unwrap().path()).unwrap());
        tried += 1;
    }
    assert!(tried > 0);
}

#[test]
fn recordings() {
    for_each_file("corpus/replay", etxtbsy_trace_fuzz::replay);
}

#[test]
fn recordings_of_a_later_version() {
    for_each_file("../etxtbsy-trace/tests/later", etxtbsy_trace_fuzz::replay);
}

#[test]
fn command_lines() {
    for_each_file("corpus/command", etxtbsy_trace_fuzz::command);
}

#[test]
fn attributions() {
    for_each_file("corpus/attribution", etxtbsy_trace_fuzz::attribution);
}

#[test]
fn copies_of_stacks() {
    for_each_file("corpus/stacks", etxtbsy_trace_fuzz::stacks);
}

#[test]
fn ring_buffers() {
    for_each_file("corpus/records", etxtbsy_trace_fuzz::records);
}
