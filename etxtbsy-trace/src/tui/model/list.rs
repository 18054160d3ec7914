//! The list: its rows, the selected row, and the open groups.

use crate::event::Incident;
use crate::tui::model::{
    incidents::{Group, Kept, Model},
    sort::{By, Order},
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

/// A match of the search: the index of its row, or of the closed group that has it.
#[derive(Clone, Copy)]
struct Match {
    at: (usize, Within),
    row: Row,
}

/// Where a match is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Within {
    /// In the row itself.
    Row,
    /// In the closed group of the row.
    Group,
}

/// The rows, the index of the selected one, and the matches from top to bottom.
struct Layout {
    rows: Vec<Row>,
    selected: usize,
    matches: Vec<Match>,
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
            let matches = self.matches(model, &rows);
            Layout { selected: selected.unwrap_or(0), rows, matches }
        })
    }

    /// The rows that the search finds. A closed group that shows no match but has one leads to it.
    fn matches(&self, model: &Model, rows: &[Row]) -> Vec<Match> {
        let search = model.search();
        if search.is_empty() {
            return Vec::new();
        }
        let find = |(index, row): (usize, &Row)| {
            let (group, kept) = row.kept(model)?;
            let names = |group: &Group| group.tally.file.text().is_some_and(|it| search.is_in(&it));
            let is_group = matches!(row, Row::Group(_));
            if kept.is_found() || is_group && names(group) {
                return Some(Match { at: (index, Within::Row), row: *row });
            }
            let place = row.group();
            if !is_group || self.is_expanded(place) {
                return None;
            }
            let inner = group.all_passing().rev().find(|kept| kept.is_found())?;
            let row = Row::Single(place, inner.number);
            Some(Match { at: (index, Within::Group), row })
        };
        rows.iter().enumerate().filter_map(find).collect()
    }

    /// The place of the selected row among the matches, from 1 on, and how many there are.
    #[must_use]
    pub fn found(&self, model: &Model) -> (Option<usize>, usize) {
        let Layout { selected, matches, .. } = self.layout(model);
        let place = matches.iter().position(|it| it.at == (*selected, Within::Row));
        (place.map(|place| place + 1), matches.len())
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

    /// To the right in the tree: opens the selected group, or moves into it if it is open.
    pub fn right(&mut self, model: &Model) {
        let Some(row) = self.row(model) else { return };
        match row {
            Row::Group(place) if self.is_expanded(place) => self.step(model, 1),
            Row::Group(_) => self.toggle(model),
            Row::Single(..) => {}
        }
    }

    /// To the left in the tree: from an incident to its group, or closes the group.
    pub fn left(&mut self, model: &Model) {
        match self.row(model) {
            Some(Row::Single(place, _)) => self.select(Row::Group(place)),
            Some(Row::Group(_)) => self.close(model),
            None => {}
        }
    }

    /// Whether a group is selected.
    #[must_use]
    pub fn is_group(&self, model: &Model) -> bool {
        matches!(self.row(model), Some(Row::Group(_)))
    }

    /// Selects the row at an index; whether it was selected already.
    pub fn select_at(&mut self, model: &Model, index: usize) -> Option<bool> {
        let layout = self.layout(model);
        let (row, was) = (*layout.rows.get(index)?, layout.selected == index && !self.follow);
        self.select(row);
        Some(was)
    }

    /// Moves the selection down by rows, or up if negative, at most to the end.
    pub fn step(&mut self, model: &Model, rows: isize) {
        let layout = self.layout(model);
        let last = layout.rows.len().saturating_sub(1);
        if let Some(row) = layout.rows.get(layout.selected.saturating_add_signed(rows).min(last)) {
            self.select(*row);
        }
    }

    /// Selects the next (or previous) match, and wraps around; whether there is one.
    pub fn find(&mut self, model: &Model, forward: bool) -> bool {
        let Layout { selected, matches, .. } = self.layout(model);
        let here = (*selected, Within::Row);
        let found = if forward {
            matches.iter().find(|it| it.at > here).or_else(|| matches.first())
        } else {
            matches.iter().rfind(|it| it.at < here).or_else(|| matches.last())
        };
        let Some(row) = found.map(|found| found.row) else { return false };
        if let Row::Single(place, _) = row {
            self.expanded.insert(place);
        }
        self.select(row);
        true
    }

    /// Sorts by a criterion; in the other direction if it is sorted by that already.
    pub fn sort_by(&mut self, by: By) {
        let inverted = self.order.by == by && !self.order.inverted;
        self.order = Order { by, inverted };
        self.changed();
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
        assert!(!list.find(&model, true));
    }

    #[test]
    fn most_first_compares_all_incidents_not_only_those_in_memory() {
        let mut model = Model::default();
        for (id, many) in [(1, samples::race()), (2, samples::leaked())] {
            for _ in 0..[9_000, 7_000][id - 1] {
                model.add(many.clone().into(), |_| true);
            }
        }
        // Nearly all in memory are of the second group.
        assert!(model.group(0).unwrap().all().len() < model.group(1).unwrap().all().len());
        let mut list = List::default();
        list.sort();
        assert_eq!(list.rows(&model), [Row::Group(0), Row::Group(1)]);
    }

    #[test]
    fn the_keys_of_a_tree_open_enter_leave_and_close() {
        let model = model();
        let mut list = List::default();
        list.right(&model);
        assert!(list.is_expanded(0) && list.row(&model) == Some(Row::Group(0)));
        list.right(&model);
        list.step(&model, 1);
        assert_eq!(list.row(&model), Some(Row::Single(0, 6)));
        list.left(&model);
        assert!(list.is_expanded(0) && list.row(&model) == Some(Row::Group(0)));
        list.left(&model);
        assert!(!list.is_expanded(0));
    }

    #[test]
    fn a_match_in_a_closed_group_is_found_once_and_opens_it() {
        let mut model = model();
        model.search_for("#1");
        let mut list = List::default();
        assert_eq!(list.found(&model), (None, 1));
        assert!(list.find(&model, true));
        assert_eq!((list.row(&model), list.found(&model)), (Some(Row::Single(0, 0)), (Some(1), 1)));
        model.search_for("still-open");
        list.changed();
        assert!(list.find(&model, false));
        assert_eq!((list.row(&model), list.found(&model)), (Some(Row::Group(2)), (Some(1), 1)));
    }
}
