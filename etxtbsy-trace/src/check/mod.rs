//! Checks what this kernel and this user can do, one fact for each probe. `check` reports all facts.
//! A start runs only the cheap probes; if tracing cannot start, it runs the others to find the reason.
//!
//! [`THEMES`] has every probe; nothing else lists what tracing needs.

mod features;
mod kernel;
mod machine;
mod privileges;
mod surroundings;
mod tracing;

use anyhow::anyhow;

use self::machine::Machine;
use crate::event::check::{self as lines, Checked, Line, Status, Theme};
use crate::tracer::{memlock, nofile};

/// The themes and their probes. Later ones depend on earlier ones.
const THEMES: [(Theme, MakeProbes); 5] = [
    (Theme::Place, surroundings::probes),
    (Theme::Privileges, privileges::probes),
    (Theme::Kernel, kernel::probes),
    (Theme::Features, features::probes),
    (Theme::Tracing, tracing::probes),
];

type MakeProbes = fn() -> Vec<Probe>;

/// Finds out one fact.
struct Probe {
    /// The fact's name.
    name: String,
    /// Why tracing needs it.
    purpose: String,
    when: When,
    run: Box<dyn Fn(&Machine) -> Finding>,
}

/// When a probe runs, besides in `check`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// At every start; it takes microseconds.
    Start,
    /// When a start has failed.
    Failure,
    /// In `check` only, and only if nothing is missing: it traces a failure.
    Last,
}

impl Probe {
    fn new(
        name: impl Into<String>,
        purpose: impl Into<String>,
        run: impl Fn(&Machine) -> Finding + 'static,
    ) -> Self {
        let (name, purpose) = (name.into(), purpose.into());
        Self { name, purpose, when: When::Failure, run: Box::new(run) }
    }

    /// The same probe, run at every start.
    fn at_start(self) -> Self {
        Self { when: When::Start, ..self }
    }

    /// The same probe, run after all others.
    fn last(self) -> Self {
        Self { when: When::Last, ..self }
    }

    /// Runs the probe.
    fn fact(&self, theme: Theme, machine: &Machine) -> lines::Fact {
        let Finding { status, found, instead, remedy } = (self.run)(machine);
        let (name, purpose) = (self.name.clone(), self.purpose.clone());
        lines::Fact { theme, name, status, purpose, found, instead, remedy }
    }
}

/// What a probe found.
struct Finding {
    status: Status,
    found: String,
    instead: Option<String>,
    remedy: Option<String>,
}

impl Finding {
    /// Tracing has what it needs.
    fn ok(found: impl Into<String>) -> Self {
        Self { status: Status::Ok, found: found.into(), instead: None, remedy: None }
    }

    /// Tracing works; `instead` describes the difference.
    fn degraded(found: impl Into<String>, instead: impl Into<String>) -> Self {
        let instead = Some(instead.into());
        Self { status: Status::Degraded, instead, ..Self::ok(found) }
    }

    /// Tracing does not work.
    fn missing(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Missing, ..Self::ok(found) }.with_remedy(remedy)
    }

    /// The probe could not find out, for that reason.
    fn unknown(why: impl Into<String>) -> Self {
        Self { status: Status::Unknown, ..Self::ok(why) }
    }

    fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Runs the probes for a start: fails if something is missing, and warns of what is degraded.
pub fn start() -> anyhow::Result<()> {
    missing(|when| when == When::Start).map_or(Ok(()), Err)
}

/// Explains why a start failed with `error`: returns the missing fact that caused it, if any.
#[must_use]
pub fn explain(error: anyhow::Error) -> anyhow::Error {
    log::info!("{error:#}");
    missing(|when| when != When::Last).unwrap_or(error)
}

/// Runs the probes selected by `when`: an error with the first missing fact, and how many more are
/// missing.
fn missing(when: impl Fn(When) -> bool) -> Option<anyhow::Error> {
    let machine = Machine::default();
    let mut missing = Vec::new();
    for (theme, probes) in THEMES {
        for probe in probes().iter().filter(|probe| when(probe.when)) {
            machine.nothing_missing.set(missing.is_empty());
            let fact = probe.fact(theme, &machine);
            match fact.status {
                Status::Missing => missing.push(fact),
                Status::Degraded => log::warn!("{fact}"),
                Status::Ok | Status::Unknown => {}
            }
        }
    }
    let (first, others) = missing.split_first()?;
    Some(match others.len() {
        0 => anyhow!("{first}"),
        more => anyhow!("{first} ({more} more: etxtbsy-trace check)"),
    })
}

/// Runs all probes and emits each fact when it is found, then the conclusion. Returns whether tracing
/// will work.
pub fn report(mut emit: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<bool> {
    // As at every start. If it fails, a probe reports that.
    let _ = (memlock::lift(), nofile::raise());
    let machine = Machine::default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let mut checked = Checked {
        works: false,
        mend_first: None,
        ok: 0,
        degraded: 0,
        missing: 0,
        unknown: 0,
        version,
    };
    for (theme, probes) in THEMES {
        for probe in probes() {
            machine.nothing_missing.set(checked.missing == 0);
            let fact = probe.fact(theme, &machine);
            *checked.count(fact.status) += 1;
            if fact.status == Status::Missing {
                checked.mend_first.get_or_insert_with(|| fact.name.clone());
            }
            emit(&Line::Fact(fact))?;
        }
    }
    let works = checked.missing == 0;
    checked.works = works;
    emit(&Line::Check(checked)).map(|()| works)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tracer::programs::tracepoints;

    fn probes() -> Vec<Probe> {
        THEMES.iter().flat_map(|(_, probes)| probes()).collect()
    }

    #[test]
    fn fact_names_are_unique() {
        let mut names = BTreeSet::new();
        for probe in probes() {
            assert!(names.insert(probe.name.clone()), "{}", probe.name);
        }
        for tracepoint in tracepoints() {
            assert!(names.contains(tracepoint.name), "{}", tracepoint.name);
        }
    }

    #[test]
    fn self_trace_is_last() {
        let probes = probes();
        let (last, others) = probes.split_last().unwrap();
        assert!(last.when == When::Last && others.iter().all(|probe| probe.when != When::Last));
    }

    /// Except the tracepoints: only `check` lists them.
    #[test]
    fn limitations_page_lists_every_fact() {
        let page = include_str!("../../../docs/limitations.md");
        let is_tracepoint = |probe: &Probe| tracepoints().any(|known| known.name == probe.name);
        let missing: String = probes()
            .iter()
            .filter(|probe| !is_tracepoint(probe))
            .map(|probe| format!("| {} | {} |\n", probe.name, probe.purpose))
            .filter(|row| !page.contains(row))
            .collect();
        assert!(missing.is_empty(), "not in docs/limitations.md:\n{missing}");
    }
}
