//! The time axis: converts times to columns, and finds round times for the labels.

use crate::{
    text::{escape, time},
    timeline::zoom::{Extent, Span},
};

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

/// Far events have one column in so many at either end.
const FAR: usize = 8;

/// A period of time in columns. What is farther away has a few columns at either end that are not to
/// scale: the farther, the denser.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    /// The period that is to scale.
    pub(super) span: Span,
    /// All columns.
    pub(super) columns: usize,
    /// What is earlier.
    earlier: Option<Far>,
    /// What is later.
    later: Option<Far>,
}

/// Columns for what is far away.
#[derive(Clone, Copy, Debug)]
struct Far {
    columns: usize,
    /// The farthest event.
    end: i64,
}

/// A round time with its label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tick {
    pub(super) column: usize,
    pub(super) name: String,
}

impl Axis {
    /// An axis that is all to scale.
    pub(super) fn new(span: Span, columns: usize) -> Self {
        Self { span, columns, earlier: None, later: None }
    }

    /// An axis of all events, of which the near ones are to scale.
    pub(super) fn whole(extent: &Extent, columns: usize) -> Self {
        let Extent { fit, all } = *extent;
        // Without the margin.
        let margin = (all.width() / 18) as i64;
        let (from, to) = (all.from.saturating_add(margin), all.to.saturating_sub(margin));
        let far = Some(columns / FAR).filter(|columns| *columns > 1);
        let far =
            |is_there: bool, end| far.filter(|_| is_there).map(|columns| Far { columns, end });
        Self {
            span: fit,
            columns,
            earlier: far(from < fit.from, from),
            later: far(to > fit.to, to),
        }
    }

    /// The columns that are to scale: the first, and how many.
    pub(super) fn scale(&self) -> (usize, usize) {
        let first = self.earlier.map_or(0, |far| far.columns);
        (first, self.columns - first - self.later.map_or(0, |far| far.columns))
    }

    /// The columns in which the scale changes.
    pub(super) fn breaks(&self) -> impl Iterator<Item = usize> {
        let (first, count) = self.scale();
        let earlier = self.earlier.map(|_| first - 1);
        earlier.into_iter().chain(self.later.map(|_| first + count))
    }

    /// Whether a time is earlier, or later, than all columns.
    pub(super) fn is_before(&self, at: i64) -> bool {
        self.earlier.is_none() && at < self.span.from
    }

    /// Whether a time is later than all columns.
    pub(super) fn is_after(&self, at: i64) -> bool {
        self.later.is_none() && at > self.span.to
    }

    /// The column of a time, if it is visible.
    pub(super) fn column(&self, at: i64) -> Option<usize> {
        (!self.is_before(at) && !self.is_after(at)).then(|| self.nearest(at))
    }

    /// The column of a time; the first or last column if it is not visible.
    pub(super) fn nearest(&self, at: i64) -> usize {
        let (first, count) = self.scale();
        match (self.earlier, self.later) {
            (Some(far), _) if at < self.span.from => {
                (first - 2).saturating_sub(self.distance(far, self.span.from, at))
            }
            (_, Some(far)) if at > self.span.to => {
                (first + count + 1 + self.distance(far, self.span.to, at)).min(self.columns - 1)
            }
            _ => {
                let last = count.saturating_sub(1);
                let at = i128::from(at.clamp(self.span.from, self.span.to));
                let part = at - i128::from(self.span.from);
                let column = part * last as i128 / self.span.width().max(1);
                first + usize::try_from(column).unwrap_or(last)
            }
        }
    }

    /// By how many columns a far time is away from the break.
    fn distance(&self, far: Far, edge: i64, at: i64) -> usize {
        let column_ns = (self.span.width().unsigned_abs() as u64 / self.columns as u64).max(1);
        let length = |at: i64| log2(1 + edge.abs_diff(at) / column_ns);
        let most = far.columns as u64 - 2;
        let part = (length(at) * most).checked_div(length(far.end)).unwrap_or(0);
        usize::try_from(part.min(most)).unwrap_or(0)
    }

    /// The farthest events beyond the breaks.
    fn ends(&self) -> impl Iterator<Item = Tick> {
        let ends = [self.earlier, self.later].into_iter().flatten().map(|far| far.end);
        ends.map(|end| {
            let sign = if end < 0 { '-' } else { '+' };
            let name = format!("{sign}{}", time::span(end.unsigned_abs()));
            Tick { column: self.nearest(end), name }
        })
    }

    /// Round times, and the farthest events. The labels have room.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let (first, columns) = self.scale();
        let scale = Self::new(self.span, columns);
        let shifted = |tick: Tick| Tick { column: tick.column + first, ..tick };
        let mut ticks: Vec<Tick> = scale.round().into_iter().map(shifted).collect();
        ticks.extend(self.ends());
        ticks.sort_by_key(|tick| tick.column);
        ticks
    }

    /// As many round times as there is room for, including the failure if it is visible.
    fn round(&self) -> Vec<Tick> {
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

/// The binary logarithm in 256ths, of numbers from 1 on.
fn log2(number: u64) -> u64 {
    let whole = number.ilog2();
    let mantissa = (u128::from(number) << (64 - whole)) as u64;
    (u64::from(whole) << 8) | (mantissa >> 56)
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
        Axis::new(Span { from, to }, columns)
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

    #[test]
    fn logarithms_grow() {
        let some = [1, 2, 3, 4, 1_000, 1 << 40, u64::MAX / 2, u64::MAX].map(log2);
        assert!(some.is_sorted() && some[..4] == [0, 256, 384, 512], "{some:?}");
    }

    #[test]
    fn far_events_are_visible_beyond_breaks() {
        let fit = Span { from: -495_001, to: 220_003 };
        let hours = 7_200_000_000_000;
        let all = Span { from: -hours - hours / 8, to: hours + hours / 8 };
        let axis = Axis::whole(&Extent { fit, all }, 80);
        let columns = [-hours, -3_000_000, fit.from, 0, fit.to].map(|at| axis.column(at));
        assert_eq!(columns, [0, 6, 10, 50, 69].map(Some));
        assert_eq!(axis.breaks().collect::<Vec<_>>(), [9, 70]);
        assert_eq!(axis.ticks()[0], Tick { column: 0, name: "-2.00 h".to_owned() });
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
