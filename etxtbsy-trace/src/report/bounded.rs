//! Text of bounded length, built from blocks.

/// The most bytes of a report for people: a step summary takes no more.
pub(super) const MOST: usize = 1 << 20;
/// What is kept free for the sentence about blocks that had no room.
const REST: usize = 1_024;

/// Takes whole blocks as long as there is room.
pub(super) struct Bounded {
    text: String,
    most: usize,
    left_out: u64,
}

impl Bounded {
    /// Empty, with room for so many bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { text: String::new(), most, left_out: 0 }
    }

    /// Adds a block, or counts it if it has no room. After one that has none, none is added, so that what
    /// is left out is the end.
    pub(super) fn block(&mut self, block: &str) {
        if self.left_out == 0 && self.text.len() + block.len() + REST <= self.most {
            self.text += block;
        } else {
            self.left_out += 1;
        }
    }

    /// The text. `rest` is added if blocks were left out, with their number.
    pub(super) fn finish(mut self, rest: impl Fn(u64) -> String) -> String {
        if self.left_out > 0 {
            self.text += &rest(self.left_out);
        }
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_without_room_are_counted() {
        let mut bounded = Bounded::new(REST + 5);
        for block in ["ab", "cde", "f", ""] {
            bounded.block(block);
        }
        assert_eq!(bounded.finish(|more| format!("+{more}")), "abcde+2");
    }
}
