//! The one thing to change first.

use super::{advice, culprit, is_fixed_by_one_remedy};
use crate::analysis::verdict::advice::Names;
use crate::event::{Incident, VerdictKind};
use std::collections::HashMap;

/// How many remedies are counted; there are a few for each program that opens files.
const MOST: usize = 1000;

/// Counts how many incidents each remedy would fix.
#[derive(Clone, Debug, Default)]
pub struct ChangeFirst {
    /// By the text of the remedy, without pids.
    counts: HashMap<String, u64>,
    incidents: u64,
}

impl ChangeFirst {
    /// Counts an incident.
    pub fn add(&mut self, incident: &Incident) {
        self.incidents += 1;
        let kind = incident.verdict.kind;
        if kind == VerdictKind::Unexplained || !is_fixed_by_one_remedy(incident) {
            return;
        }
        let culprit = culprit(incident);
        let Some(first) = advice::of(kind, incident, culprit, Names::Group).into_iter().next()
        else {
            return;
        };
        if self.counts.len() < MOST || self.counts.contains_key(&first) {
            *self.counts.entry(first).or_default() += 1;
        }
    }

    /// The remedy that would fix the most incidents; `None` where there are fewer than two.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let best =
            self.counts.iter().max_by_key(|(text, count)| (**count, std::cmp::Reverse(*text)));
        let (text, count) = best.filter(|_| self.incidents >= 2)?;
        Some(format!("would fix {count} of {} incidents: {text}", self.incidents))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    fn first(incidents: &[Incident]) -> Option<String> {
        let mut counts = ChangeFirst::default();
        for incident in incidents {
            counts.add(incident);
        }
        counts.text()
    }

    #[test]
    fn change_first_counts_what_the_remedy_would_fix_and_names_no_pid() {
        let races: Vec<Incident> = (0..3)
            .map(|n| {
                let mut race = samples::race();
                race.holders[0].pid += 10 * n;
                race.holders[0].opened.as_mut().unwrap().tid += n;
                race
            })
            .collect();
        let text = first(&[races.clone(), vec![samples::leaked()]].concat()).unwrap();
        assert!(
            text.starts_with("would fix 3 of 4 incidents: write the file in a child"),
            "{text}"
        );
        // Another opener needs another fix.
        let open = |comm: &str| {
            let mut open = samples::still_open();
            open.holders[0].exe = Some(format!("/usr/bin/{comm}"));
            open
        };
        let text = first(&[open("a"), open("a"), open("b")]).unwrap();
        assert!(text.starts_with("would fix 2 of 3 incidents: close the file in a "), "{text}");
        assert!(!text.contains('['), "{text}");
        // Fixing the race does not fix the leak; `several` is not complete.
        let mut both = samples::race();
        both.holders.extend(samples::leaked().holders);
        let text = first(&[races[0].clone(), both, samples::several()]).unwrap();
        assert!(text.starts_with("would fix 1 of 3 incidents"), "{text}");
    }

    #[test]
    fn a_single_incident_or_only_unexplained_ones_have_no_first_change() {
        assert_eq!(first(&[samples::race()]), None);
        assert_eq!(first(&[samples::unexplained(), samples::unexplained()]), None);
    }
}
