//! Statistics of measurements, and how numbers are shown.

/// Median and quartiles of measurements.
pub(super) struct Spread {
    pub(super) median: f64,
    quartiles: (f64, f64),
}

impl Spread {
    /// The spread of at least one value.
    pub(super) fn of(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        // Interpolates between the two nearest values, as R and NumPy do by default.
        let at = |share: f64| {
            let place = share * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            low + (high - low) * place.fract()
        };
        Self { median: at(0.5), quartiles: (at(0.25), at(0.75)) }
    }

    /// The spread of `compare` applied to each pair.
    pub(super) fn of_pairs(a: &[f64], b: &[f64], compare: fn(f64, f64) -> f64) -> Self {
        Self::of(&a.iter().zip(b).map(|(a, b)| compare(*a, *b)).collect::<Vec<_>>())
    }

    pub(super) fn with(&self, show: fn(f64) -> String) -> String {
        let (low, high) = self.quartiles;
        format!("{} ({}–{})", show(self.median), show(low), show(high))
    }
}

pub(super) fn ratio(value: f64) -> String {
    format!("{value:.2}")
}

/// For ratios that differ by less than 1%.
pub(super) fn fine_ratio(value: f64) -> String {
    format!("{value:.3}")
}

pub(super) fn count(value: f64) -> String {
    format!("{value:.0}")
}

/// A time in nanoseconds, with three significant digits.
pub(super) fn time(nanoseconds: f64) -> String {
    let size = nanoseconds.abs();
    let (value, unit) = if size < 1e3 {
        (nanoseconds, "ns")
    } else if size < 1e6 {
        (nanoseconds / 1e3, "µs")
    } else {
        (nanoseconds / 1e6, "ms")
    };
    let places = if unit == "ns" || value.abs() >= 100.0 {
        0
    } else if value.abs() >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.places$} {unit}")
}

pub(super) fn bytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_are_interpolated() {
        let spread = Spread::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(spread.with(ratio), "2.50 (1.75–3.25)");
        assert_eq!(Spread::of(&[7.0]).with(count), "7 (7–7)");
    }

    #[test]
    fn pairs_are_compared_before_they_are_ordered() {
        let spread = Spread::of_pairs(&[1.0, 10.0, 100.0], &[2.0, 30.0, 100.0], |a, b| b / a);
        assert_eq!(spread.with(ratio), "2.00 (1.50–2.50)");
    }

    #[test]
    fn times_have_three_digits() {
        let shown = [97.4, -3.0, 1234.0, 45_600.0, 1e6, 817_200_000.0].map(time);
        assert_eq!(shown, ["97 ns", "-3 ns", "1.23 µs", "45.6 µs", "1.00 ms", "817 ms"]);
    }
}
