//! Where the panes are, by what each of them wants to show.

use crate::tui::model::state::PANES;
use ratatui::layout::{Constraint, Layout, Rect, Size};

/// Where a terminal is wide and high enough to have chain and verdict beside each other.
const WIDE: Size = Size { width: 140, height: 40 };
/// How many rows each pane has if it wants them, unless the focused one wants them, too; its title
/// is one.
const FLOORS: [u16; PANES] = [6, 5, 6, 5];
/// How many it has whatever the focused one wants.
const LEAST: u16 = 3;

/// Where the panes are: the list, the chain, the timeline, the verdict. `wants` tells how many
/// rows each has for so many columns, its title included; the focused one comes first.
pub(super) fn areas(body: Rect, focus: usize, wants: impl Fn(usize, u16) -> u16) -> [Rect; PANES] {
    if body.width < WIDE.width || body.height < WIDE.height {
        // The list does not grow and shrink with the others.
        let list = wants(0, body.width).clamp(FLOORS[0] - 2, FLOORS[0].max(body.height / 4));
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

/// Shares out `total` rows: a few to each, to the focused one what it wants, to each what it needs,
/// then what it wants; what is left goes to `last`.
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
    fn what_is_needed_comes_before_what_is_wanted() {
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
