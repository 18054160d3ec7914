//! The time axis: converts times to columns, and finds round times for the labels.

use crate::{text::escape, timeline::zoom::Span};

/// Units in nanoseconds, the largest first, and whether they are shown with decimals.
const UNITS: [(i128, &str, bool); 7] = [
    (86_400_000_000_000, "d", false),
    (3_600_000_000_000, "h", false),
    (60_000_000_000, "min", false),
    (1_000_000_000, "s", true),
    (1_000_000, "ms", true),
    (1_000, "µs", true),
    (1, "ns", true),
];
/// The fewest free columns between two labels.
const GAP: usize = 3;
/// The approximate maximum of labels.
const LABELS: usize = 12;

/// A period of time in columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) span: Span,
    pub(super) columns: usize,
}

/// A round time with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) column: usize,
    pub(super) name: String,
}

impl Axis {
    /// The column of a time, if it is visible.
    pub(super) fn column(&self, at: i64) -> Option<usize> {
        (self.span.from..=self.span.to).contains(&at).then(|| self.nearest(at))
    }

    /// The column of a time; the first or last column if it is not visible.
    pub(super) fn nearest(&self, at: i64) -> usize {
        let last = self.columns.saturating_sub(1);
        let part = i128::from(at.clamp(self.span.from, self.span.to)) - i128::from(self.span.from);
        usize::try_from(part * last as i128 / self.span.width().max(1)).unwrap_or(last)
    }

    /// As many round times as there is room for, including the failure if it is visible.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        steps().find_map(|step| self.every(step)).unwrap_or_default()
    }

    /// The multiples of `step`, if there is room for all labels.
    fn every(&self, step: i128) -> Option<Vec<Tick>> {
        let (from, to) = (i128::from(self.span.from), i128::from(self.span.to));
        let multiples = from.div_euclid(step)..=to.div_euclid(step);
        if multiples.end() - multiples.start() > self.columns as i128 {
            return None;
        }
        let most = from.abs().max(to.abs());
        let mut ticks: Vec<Tick> = Vec::new();
        let mut free = 0;
        for at in multiples.map(|multiple| multiple * step) {
            let Some(column) = i64::try_from(at).ok().and_then(|at| self.column(at)) else {
                continue;
            };
            let name = named(at, step, most);
            if column < free {
                return None;
            }
            free = column + (escape::width(&name) + GAP).max(self.columns / LABELS);
            ticks.push(Tick { column, name });
        }
        Some(ticks)
    }
}

/// Round durations in nanoseconds, the shortest first.
fn steps() -> impl Iterator<Item = i128> {
    let decimal = (0..11).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10_i128.pow(zeros)));
    let decimal = decimal.filter(|step| *step < 20_000_000_000);
    let sixties = [1, 2, 4, 10, 20, 60, 120, 240, 720, 1440].map(|halves| halves * 30_000_000_000);
    let days = (0..7).flat_map(|zeros| [1, 2, 5].map(|digit| digit * 10_i128.pow(zeros)));
    decimal.chain(sixties).chain(days.map(|days| days * UNITS[0].0))
}

/// The label of a multiple of `step`, in the largest suitable unit up to `most`.
fn named(at: i128, step: i128, most: i128) -> String {
    if at == 0 {
        return "0".to_owned();
    }
    let suits = |(unit, _, parts): &&(i128, &str, bool)| {
        *unit <= most && if *parts { step * 100 % unit == 0 } else { step % unit == 0 }
    };
    let (unit, name, _) = UNITS.iter().find(suits).unwrap_or(&UNITS[6]);
    let sign = if at < 0 { '-' } else { '+' };
    let hundredths = at.abs() * 100 / unit;
    let number = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    format!("{sign}{} {name}", number.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn axis(from: i64, to: i64, columns: usize) -> Axis {
        Axis { span: Span { from, to }, columns }
    }

    fn names(axis: &Axis) -> Vec<String> {
        axis.ticks().into_iter().map(|tick| tick.name).collect()
    }

    #[test]
    fn ticks_are_round() {
        let cases = [
            ((-495_000, 220_000, 60), "-400 µs, -200 µs, 0, +200 µs"),
            ((-495_000, 220_000, 12), "0"),
            ((-900, 2_100, 80), "-0.5 µs, 0, +0.5 µs, +1 µs, +1.5 µs, +2 µs"),
            ((-7_900_000_000_000, 500_000_000_000, 60), "-120 min, -90 min, -60 min, -30 min, 0"),
            ((0, 90_000_000_000, 30), "0, +30 s, +60 s, +90 s"),
            (
                (-7_200_000_000_500, -7_199_999_999_000, 60),
                "-7200000000.5 µs, -7200000000 µs, -7199999999.5 µs, -7199999999 µs",
            ),
        ];
        for ((from, to, columns), expected) in cases {
            assert_eq!(names(&axis(from, to, columns)).join(", "), expected);
        }
    }

    proptest! {
        #[test]
        fn labels_do_not_overlap(from in any::<i64>(), width in 1_i64.., columns in 1_usize..300) {
            let axis = axis(from, from.saturating_add(width), columns);
            prop_assume!(axis.span.from < axis.span.to);
            let mut free = 0;
            for tick in axis.ticks() {
                prop_assert!(free <= tick.column && tick.column < columns);
                free = tick.column + escape::width(&tick.name) + 1;
            }
        }

        #[test]
        fn columns_keep_the_order_of_times(a in any::<i64>(), b in any::<i64>(), columns in 1_usize..300) {
            let axis = axis(-495_000, 220_000, columns);
            prop_assert_eq!(axis.nearest(a.min(b)) <= axis.nearest(a.max(b)), true);
            prop_assert!(axis.nearest(a) < columns);
        }
    }
}
