//! What this kernel and this user can do, a fact each. `check` tells them all; a start looks at
//! those that cost nothing, and, if tracing cannot begin, at the others for the reason.
//!
//! [`THEMES`] leads to every fact that there is; nothing else lists what tracing needs.

mod features;
mod machine;
mod place;
mod privileges;
mod system;
mod tracing;

use anyhow::anyhow;

use self::machine::Machine;
use crate::event::check::{self as lines, Checked, Line, Status, Theme};
use crate::tracer::{memlock, nofile};

/// The themes and their facts, in the order in which one rests on the other.
const THEMES: [(Theme, Facts); 5] = [
    (Theme::Place, place::facts),
    (Theme::Privileges, privileges::facts),
    (Theme::Kernel, system::facts),
    (Theme::Features, features::facts),
    (Theme::Tracing, tracing::facts),
];

/// Makes the list of a theme's facts.
type Facts = fn() -> Vec<Fact>;

/// Something to be found out.
struct Fact {
    /// What it is called.
    name: String,
    /// What tracing has of it.
    purpose: String,
    /// When it is looked at.
    when: When,
    /// Finds it out.
    look: Box<dyn Fn(&Machine) -> Finding>,
}

/// When a fact is looked at, besides by `check`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    /// At every start: it takes microseconds.
    Start,
    /// When a start has failed.
    Failure,
    /// Not at all, and by `check` only where nothing is missing: it is tracing itself.
    Last,
}

impl Fact {
    fn new(
        name: impl Into<String>,
        purpose: impl Into<String>,
        look: impl Fn(&Machine) -> Finding + 'static,
    ) -> Self {
        let (name, purpose) = (name.into(), purpose.into());
        Self { name, purpose, when: When::Failure, look: Box::new(look) }
    }

    /// The same, for every start to look at.
    fn at_start(self) -> Self {
        Self { when: When::Start, ..self }
    }

    /// The same, after all others.
    fn last(self) -> Self {
        Self { when: When::Last, ..self }
    }

    /// What is found now, as a line.
    fn line(&self, theme: Theme, machine: &Machine) -> lines::Fact {
        let Finding { status, found, instead, remedy } = (self.look)(machine);
        let (name, purpose) = (self.name.clone(), self.purpose.clone());
        lines::Fact { theme, name, status, purpose, found, instead, remedy }
    }
}

/// What was found out.
struct Finding {
    status: Status,
    found: String,
    instead: Option<String>,
    remedy: Option<String>,
}

impl Finding {
    /// All is well.
    fn ok(found: impl Into<String>) -> Self {
        Self { status: Status::Ok, found: found.into(), instead: None, remedy: None }
    }

    /// Tracing works; `instead` says with what difference.
    fn degraded(found: impl Into<String>, instead: impl Into<String>) -> Self {
        let instead = Some(instead.into());
        Self { status: Status::Degraded, instead, ..Self::ok(found) }
    }

    /// Tracing does not work.
    fn missing(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status: Status::Missing, ..Self::ok(found) }.mended_by(remedy)
    }

    /// It cannot be told, for that reason.
    fn unknown(why: impl Into<String>) -> Self {
        Self { status: Status::Unknown, ..Self::ok(why) }
    }

    fn mended_by(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// What a start needs that can be told at once; fails with what is missing, and warns of what is
/// degraded.
pub fn start() -> anyhow::Result<()> {
    missing(|when| when == When::Start).map_or(Ok(()), Err)
}

/// Why a start failed with `error`: the fact behind it, if one is found.
#[must_use]
pub fn explain(error: anyhow::Error) -> anyhow::Error {
    log::info!("{error:#}");
    missing(|when| when != When::Last).unwrap_or(error)
}

/// The first fact that is missing, of those looked at `when`, and how many more are.
fn missing(when: impl Fn(When) -> bool) -> Option<anyhow::Error> {
    let machine = Machine::default();
    let mut missing = Vec::new();
    for (theme, facts) in THEMES {
        for fact in facts().iter().filter(|fact| when(fact.when)) {
            machine.whole.set(missing.is_empty());
            let line = fact.line(theme, &machine);
            match line.status {
                Status::Missing => missing.push(line),
                Status::Degraded => log::warn!("{line}"),
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

/// Looks at everything, and tells each fact as it is found, and last what it comes to: true if
/// tracing will work.
pub fn report(mut tell: impl FnMut(&Line) -> anyhow::Result<()>) -> anyhow::Result<bool> {
    // As every start does; a fact says so if it cannot.
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
    for (theme, facts) in THEMES {
        for fact in facts() {
            machine.whole.set(checked.missing == 0);
            let line = fact.line(theme, &machine);
            *checked.count(line.status) += 1;
            if line.status == Status::Missing {
                checked.mend_first.get_or_insert_with(|| line.name.clone());
            }
            tell(&Line::Fact(line))?;
        }
    }
    let works = checked.missing == 0;
    checked.works = works;
    tell(&Line::Check(checked)).map(|()| works)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::tracer::programs::tracepoints;

    fn facts() -> Vec<Fact> {
        THEMES.iter().flat_map(|(_, facts)| facts()).collect()
    }

    #[test]
    fn no_two_facts_have_the_same_name() {
        let mut names = BTreeSet::new();
        for fact in facts() {
            assert!(names.insert(fact.name.clone()), "{}", fact.name);
        }
        for tracepoint in tracepoints() {
            assert!(names.contains(tracepoint.name), "{}", tracepoint.name);
        }
    }

    #[test]
    fn tracing_itself_comes_last() {
        let facts = facts();
        let (last, others) = facts.split_last().unwrap();
        assert!(last.when == When::Last && others.iter().all(|fact| fact.when != When::Last));
    }

    /// All but the tracepoints, which `check` lists.
    #[test]
    fn the_page_on_limitations_has_every_fact() {
        let page = include_str!("../../../docs/limitations.md");
        let is_tracepoint = |fact: &Fact| tracepoints().any(|known| known.name == fact.name);
        let missing: String = facts()
            .iter()
            .filter(|fact| !is_tracepoint(fact))
            .map(|fact| format!("| {} | {} |\n", fact.name, fact.purpose))
            .filter(|row| !page.contains(row))
            .collect();
        assert!(missing.is_empty(), "not in docs/limitations.md:\n{missing}");
    }
}
