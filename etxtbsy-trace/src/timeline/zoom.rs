//! The visible part of the timeline: the default for the incident, or what the user chose.

/// A period of time, in nanoseconds from the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its beginning.
    pub from: i64,
    /// Its end, later than that.
    pub to: i64,
}

/// The periods of an incident that the timeline can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The default: the failure and the events near it.
    pub fit: Span,
    /// All events.
    pub all: Span,
}

/// The period that the user chose; `None` is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zoom(Option<Span>);

/// The shortest visible period, in nanoseconds.
const NARROWEST: i128 = 100;
/// Panning moves by this part of the visible period.
const STEPS: i128 = 8;
/// If both ends differ from the default by less than this part of it, the default is used.
const ALIKE: u64 = 64;

impl Span {
    /// Clamps both ends to the range of the type.
    fn new(from: i128, to: i128) -> Self {
        let near = |ns: i128| ns.clamp(i64::MIN.into(), i64::MAX.into()) as i64;
        Self { from: near(from), to: near(to.max(from + 1)) }
    }

    /// Its length in nanoseconds.
    #[must_use]
    pub fn width(self) -> i128 {
        i128::from(self.to) - i128::from(self.from)
    }

    /// Moved into `all`, or `all` itself if that is shorter.
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
    /// The visible period.
    #[must_use]
    pub fn window(self, extent: &Extent) -> Span {
        self.0.map_or(extent.fit, |span| span.within(extent.all))
    }

    /// Half as long, or twice as long, around the failure or, if that is not visible, the middle.
    #[must_use]
    pub fn zoomed(self, extent: &Extent, closer: bool) -> Self {
        let now = self.window(extent);
        let (from, to) = (i128::from(now.from), i128::from(now.to));
        let pivot = if from <= 0 && to >= 0 { 0 } else { i128::midpoint(from, to) };
        let scaled = |end: i128| {
            let distance = end - pivot;
            pivot + if closer { distance / 2 } else { distance * 2 }
        };
        let next = Span::new(scaled(from), scaled(to));
        if closer && next.width() < NARROWEST { self } else { Self::of(next, extent) }
    }

    /// Moved by an eighth of the visible period, later or earlier.
    #[must_use]
    pub fn panned(self, extent: &Extent, later: bool) -> Self {
        let now = self.window(extent);
        let step = (now.width() / STEPS).max(1) * if later { 1 } else { -1 };
        Self::of(Span::new(i128::from(now.from) + step, i128::from(now.to) + step), extent)
    }

    fn of(span: Span, extent: &Extent) -> Self {
        let span = span.within(extent.all);
        let fit = extent.fit;
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
    const EXTENT: Extent = Extent {
        fit: Span { from: -495_001, to: 220_003 },
        all: Span { from: -7_200_000_000_000, to: 250_000 },
    };

    fn times(mut zoom: Zoom, closer: &[bool]) -> Zoom {
        for closer in closer {
            zoom = zoom.zoomed(&EXTENT, *closer);
        }
        zoom
    }

    #[test]
    fn zooming_keeps_the_failure_in_place() {
        let zoom = times(Zoom::default(), &[true, true]);
        assert_eq!(zoom.window(&EXTENT), Span { from: -123_750, to: 55_000 });
    }

    #[test]
    fn zooming_out_is_the_inverse_of_zooming_in() {
        for depth in 0..11 {
            let keys: Vec<bool> = (0..2 * depth).map(|at| at < depth).collect();
            assert_eq!(times(Zoom::default(), &keys), Zoom::default(), "{depth}");
        }
    }

    #[test]
    fn zooming_stops_at_the_whole_and_at_the_shortest_period() {
        let out = times(Zoom::default(), &[false; 90]);
        assert_eq!(out.window(&EXTENT), EXTENT.all);
        let closest = times(Zoom::default(), &[true; 90]);
        assert!((NARROWEST..2 * NARROWEST).contains(&closest.window(&EXTENT).width()));
        assert_eq!(closest.zoomed(&EXTENT, true), closest);
    }

    #[test]
    fn panning_is_reversible_and_stops_at_the_edges() {
        let start = times(Zoom::default(), &[true]);
        let moved = start.panned(&EXTENT, false);
        assert_eq!(moved.window(&EXTENT), Span { from: -292_187, to: 65_314 });
        assert_eq!(moved.panned(&EXTENT, true), start);
        let mut zoom = start;
        for _ in 0..20 {
            zoom = zoom.panned(&EXTENT, true);
        }
        assert_eq!(zoom.window(&EXTENT).to, EXTENT.all.to);
        assert_eq!(zoom.window(&EXTENT).width(), start.window(&EXTENT).width());
        let all = Extent { fit: EXTENT.fit, all: EXTENT.fit };
        assert_eq!(Zoom::default().panned(&all, false), Zoom::default());
    }

    #[test]
    fn zooming_around_the_middle_does_not_show_the_failure() {
        let mut zoom = times(Zoom::default(), &[true]);
        for _ in 0..20 {
            zoom = zoom.panned(&EXTENT, false);
        }
        let before = zoom.window(&EXTENT);
        let after = zoom.zoomed(&EXTENT, true).window(&EXTENT);
        assert!(before.from < after.from && after.to < before.to && after.to < 0);
    }

    proptest! {
        #[test]
        fn the_visible_period_is_always_part_of_the_whole(
            ends in prop::collection::vec(any::<i64>(), 4),
            keys in prop::collection::vec((any::<bool>(), any::<bool>()), 0..200),
        ) {
            let mut ends = ends;
            ends.sort_unstable();
            ends.dedup();
            prop_assume!(ends.len() == 4);
            let extent = Extent {
                fit: Span { from: ends[1], to: ends[2] },
                all: Span { from: ends[0], to: ends[3] },
            };
            let mut zoom = Zoom::default();
            for (zooming, up) in keys {
                zoom = if zooming { zoom.zoomed(&extent, up) } else { zoom.panned(&extent, up) };
                let now = zoom.window(&extent);
                prop_assert!(extent.all.from <= now.from && now.from < now.to);
                prop_assert!(now.to <= extent.all.to);
            }
        }
    }
}
