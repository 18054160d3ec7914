//! Bars of a process on tracks: on one track, slices lie within each other or apart.

use crate::timeline::lanes::Bar;

/// The bars of each track, a longer one before those within it.
pub(super) fn rows(bars: &[Bar]) -> Vec<Vec<Bar>> {
    let mut bars = bars.to_vec();
    bars.sort_by_key(|bar| (bar.from, std::cmp::Reverse(bar.to)));
    // The bars of each track, and the ends of those that are not over, the innermost last.
    let mut rows: Vec<(Vec<Bar>, Vec<i64>)> = Vec::new();
    for bar in bars {
        let at = rows.iter_mut().position(|(_, open)| {
            open.retain(|end| *end > bar.from);
            open.last().is_none_or(|end| *end >= bar.to)
        });
        let at = at.unwrap_or_else(|| {
            rows.push((Vec::new(), Vec::new()));
            rows.len() - 1
        });
        rows[at].0.push(bar);
        rows[at].1.push(bar.to);
    }
    rows.into_iter().map(|(row, _)| row).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::timeline::lanes::Doing;

    fn bar(from: i64, to: i64) -> Bar {
        Bar { doing: Doing::Held, from, to }
    }

    #[test]
    fn bars_within_each_other_or_apart_share_a_track() {
        let bars = [bar(-130, 180), bar(-130, -120), bar(0, 180), bar(180, 200)];
        assert_eq!(rows(&bars), [bars.to_vec()]);
        assert_eq!(rows(&[bar(0, 10), bar(5, 15)]), [[bar(0, 10)], [bar(5, 15)]]);
        assert!(rows(&[]).is_empty());
    }

    proptest! {
        #[test]
        fn no_two_bars_of_a_track_cross(
            ends in prop::collection::vec((0i64..20, 1i64..9), 0..12),
        ) {
            let bars: Vec<Bar> = ends.iter().map(|(from, length)| bar(*from, from + length)).collect();
            let rows = rows(&bars);
            prop_assert_eq!(rows.iter().map(Vec::len).sum::<usize>(), bars.len());
            for row in rows {
                for (at, one) in row.iter().enumerate() {
                    for other in &row[at + 1..] {
                        let apart = one.to <= other.from || other.to <= one.from;
                        let within = one.from <= other.from && other.to <= one.to;
                        prop_assert!(apart || within, "{one:?} {other:?}");
                    }
                }
            }
        }
    }
}
