//! Which stretch of time is looked at: what suits the incident, or what the keys made of it.

/// A stretch of time, in nanoseconds counted from the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: i64,
    /// Its end, later than that.
    pub to: i64,
}

/// What there is to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// What is shown if nobody wants it otherwise: the failure, and what is near.
    pub fit: Span,
    /// All there is.
    pub all: Span,
}

/// What is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zoom(Option<Span>);

/// How wide the narrowest view is, in nanoseconds.
const NARROWEST: i128 = 100;
/// Into how many steps the view is divided for panning.
const STEPS: i128 = 8;
/// A view whose ends differ from the fit's by less than such a part of it is the fit.
const ALIKE: u64 = 64;

impl Span {
    /// From one moment to the other, as near as they can be told.
    fn new(from: i128, to: i128) -> Self {
        let near = |ns: i128| ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Self { from: near(from), to: near(to.max(from + 1)) }
    }

    /// How long it is, in nanoseconds.
    #[must_use]
    pub fn width(self) -> i128 {
        i128::from(self.to) - i128::from(self.from)
    }

    /// Moved, if need be, to lie in `all`, or all of it.
    fn within(self, all: Self) -> Self {
        if self.width() >= all.width() {
            return all;
        }
        let (from, width) = (i128::from(self.from), self.width());
        let from = from.clamp(all.from.into(), i128::from(all.to) - width);
        Self::new(from, from + width)
    }
}

impl Zoom {
    /// The stretch of time to show.
    #[must_use]
    pub fn window(self, sight: &Sight) -> Span {
        self.0.map_or(sight.fit, |span| span.within(sight.all))
    }

    /// Half as wide, or twice: about the failure, or if that is not in view, about the middle.
    #[must_use]
    pub fn zoomed(self, sight: &Sight, closer: bool) -> Self {
        let now = self.window(sight);
        let (from, to) = (i128::from(now.from), i128::from(now.to));
        let pivot = if from <= 0 && to >= 0 { 0 } else { i128::midpoint(from, to) };
        let scaled = |end: i128| {
            let distance = end - pivot;
            pivot + if closer { distance / 2 } else { distance * 2 }
        };
        let next = Span::new(scaled(from), scaled(to));
        if closer && next.width() < NARROWEST { self } else { Self::of(next, sight) }
    }

    /// Moved by an eighth of the view, later or earlier.
    #[must_use]
    pub fn panned(self, sight: &Sight, later: bool) -> Self {
        let now = self.window(sight);
        let step = (now.width() / STEPS).max(1) * if later { 1 } else { -1 };
        Self::of(Span::new(i128::from(now.from) + step, i128::from(now.to) + step), sight)
    }

    fn of(span: Span, sight: &Sight) -> Self {
        let span = span.within(sight.all);
        let fit = sight.fit;
        let apart = span.from.abs_diff(fit.from).max(span.to.abs_diff(fit.to));
        let alike = u128::from(apart) * u128::from(ALIKE) < fit.width().unsigned_abs();
        Self((!alike).then_some(span))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A race of half a millisecond, with something two hours before.
    const SIGHT: Sight = Sight {
        fit: Span { from: -495_001, to: 220_003 },
        all: Span { from: -7_200_000_000_000, to: 250_000 },
    };

    fn times(mut zoom: Zoom, closer: &[bool]) -> Zoom {
        for closer in closer {
            zoom = zoom.zoomed(&SIGHT, *closer);
        }
        zoom
    }

    #[test]
    fn the_failure_stays_where_it_is() {
        let zoom = times(Zoom::default(), &[true, true]);
        assert_eq!(zoom.window(&SIGHT), Span { from: -123_750, to: 55_000 });
    }

    #[test]
    fn out_is_the_inverse_of_in() {
        for depth in 0..11 {
            let keys: Vec<bool> = (0..2 * depth).map(|at| at < depth).collect();
            assert_eq!(times(Zoom::default(), &keys), Zoom::default(), "{depth}");
        }
    }

    #[test]
    fn it_ends_at_all_and_at_next_to_nothing() {
        let out = times(Zoom::default(), &[false; 90]);
        assert_eq!(out.window(&SIGHT), SIGHT.all);
        let closest = times(Zoom::default(), &[true; 90]);
        assert!((NARROWEST..2 * NARROWEST).contains(&closest.window(&SIGHT).width()));
        assert_eq!(closest.zoomed(&SIGHT, true), closest);
    }

    #[test]
    fn panning_goes_back_and_ends_at_the_edges() {
        let start = times(Zoom::default(), &[true]);
        let moved = start.panned(&SIGHT, false);
        assert_eq!(moved.window(&SIGHT), Span { from: -292_187, to: 65_314 });
        assert_eq!(moved.panned(&SIGHT, true), start);
        let mut zoom = start;
        for _ in 0..20 {
            zoom = zoom.panned(&SIGHT, true);
        }
        assert_eq!(zoom.window(&SIGHT).to, SIGHT.all.to);
        assert_eq!(zoom.window(&SIGHT).width(), start.window(&SIGHT).width());
        let all = Sight { fit: SIGHT.fit, all: SIGHT.fit };
        assert_eq!(Zoom::default().panned(&all, false), Zoom::default());
    }

    #[test]
    fn what_is_not_in_view_stays_so() {
        let mut zoom = times(Zoom::default(), &[true]);
        for _ in 0..20 {
            zoom = zoom.panned(&SIGHT, false);
        }
        let before = zoom.window(&SIGHT);
        let after = zoom.zoomed(&SIGHT, true).window(&SIGHT);
        assert!(before.from < after.from && after.to < before.to && after.to < 0);
    }

    proptest! {
        #[test]
        fn it_is_always_some_of_all_there_is(
            ends in prop::collection::vec(any::<i64>(), 4),
            keys in prop::collection::vec((any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut ends = ends;
            ends.sort_unstable();
            ends.dedup();
            prop_assume!(ends.len() == 4);
            let sight = Sight {
                fit: Span { from: ends[1], to: ends[2] },
                all: Span { from: ends[0], to: ends[3] },
            };
            let mut zoom = Zoom::default();
            for (zooming, up) in keys {
                zoom = if zooming { zoom.zoomed(&sight, up) } else { zoom.panned(&sight, up) };
                let now = zoom.window(&sight);
                prop_assert!(sight.all.from <= now.from && now.from < now.to);
                prop_assert!(now.to <= sight.all.to);
            }
        }
    }
}
