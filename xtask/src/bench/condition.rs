//! What traces the machine during a measurement, and the order of the measurements.

use std::ops::{Index, IndexMut};

/// What traces the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Without,
    /// The build of `--against`.
    Before,
    Now,
}

/// A value for each condition.
#[derive(Default)]
pub(super) struct PerCondition<T> {
    without: T,
    before: T,
    now: T,
}

impl Condition {
    /// The conditions of a run.
    pub(super) fn all(against: bool) -> &'static [Self] {
        if against {
            &[Self::Without, Self::Before, Self::Now]
        } else {
            &[Self::Without, Self::Now]
        }
    }

    /// Those with a tracer.
    pub(super) fn traced(against: bool) -> &'static [Self] {
        &Self::all(against)[1..]
    }
}

/// A measurement of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) condition: Condition,
    /// Whether to measure the operations in the opposite order, which every other turn does. The last
    /// operation of one turn is then measured right before the same one of the next.
    pub(super) mirrored: bool,
}

/// The order in which to measure in one pair.
///
/// It changes from pair to pair, so that a machine that gets faster or slower favours none. Each order
/// occurs equally often: two conditions have two orders, three have six.
pub(super) fn order(conditions: &[Condition], pair: usize) -> Vec<Turn> {
    let number = conditions.len();
    let mut order = conditions.to_vec();
    order.rotate_left(pair / 2 % number);
    if pair % 2 == 1 {
        order.reverse();
    }
    let turns = order.into_iter().zip(pair * number..);
    turns.map(|(condition, turn)| Turn { condition, mirrored: turn % 2 == 1 }).collect()
}

impl<T> PerCondition<T> {
    pub(super) fn map<U>(&self, of: impl Fn(&T) -> U) -> PerCondition<U> {
        PerCondition { without: of(&self.without), before: of(&self.before), now: of(&self.now) }
    }
}

impl<T> Index<Condition> for PerCondition<T> {
    type Output = T;

    fn index(&self, condition: Condition) -> &T {
        match condition {
            Condition::Without => &self.without,
            Condition::Before => &self.before,
            Condition::Now => &self.now,
        }
    }
}

impl<T> IndexMut<Condition> for PerCondition<T> {
    fn index_mut(&mut self, condition: Condition) -> &mut T {
        match condition {
            Condition::Without => &mut self.without,
            Condition::Before => &mut self.before,
            Condition::Now => &mut self.now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conditions(against: bool, pair: usize) -> Vec<Condition> {
        order(Condition::all(against), pair).iter().map(|turn| turn.condition).collect()
    }

    /// How often each order occurs in the first `pairs` pairs.
    fn counts(against: bool, pairs: usize) -> Vec<usize> {
        let mut counts: Vec<(Vec<Condition>, usize)> = Vec::new();
        for pair in 0..pairs {
            let order = conditions(against, pair);
            match counts.iter_mut().find(|(other, _)| *other == order) {
                Some((_, count)) => *count += 1,
                None => counts.push((order, 1)),
            }
        }
        counts.into_iter().map(|(_, count)| count).collect()
    }

    #[test]
    fn all_orders_occur_equally_often() {
        assert_eq!(counts(false, 4), [2, 2]);
        assert_eq!(counts(true, 12), [2; 6]);
    }

    #[test]
    fn two_conditions_alternate() {
        use Condition::{Now, Without};
        assert_eq!(conditions(false, 0), [Without, Now]);
        assert_eq!(conditions(false, 1), [Now, Without]);
    }

    #[test]
    fn every_other_turn_is_mirrored_across_pairs() {
        for against in [false, true] {
            let turns = (0..4).flat_map(|pair| order(Condition::all(against), pair));
            let mirrored: Vec<_> = turns.map(|turn| turn.mirrored).collect();
            assert!(mirrored.iter().enumerate().all(|(at, it)| *it == (at % 2 == 1)));
        }
    }
}
