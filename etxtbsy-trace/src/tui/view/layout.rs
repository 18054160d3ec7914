//! The areas of the panes, which depend on what each has to show.

use crate::tui::model::state::PANES;
use ratatui::layout::{Constraint, Layout, Rect, Size};

/// From this size on, chain and verdict are side by side.
const WIDE: Size = Size { width: 140, height: 40 };
/// The rows of each pane, title included, unless the focused pane needs them.
const FLOORS: [u16; PANES] = [6, 5, 6, 5];
/// The rows of each pane in any case.
const LEAST: u16 = 3;

/// The areas of the list, the chain, the timeline and the verdict. `wants` returns the rows that a pane
/// needs in that many columns, title included. The focused pane comes first.
pub(super) fn areas(body: Rect, focus: usize, wants: impl Fn(usize, u16) -> u16) -> [Rect; PANES] {
    if body.width < WIDE.width || body.height < WIDE.height {
        // The size of the list does not depend on the others.
        let list = wants(0, body.width).clamp(FLOORS[0] - 2, FLOORS[0].max(body.height * 3 / 10));
        let wants = [0, 1, 2, 3].map(|pane| if pane == 0 { list } else { wants(pane, body.width) });
        let heights = share(body.height, wants, FLOORS, focus, 2);
        return Layout::vertical(heights.map(Constraint::Length)).areas(body);
    }
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2);
    let half = body.width / 2 - 1;
    let middle = wants(1, half).max(wants(3, half));
    let list = wants(0, body.width).clamp(FLOORS[0] + 2, body.height / 3);
    let focus = [0, 1, 2, 1][focus];
    let floors = [list, 12, 12];
    let heights = share(body.height, [list, middle, wants(2, body.width)], floors, focus, 2);
    let rows: [Rect; 3] = Layout::vertical(heights.map(Constraint::Length)).areas(body);
    let [chain, verdict] = halves.areas(rows[1]);
    [rows[0], chain, rows[2], verdict]
}

/// Distributes `total` rows: the minimum to each pane, then to the focused one what it wants, to each
/// its floor, to each what it wants. The rest goes to `last`.
fn share<const N: usize>(
    total: u16,
    wants: [u16; N],
    floors: [u16; N],
    focus: usize,
    last: usize,
) -> [u16; N] {
    let mut heights = [0; N];
    let mut left = total;
    let mut give = |pane: usize, rows: u16| {
        let more = rows.min(wants[pane]).saturating_sub(heights[pane]).min(left);
        heights[pane] += more;
        left -= more;
    };
    give(focus, LEAST);
    (0..N).for_each(|pane| give(pane, LEAST));
    if focus > 0 {
        give(focus, u16::MAX);
    }
    (0..N).for_each(|pane| give(pane, floors[pane]));
    (0..N).for_each(|pane| give(pane, u16::MAX));
    heights[last] += left;
    heights
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn floors_come_before_wants() {
        assert_eq!(share(22, [6, 5, 6, 14], FLOORS, 0, 2), [6, 5, 6, 5]);
        assert_eq!(share(22, [6, 9, 6, 3], FLOORS, 0, 2), [6, 7, 6, 3]);
        assert_eq!(share(22, [6, 9, 6, 9], FLOORS, 3, 2), [6, 4, 3, 9]);
        assert_eq!(share(22, [6, 9, 6, 30], FLOORS, 3, 2), [3, 3, 3, 13]);
        assert_eq!(share(8, [6, 9, 6, 9], FLOORS, 2, 2), [3, 2, 3, 0]);
        assert_eq!(share(60, [6, 5, 6, 7], FLOORS, 1, 2), [6, 5, 42, 7]);
    }

    proptest! {
        #[test]
        fn panes_fill_the_screen_and_do_not_overlap(
            width in 0_u16..300, height in 0_u16..120, focus in 0..PANES,
            wants in prop::array::uniform4(1_u16..80),
        ) {
            let body = Rect::new(0, 1, width, height);
            let areas = areas(body, focus, |pane, _| wants[pane]);
            for (at, area) in areas.iter().enumerate() {
                prop_assert_eq!(area.intersection(body), *area);
                prop_assert!(areas[..at].iter().all(|other| !other.intersects(*area)));
            }
        }
    }
}
