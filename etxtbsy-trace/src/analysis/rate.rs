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

    #[test]
    fn nothing_of_nothing_has_no_rate() {
        let none = Rate { happened: 0, of: 0 };
        assert_eq!((none.share(), none.interval()), (None, None));
    }
}
