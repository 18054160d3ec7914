//! How often something happened, with the interval that its true rate lies in.

/// The quantile of the normal distribution for an interval of 95%.
const Z: f64 = 1.959_963_984_540_054;

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// How often it happened.
    pub happened: u64,
    /// How often it could have.
    pub of: u64,
}

impl Rate {
    /// The share; `None` of nothing.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    pub fn share(self) -> Option<f64> {
        (self.of > 0).then(|| self.happened as f64 / self.of as f64)
    }

    /// The Wilson score interval of 95% for the true share (E. B. Wilson, 1927); `None` of nothing.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a rate needs no more than 53 bits")]
    pub fn interval(self) -> Option<(f64, f64)> {
        let share = self.share()?;
        let n = self.of as f64;
        let scale = 1.0 + Z * Z / n;
        let center = (share + Z * Z / (2.0 * n)) / scale;
        let half = Z * (share * (1.0 - share) / n + Z * Z / (4.0 * n * n)).sqrt() / scale;
        let low = if self.happened == 0 { 0.0 } else { center - half };
        let high = if self.happened == self.of { 1.0 } else { center + half };
        Some((low, high))
    }

    /// By how much the true share is higher than that of `before`: the interval of 95% by Newcombe's method 10, from
    /// both Wilson intervals (R. G. Newcombe, 1998). `None` if one of both is of nothing.
    #[must_use]
    pub fn difference(self, before: Self) -> Option<(f64, f64)> {
        let (now, was) = (self.share()?, before.share()?);
        let ((low, high), (low_before, high_before)) = (self.interval()?, before.interval()?);
        let difference = now - was;
        Some((
            difference - (now - low).hypot(high_before - was),
            difference + (high - now).hypot(was - low_before),
        ))
    }

    /// How likely it is that nothing happens in so many tries, if the true share is the lower end of the interval.
    #[must_use]
    #[allow(clippy::cast_precision_loss, reason = "a probability needs no more than 53 bits")]
    pub fn chance_of_none(self, of: u64) -> Option<f64> {
        let (low, _) = self.interval()?;
        // Not powi: `of` may be more than an i32 has room for.
        Some((1.0 - low).powf(of as f64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (s + z²/2 ± z √(s (n − s) / n + z²/4)) / (n + z²), by hand.
    #[test]
    fn the_interval_is_that_of_wilson() {
        let of = |happened, of| {
            let (low, high) = Rate { happened, of }.interval().unwrap();
            (format!("{:.3}", 100.0 * low), format!("{:.3}", 100.0 * high))
        };
        let expected = |low: &str, high: &str| (low.to_owned(), high.to_owned());
        assert_eq!(of(18, 1440), expected("0.792", "1.967"));
        assert_eq!(of(0, 4800), expected("0.000", "0.080"));
        assert_eq!(of(5, 10), expected("23.659", "76.341"));
        assert_eq!(of(10, 10), expected("72.247", "100.000"));
    }

    /// The example of the paper, method 10: 56/70 − 48/80.
    #[test]
    fn the_difference_is_that_of_newcombe() {
        let (low, high) =
            Rate { happened: 56, of: 70 }.difference(Rate { happened: 48, of: 80 }).unwrap();
        assert_eq!((format!("{low:.4}"), format!("{high:.4}")), ("0.0524".into(), "0.3339".into()));
    }

    #[test]
    fn the_chance_of_none_is_from_the_lower_end_of_the_interval() {
        let chance = Rate { happened: 18, of: 1440 }.chance_of_none(1000).unwrap();
        assert!((chance - (1.0_f64 - 0.007_922).powi(1000)).abs() < 1e-6, "{chance}");
        assert_eq!(Rate { happened: 0, of: 9 }.chance_of_none(5), Some(1.0));
    }

    #[test]
    fn nothing_of_nothing_has_no_rate() {
        let none = Rate { happened: 0, of: 0 };
        assert_eq!((none.share(), none.interval()), (None, None));
    }
}
