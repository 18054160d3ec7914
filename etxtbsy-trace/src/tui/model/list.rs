//! The list: its rows, the selected row, and the open groups.

use crate::event::Incident;
use crate::tui::model::{
    incidents::{Group, Kept, Model},
    sort::Order,
};
use std::{cell::OnceCell, collections::HashSet};

/// A row of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row {
    /// A group, by its place in the model.
    Group(usize),
    /// An incident of a group, by its number.
    Single(usize, u64),
}

impl Row {
    /// The place of its group.
    #[must_use]
    pub fn group(self) -> usize {
        match self {
            Self::Group(place) | Self::Single(place, _) => place,
        }
    }

    /// Its incident; for a group, the latest one that passes the filter.
    #[must_use]
    pub fn incident(self, model: &Model) -> Option<(&Group, &Incident)> {
        self.kept(model).map(|(group, kept)| (group, &*kept.incident))
    }

    /// The same, with what the model has of it.
    #[must_use]
    pub fn kept(self, model: &Model) -> Option<(&Group, &Kept)> {
        let group = model.group(self.group())?;
        let number = match self {
            Self::Group(_) => group.latest()?,
            Self::Single(_, number) => number,
        };
        Some((group, group.find(number)?))
    }
}

/// The rows, and the index of the selected one.
struct Layout {
    rows: Vec<Row>,
    selected: usize,
}

/// The state of the list.
pub struct List {
    /// Whether the newest incident stays selected.
    follow: bool,
    order: Order,
    selected: Option<Row>,
    expanded: HashSet<usize>,
    /// Computed once after each change.
    layout: OnceCell<Layout>,
}

impl Default for List {
    fn default() -> Self {
        Self {
            follow: true,
            order: Order::default(),
            selected: None,
            expanded: HashSet::new(),
            layout: OnceCell::new(),
        }
    }
}

impl List {
    /// Must be called when the model or the filter has changed.
    pub fn changed(&mut self) {
        self.layout.take();
    }

    /// The rows: the groups with incidents that pass the filter, and the incidents of open groups.
    #[must_use]
    pub fn rows(&self, model: &Model) -> &[Row] {
        &self.layout(model).rows
    }

    /// The index of the selected row. If the row is not shown, that of its group, or the first.
    #[must_use]
    pub fn selected(&self, model: &Model) -> usize {
        self.layout(model).selected
    }

    /// The selected row, if there is one.
    #[must_use]
    pub fn row(&self, model: &Model) -> Option<Row> {
        let layout = self.layout(model);
        layout.rows.get(layout.selected).copied()
    }

    /// Whether the newest incident stays selected.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.follow
    }

    /// The order of the groups.
    #[must_use]
    pub fn order(&self) -> Order {
        self.order
    }

    /// Whether a group is open.
    #[must_use]
    pub fn is_expanded(&self, place: usize) -> bool {
        self.expanded.contains(&place)
    }

    fn layout(&self, model: &Model) -> &Layout {
        self.layout.get_or_init(|| {
            let groups = model.groups();
            let mut places: Vec<usize> =
                (0..groups.len()).filter(|place| groups[*place].passing() > 0).collect();
            // Near misses do not take the selection away from a failure.
            let newest = places.iter().max_by_key(|place| groups[**place].newest()).copied();
            places.sort_by(|a, b| self.order.compare(&groups[*a], &groups[*b]));
            let mut rows = Vec::with_capacity(places.len());
            for place in places {
                rows.push(Row::Group(place));
                if self.expanded.contains(&place) {
                    let all = groups[place].all_passing().rev();
                    rows.extend(all.map(|kept| Row::Single(place, kept.number)));
                }
            }
            let at = |wanted: Row| rows.iter().position(|row| *row == wanted);
            let wanted = if self.follow { newest.map(Row::Group) } else { self.selected };
            let selected = wanted.and_then(|row| at(row).or_else(|| at(Row::Group(row.group()))));
            Layout { selected: selected.unwrap_or(0), rows }
        })
    }

    /// Selects a row, and stops following the newest.
    fn select(&mut self, row: Row) {
        self.selected = Some(row);
        self.follow = false;
        self.changed();
    }

    /// Starts or stops following the newest.
    pub fn toggle_follow(&mut self, model: &Model) {
        self.selected = self.row(model);
        self.follow = !self.follow;
        self.changed();
    }

    /// Opens or closes the selected group.
    pub fn toggle(&mut self, model: &Model) {
        let Some(row) = self.row(model) else { return };
        let place = row.group();
        self.select(Row::Group(place));
        if !self.expanded.remove(&place) {
            self.expanded.insert(place);
        }
    }

    /// Closes the selected group if it is open.
    pub fn close(&mut self, model: &Model) {
        if let Some(row) = self.row(model)
            && self.expanded.remove(&row.group())
        {
            self.select(Row::Group(row.group()));
        }
    }

    /// Moves the selection down by rows, or up if negative, at most to the end.
    pub fn step(&mut self, model: &Model, rows: isize) {
        let layout = self.layout(model);
        let last = layout.rows.len().saturating_sub(1);
        if let Some(row) = layout.rows.get(layout.selected.saturating_add_signed(rows).min(last)) {
            self.select(*row);
        }
    }

    /// Selects the next (or previous) row that is `wanted`, and wraps around; whether there is one.
    pub fn find(
        &mut self,
        model: &Model,
        forward: bool,
        wanted: impl Fn(&Incident) -> bool,
    ) -> bool {
        let Layout { rows, selected } = self.layout(model);
        let count = rows.len();
        let found = (1..=count)
            .map(|step| if forward { selected + step } else { selected + count - step } % count)
            .map(|at| rows[at])
            .find(|row| row.incident(model).is_some_and(|(_, incident)| wanted(incident)));
        if let Some(row) = found {
            self.select(row);
        }
        found.is_some()
    }

    /// Sorts by the next criterion.
    pub fn sort(&mut self) {
        self.order.next();
        self.changed();
    }

    /// Reverses the order.
    pub fn invert(&mut self) {
        self.order.inverted = !self.order.inverted;
        self.changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;

    /// Every sample, and two more of the first.
    fn model() -> Model {
        let mut model = Model::default();
        for line in samples::no_near_misses() {
            model.add(line, |_| true);
        }
        for id in [7, 8] {
            let mut incident = samples::race();
            incident.id = id;
            model.add(incident.into(), |_| true);
        }
        model
    }

    /// The id of what each row shows.
    fn ids(list: &List, model: &Model) -> Vec<u64> {
        let rows = list.rows(model).iter();
        rows.map(|row| row.incident(model).unwrap().1.id).collect()
    }

    #[test]
    fn each_order_sorts_the_groups() {
        let model = model();
        let mut list = List::default();
        for (name, order, inverted) in [
            ("newest first", [8, 6, 4, 3, 2], [2, 3, 4, 6, 8]),
            ("most first", [8, 6, 4, 3, 2], [6, 4, 3, 2, 8]),
            // Two still held, 2.5 s, 1.25 ms, unknown.
            ("longest wait first", [6, 2, 3, 8, 4], [4, 8, 3, 6, 2]),
            ("by verdict", [8, 3, 2, 6, 4], [4, 6, 2, 3, 8]),
            // /bin/sh, three times the same, unknown.
            ("by path", [2, 8, 6, 3, 4], [4, 8, 6, 3, 2]),
        ] {
            assert_eq!((list.order().name(), ids(&list, &model)), (name, order.to_vec()));
            assert_eq!(list.row(&model), Some(Row::Group(0)), "the newest is followed");
            list.invert();
            assert_eq!(ids(&list, &model), inverted, "{name}, inverted");
            list.invert();
            list.sort();
        }
        assert_eq!(list.order(), Order::default());
    }

    #[test]
    fn the_selection_survives_another_order() {
        let model = model();
        let mut list = List::default();
        list.step(&model, 3);
        let row = list.row(&model);
        list.sort();
        list.invert();
        assert_eq!(list.row(&model), row);
    }

    #[test]
    fn if_the_selected_incident_is_filtered_out_its_group_is_selected() {
        let mut model = model();
        let mut list = List::default();
        list.toggle(&model);
        list.step(&model, 1);
        assert_eq!(list.row(&model), Some(Row::Single(0, 7)));
        model.apply_filter(|incident| incident.id < 7);
        list.changed();
        assert_eq!(list.row(&model), Some(Row::Group(0)));
        assert_eq!(ids(&list, &model), [6, 5, 5, 1, 4, 3, 2]);
        model.apply_filter(|_| false);
        list.changed();
        assert_eq!((list.row(&model), list.rows(&model)), (None, [].as_slice()));
        list.step(&model, 1);
        list.toggle(&model);
        list.close(&model);
        list.toggle_follow(&model);
        assert!(!list.find(&model, true, |_| true));
    }
}
