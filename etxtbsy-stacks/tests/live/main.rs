//! Resolves the stacks of real programs with a real helper process.
#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

mod c;
mod files;
mod helpers;
mod languages;
mod programs;
mod runtimes;
mod traced;

use std::{
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use etxtbsy_stacks::{Copied, Key, Resolved, Resolver};
use etxtbsy_trace_event::Frame;

use self::traced::Traced;

/// A resolver with the helper of this package.
struct Asked {
    resolver: Resolver,
    woken: mpsc::Receiver<()>,
}

impl Asked {
    fn start(helper: fn() -> Command) -> Self {
        let (wake, woken) = mpsc::sync_channel(1);
        let wake = move || {
            // If it is full, the test is awake.
            let _ = wake.try_send(());
        };
        Self { resolver: Resolver::start(helper, wake).unwrap(), woken }
    }

    fn ask(&self, traced: &Traced) {
        let copy =
            Copied { key: traced.key(), stack: traced.stack.clone(), pids: vec![traced.id()] };
        assert!(self.resolver.ask(copy));
    }

    /// The next answers.
    fn answers(&mut self) -> Vec<(Key, Option<Resolved>)> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let answers = self.resolver.take();
            if !answers.is_empty() {
                return answers;
            }
            assert!(Instant::now() < until, "no answer");
            let _ = self.woken.recv_timeout(Duration::from_millis(500));
        }
    }

    fn resolve(&mut self, traced: &Traced) -> Option<Resolved> {
        self.ask(traced);
        let mut answers = self.answers();
        assert_eq!(answers.len(), 1);
        let (key, resolved) = answers.remove(0);
        assert_eq!(key, traced.key());
        resolved
    }
}

fn helper() -> Command {
    Command::new(env!("CARGO_BIN_EXE_stacks-helper"))
}

/// The frames of a stopped program.
fn resolve(traced: &Traced) -> Option<Resolved> {
    Asked::start(helper).resolve(traced)
}

/// A frame as `function FILE:LINE`, with the file's name only.
fn shown(frame: &Frame) -> String {
    let name = |path: &str| path.rsplit('/').next().unwrap().to_owned();
    let function = frame.function.as_deref().unwrap_or("?");
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{function} {}:{line}", name(file)),
        _ => function.to_owned(),
    }
}

/// The frames whose module is a program or library of the test.
fn of_module(resolved: &Resolved, module: &str) -> Vec<String> {
    let is_of = |frame: &&Frame| frame.module.as_deref() == Some(module);
    resolved.frames.iter().filter(is_of).map(shown).collect()
}

/// Asserts that a list begins with others.
#[track_caller]
fn assert_begins(frames: &[String], expected: &[&str]) {
    assert!(
        frames.len() >= expected.len()
            && frames.iter().zip(expected).all(|(one, other)| one == other),
        "{frames:#?} does not begin with {expected:#?}"
    );
}
