//! The visible part of the timeline: all of it, or what the user chose.

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
    /// The failure and the events near it, which are to scale when all is visible.
    pub fit: Span,
    /// All events.
    pub all: Span,
}

/// The period that the user chose; `None` is all of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zoom(Option<Span>);

/// The shortest visible period, in nanoseconds.
const NARROWEST: i128 = 100;
/// Panning moves by this part of the visible period.
const STEPS: i128 = 8;
/// If both ends differ from [`Extent::fit`] by less than this part of it, that is used.
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
    /// The period that is to scale.
    #[must_use]
    pub fn window(self, extent: &Extent) -> Span {
        self.0.map_or(extent.fit, |span| span.within(extent.all))
    }

    /// Whether all of it is visible.
    #[must_use]
    pub fn is_whole(self) -> bool {
        self.0.is_none()
    }

    /// Half as long, or twice as long, around the failure or, if that is not visible, the middle.
    #[must_use]
    pub fn zoomed(self, extent: &Extent, closer: bool) -> Self {
        let now = self.window(extent);
        let middle = (i128::from(now.from) + i128::from(now.to)).div_euclid(2);
        let pivot = if now.from <= 0 && now.to >= 0 { 0 } else { middle };
        self.zoomed_at(extent, closer, pivot.clamp(now.from.into(), now.to.into()) as i64)
    }

    /// The same around another time. From all of it, the first step shows what is near the failure.
    #[must_use]
    pub fn zoomed_at(self, extent: &Extent, closer: bool, pivot: i64) -> Self {
        if self.0.is_none() && (!closer || extent.fit != extent.all) {
            return Self(closer.then_some(extent.fit));
        }
        let now = self.window(extent);
        let pivot = i128::from(pivot.clamp(now.from, now.to));
        let scaled = |end: i64| {
            let distance = i128::from(end) - pivot;
            pivot + if closer { distance / 2 } else { distance * 2 }
        };
        let next = Span::new(scaled(now.from), scaled(now.to));
        if closer && next.width() < NARROWEST {
            return self;
        }
        // Nothing but all of it is larger than what is near the failure.
        let is_larger = next.width() > extent.fit.width() && !alike(next, extent.fit);
        if is_larger { Self(None) } else { Self::of(next, extent) }
    }

    /// Moved by an eighth of the visible period, later or earlier.
    #[must_use]
    pub fn panned(self, extent: &Extent, later: bool) -> Self {
        let step = (self.window(extent).width() / STEPS).max(1);
        self.moved(extent, if later { step } else { -step })
    }

    /// Moved by nanoseconds, later or, if negative, earlier.
    #[must_use]
    pub fn moved(self, extent: &Extent, by: i128) -> Self {
        let now = self.window(extent);
        Self::of(Span::new(i128::from(now.from) + by, i128::from(now.to) + by), extent)
    }

    fn of(span: Span, extent: &Extent) -> Self {
        let span = span.within(extent.all);
        let span = if alike(span, extent.fit) { extent.fit } else { span };
        Self((span != extent.all).then_some(span))
    }
}

/// Whether a period differs from another only by rounding.
fn alike(span: Span, fit: Span) -> bool {
    let apart = span.from.abs_diff(fit.from).max(span.to.abs_diff(fit.to));
    u128::from(apart) * u128::from(ALIKE) < fit.width().unsigned_abs()
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
        let zoom = times(Zoom::default(), &[true, true, true]);
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
        let out = times(times(Zoom::default(), &[true; 9]), &[false; 90]);
        assert_eq!((out, out.zoomed(&EXTENT, false)), (Zoom::default(), Zoom::default()));
        assert!(out.is_whole() && !times(out, &[true]).is_whole());
        let closest = times(Zoom::default(), &[true; 90]);
        assert!((NARROWEST..2 * NARROWEST).contains(&closest.window(&EXTENT).width()));
        assert_eq!(closest.zoomed(&EXTENT, true), closest);
    }

    #[test]
    fn panning_is_reversible_and_stops_at_the_edges() {
        let start = times(Zoom::default(), &[true, true]);
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
        let mut zoom = times(Zoom::default(), &[true, true]);
        for _ in 0..20 {
            zoom = zoom.panned(&EXTENT, false);
        }
        let before = zoom.window(&EXTENT);
        let after = zoom.zoomed(&EXTENT, true).window(&EXTENT);
        assert!(before.from < after.from && after.to < before.to && after.to < 0);
    }

    #[test]
    fn the_wheel_keeps_the_time_under_the_pointer() {
        let near = times(Zoom::default(), &[true]);
        let window = near.zoomed_at(&EXTENT, true, 100_003).window(&EXTENT);
        assert_eq!((window.from, window.to), (-197_499, 160_003));
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
