//! The incidents that the user exports to a file.

use crate::tui::model::{
    incidents::{Group, Kept, Model},
    list::Row,
};
use crate::{
    event::{Line, LossKind, Lost},
    output::{Output as _, incident::count, json::Json},
};
use std::io::{self, Write};

/// Which incidents are exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The selected incident, or all shown incidents of the selected group.
    Selected(Row),
    /// All incidents that pass the filter.
    Filtered,
    /// All incidents in memory.
    All,
}

/// The incidents of an export.
pub struct Export<'a> {
    model: &'a Model,
    /// In the order of arrival.
    chosen: Vec<&'a Kept>,
    /// How many of the group, or of all, are in memory, and how many there were.
    kept: (u64, u64),
}

impl<'a> Export<'a> {
    /// The incidents of a scope.
    #[must_use]
    pub fn new(model: &'a Model, scope: Scope) -> Self {
        let groups = model.groups().iter();
        let mut chosen: Vec<&Kept> = match scope {
            Scope::All => groups.flat_map(Group::all).collect(),
            Scope::Filtered => groups.flat_map(Group::all_passing).collect(),
            Scope::Selected(Row::Group(place)) => {
                model.group(place).into_iter().flat_map(Group::all_passing).collect()
            }
            Scope::Selected(Row::Single(place, number)) => {
                model.group(place).and_then(|group| group.find(number)).into_iter().collect()
            }
        };
        chosen.sort_by_key(|kept| kept.number);
        let kept = match scope {
            Scope::All | Scope::Filtered => (model.kept() as u64, model.received()),
            Scope::Selected(Row::Group(place)) => model
                .group(place)
                .map_or((0, 0), |group| (group.all().len() as u64, group.tally.count)),
            Scope::Selected(Row::Single(..)) => (1, 1),
        };
        Self { model, chosen, kept }
    }

    /// The number of incidents.
    #[must_use]
    pub fn count(&self) -> usize {
        self.chosen.len()
    }

    /// The number as text: `3 incidents (3 of 5 in memory)`.
    #[must_use]
    pub fn report(&self) -> String {
        let near = self.chosen.iter().filter(|kept| kept.near.is_some()).count() as u64;
        let incidents = self.chosen.len() as u64 - near;
        let incidents =
            (incidents > 0 || near == 0).then(|| count(incidents, "incident", "incidents"));
        let near = (near > 0).then(|| count(near, "near miss", "near misses"));
        let count = [incidents, near].into_iter().flatten().collect::<Vec<_>>().join(" and ");
        match self.kept {
            (kept, all) if kept < all => format!("{count} ({kept} of {all} in memory)"),
            _ => count,
        }
    }

    /// Writes the incidents as JSON lines, with the `meta` line, and a `lost` line if anything was
    /// lost.
    pub fn write(&self, out: impl Write + Send) -> io::Result<()> {
        let mut json = Json::new(out);
        if let Some(meta) = &self.model.meta {
            json.line(&Line::Meta(meta.clone()))?;
        }
        for kept in &self.chosen {
            json.line(&kept.line())?;
        }
        if self.model.lost > 0 {
            let what = "of all kinds, until this was exported".to_owned();
            json.line(&Line::Lost(Lost {
                kind: LossKind::OutputStalled,
                what,
                count: self.model.lost,
            }))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    /// Every sample; if `filtered`, the first three do not pass the filter.
    fn model(filtered: bool) -> Model {
        let mut model = Model::default();
        for line in samples::no_near_misses() {
            model.add(line, |incident| !filtered || incident.id > 3);
        }
        model
    }

    /// The ids that are written, and the reported number.
    fn written(model: &Model, scope: Scope) -> (Vec<u64>, String) {
        let export = Export::new(model, scope);
        let mut out = Vec::new();
        export.write(&mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<Line> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.first(), Some(&samples::meta().into()));
        let lost = matches!(lines.last(), Some(Line::Lost(lost)) if lost.count == 3);
        assert!(lost, "the export reports the loss");
        let incidents = lines.iter().filter_map(|line| match line {
            Line::Incident(incident) => Some(incident.id),
            _ => None,
        });
        (incidents.collect(), export.report())
    }

    #[test]
    fn each_scope_writes_its_incidents() {
        for (filtered, scope, ids) in [
            (true, Scope::All, vec![1, 2, 3, 4, 5, 6]),
            (true, Scope::Filtered, vec![4, 5, 6]),
            (false, Scope::Selected(Row::Group(0)), vec![1, 5]),
            (true, Scope::Selected(Row::Group(0)), vec![5]),
            (false, Scope::Selected(Row::Single(0, 0)), vec![1]),
            (false, Scope::Selected(Row::Single(0, 99)), vec![]),
        ] {
            let (written, count) = written(&model(filtered), scope);
            assert_eq!(written, ids, "{scope:?}");
            let s = if ids.len() == 1 { "" } else { "s" };
            assert_eq!(count, format!("{} incident{s}", ids.len()));
        }
    }

    #[test]
    fn the_report_counts_incidents_that_are_no_longer_in_memory() {
        let mut model = model(false);
        for id in 7..=10_004 {
            let mut incident = samples::leaked();
            incident.id = id;
            model.add(incident.into(), |_| true);
        }
        let count = |scope| Export::new(&model, scope).report();
        assert_eq!(count(Scope::All), "10000 incidents (10000 of 10004 in memory)");
        let leaks = "9996 incidents (9996 of 9999 in memory)";
        assert_eq!(count(Scope::Selected(Row::Group(1))), leaks);
        assert_eq!(count(Scope::Selected(Row::Group(0))), "1 incident (1 of 2 in memory)");
        assert_eq!(count(Scope::Selected(Row::Single(1, 10_003))), "1 incident");
    }
}
