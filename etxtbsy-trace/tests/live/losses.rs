//! Losses are counted.

use crate::support::{BINARY, Process, Trace, Turn, tracer};
use nix::sys::signal::Signal;
use std::process::Command;

/// The tracer does not run while the failures happen, and its buffer is too small for them.
#[test]
fn failures_without_room_in_the_ring_buffer_are_counted() {
    const FAILURES: u64 = 60;
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let script = format!(
        "read go; i=0; while [ $i -lt {FAILURES} ]; do \
         {BINARY} workload still-open >/dev/null || exit 1; i=$((i+1)); done; echo done"
    );
    let mut root = Process::start(Command::new("sh").args(["-c", &script]));
    let tracer = Process::start(
        tracer()
            .env("ETXTBSY_TRACE_RING_BYTES", "4096")
            .args(["--json", "--pid"])
            .arg(root.pid().to_string()),
    );
    let meta = tracer.line();
    tracer.stop();
    root.say_go();
    assert_eq!(root.line(), "done");
    // The record of the tree's end has no room, either.
    assert_eq!(root.wait().code, Some(0));
    tracer.signal(Signal::SIGCONT);

    let ended = tracer.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let trace = Trace::parse(&format!("{meta}\n{}", ended.stdout));
    let lost = trace.lost_failures();
    assert!(lost > 0, "a buffer of 4096 bytes held {FAILURES} failures: {:?}", trace.lost);
    assert_eq!(trace.summary.failures, FAILURES, "{:?}", trace.lost);
}
