//! Times and durations as text.

use jiff::Timestamp;

/// Each unit in nanoseconds.
const UNITS: [(u64, &str); 7] = [
    (1, "ns"),
    (1_000, "µs"),
    (1_000_000, "ms"),
    (1_000_000_000, "s"),
    (60_000_000_000, "min"),
    (3_600_000_000_000, "h"),
    (86_400_000_000_000, "d"),
];

/// A duration as a number of three significant digits and its unit: `("1.25", "ms")`.
#[must_use]
pub fn parts(ns: u64) -> (String, &'static str) {
    let above = UNITS.iter().position(|(unit, _)| ns < *unit);
    // `ns < 1` is the only way to position 0.
    let first = above.unwrap_or(UNITS.len()).saturating_sub(1);
    for (unit, name) in &UNITS[first..] {
        let most = if *unit == 1 { 0 } else { 2 };
        for decimals in (0..=most).rev() {
            let scale = 10_u128.pow(decimals);
            let scaled = (u128::from(ns) * scale + u128::from(unit / 2)) / u128::from(*unit);
            // 1000 or more after rounding: use fewer decimals or the next unit.
            if scaled < 1000 {
                let width = decimals as usize;
                return match decimals {
                    0 => (scaled.to_string(), name),
                    _ => (format!("{}.{:0width$}", scaled / scale, scaled % scale), name),
                };
            }
        }
    }
    ((ns / UNITS[6].0).to_string(), UNITS[6].1)
}

/// A duration as a whole number of the longest unit up to seconds that divides it: `(1500, "µs")`.
#[must_use]
pub fn exact(ns: u64) -> (u64, &'static str) {
    let divides = |unit: &&(u64, &'static str)| ns.is_multiple_of(unit.0) && ns > 0;
    let (unit, name) = UNITS[..4].iter().rev().find(divides).unwrap_or(&UNITS[0]);
    (ns / unit, name)
}

/// A duration: `1.25 ms`.
#[must_use]
pub fn span(ns: u64) -> String {
    let (number, unit) = parts(ns);
    format!("{number} {unit}")
}

/// Durations before (negative) and after a moment as a column: signs, numbers and units are aligned.
#[must_use]
pub fn column(offsets: &[i64]) -> Vec<String> {
    let cells: Vec<(String, &str)> = offsets
        .iter()
        .map(|offset| {
            let (number, unit) = parts(offset.unsigned_abs());
            match offset {
                0 => ("0".to_owned(), ""),
                ..0 => (format!("-{number}"), unit),
                _ => (format!("+{number}"), unit),
            }
        })
        .collect();
    let numbers = cells.iter().map(|(n, _)| n.len()).max().unwrap_or(0);
    // Each character of a unit takes one column.
    let units = cells.iter().map(|(_, u)| u.chars().count()).max();
    let units = units.unwrap_or(0);
    cells.iter().map(|(number, unit)| format!("{number:>numbers$} {unit:<units$}")).collect()
}

/// The date and time of day (UTC) of an RFC 3339 time; `None` if it is invalid.
#[must_use]
pub fn moment(rfc3339: &str) -> Option<String> {
    let moment: Timestamp = rfc3339.parse().ok()?;
    Some(moment.strftime("%Y-%m-%d %H:%M:%S.%6fZ").to_string())
}

/// The time of day (UTC) of an RFC 3339 time; `None` if it is invalid.
#[must_use]
pub fn clock(rfc3339: &str) -> Option<String> {
    let moment: Timestamp = rfc3339.parse().ok()?;
    Some(moment.strftime("%H:%M:%S.%6fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_a_suitable_unit() {
        let cases = [
            (0, "0 ns"),
            (7, "7 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (9_994, "9.99 µs"),
            (9_996, "10.0 µs"),
            (180_499, "180 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (12_345_678_901, "12.3 s"),
            (59_990_000_000, "60.0 s"),
            (90_000_000_000, "1.50 min"),
            (5_400_000_000_000, "1.50 h"),
            (86_400_000_000_000 * 30, "30.0 d"),
            (u64::MAX, "213503 d"),
        ];
        for (ns, shown) in cases {
            assert_eq!(span(ns), shown);
        }
    }

    #[test]
    fn offsets_are_aligned() {
        let cells = column(&[-90_000_000_000, -455_000, 0, 180_000, i64::MIN]);
        let expected = ["  -1.50 min", "   -455 µs ", "      0    ", "   +180 µs ", "-106751 d  "];
        assert_eq!(cells, expected);
        assert!(column(&[]).is_empty());
    }

    #[test]
    fn times_are_utc() {
        let shown = moment("2026-11-20T15:03:07.123456789+01:00");
        assert_eq!(shown.as_deref(), Some("2026-11-20 14:03:07.123456Z"));
        let shown = clock("2026-11-20T14:03:07.123456789Z");
        assert_eq!(shown.as_deref(), Some("14:03:07.123456Z"));
        assert_eq!(moment("\x1b[31m"), None);
    }
}
