//! Which tests, jobs and containers the incidents of a group belong to.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    event::{Context, Incident},
    text::escape,
};

/// How many values of a kind are counted by name.
const VALUES: usize = 256;
/// A value is kept up to the first character that begins after so many bytes.
const VALUE_BYTES: usize = 256;
/// How many values of a kind are shown, and the columns of each.
const SHOWN: usize = 5;
const COLUMNS: usize = 64;

/// How many incidents have each value.
#[derive(Clone, Debug, Default)]
struct Values {
    known: HashMap<String, u64>,
    /// Those whose value is none of `known`, which is full.
    other: u64,
}

/// The tests, jobs, containers and pods of some incidents.
#[derive(Clone, Debug, Default)]
pub struct Contexts(BTreeMap<&'static str, Values>);

impl Contexts {
    /// Counts those of the failing process, of the holders, and of those who opened the file; each once.
    pub fn add(&mut self, incident: &Incident) {
        let openers = incident.holders.iter().filter_map(|holder| holder.opened.as_ref());
        let contexts = openers
            .map(|opened| &opened.context)
            .chain(incident.holders.iter().map(|holder| &holder.context))
            .chain([&incident.victim.context]);
        let facts: BTreeSet<(&'static str, &str)> = contexts
            .flatten()
            .flat_map(Context::each)
            .filter_map(|(kind, value)| Some((kind, value?)))
            .collect();
        for (kind, value) in facts {
            let values = self.0.entry(kind).or_default();
            let value = beginning(value);
            if let Some(count) = values.known.get_mut(value) {
                *count += 1;
            } else if values.known.len() < VALUES {
                values.known.insert(value.to_owned(), 1);
            } else {
                values.other += 1;
            }
        }
    }

    /// A line for each kind that is known of any incident, the most frequent values first; with how many of
    /// `incidents` have each, unless all do.
    #[must_use]
    pub fn lines(&self, incidents: u64) -> Vec<(&'static str, String)> {
        let line = |values: &Values| {
            let mut known: Vec<_> = values.known.iter().collect();
            known.sort_by_key(|&(value, count)| (std::cmp::Reverse(*count), value));
            let shown = known.iter().take(SHOWN).map(|&(value, count)| {
                let value = escape::short(value, COLUMNS);
                if *count == incidents { value } else { format!("{value} ({count})") }
            });
            let shown = shown.collect::<Vec<_>>().join(", ");
            let more = known.len().saturating_sub(SHOWN);
            match (more, values.other) {
                (0, 0) => shown,
                (more, 0) => format!("{shown} and {more} more"),
                (more, _) => format!("{shown} and more than {more} more"),
            }
        };
        self.0.iter().map(|(kind, values)| (*kind, line(values))).collect()
    }
}

/// A value, or so much of it as is kept.
fn beginning(value: &str) -> &str {
    let end = value.char_indices().map(|(at, _)| at).find(|at| *at >= VALUE_BYTES);
    &value[..end.unwrap_or(value.len())]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn of(test: &str) -> Incident {
        let mut incident = samples::race();
        let context = Context { test: Some(test.to_owned()), ..Context::default() };
        incident.victim.context = Some(context.clone());
        incident.holders[0].context = Some(context);
        incident
    }

    fn lines(incidents: &[Incident]) -> Vec<(&'static str, String)> {
        let mut contexts = Contexts::default();
        for incident in incidents {
            contexts.add(incident);
        }
        contexts.lines(incidents.len() as u64)
    }

    #[test]
    fn an_incident_counts_once_for_each_value() {
        assert_eq!(lines(&[samples::race()]), []);
        assert_eq!(lines(&[of("a"), of("a")]), [("test", "a".to_owned())]);
        assert_eq!(lines(&[of("b"), of("a"), of("a")]), [("test", "a (2), b (1)".to_owned())]);
        let mut two = of("a");
        two.holders[0].context =
            Some(Context { job: Some("7".to_owned()), ..of("b").victim.context.unwrap() });
        let both = [("job", "7".to_owned()), ("test", "a, b".to_owned())];
        assert_eq!(lines(&[two]), both);
    }

    #[test]
    fn many_values_and_long_ones_are_bounded() {
        let many: Vec<Incident> = (0..1000).map(|at| of(&format!("{at:03}"))).collect();
        let shown = "000 (1), 001 (1), 002 (1), 003 (1), 004 (1) and more than 251 more";
        assert_eq!(lines(&many), [("test", shown.to_owned())]);
        let long = "é".repeat(100_000);
        assert!(lines(&[of(&long)])[0].1.len() < 200);
        assert!(!lines(&[of("\x1b[2J\n::error::")])[0].1.contains(['\x1b', '\n']));
    }
}
