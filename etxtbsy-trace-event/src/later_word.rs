//! A word that this version does not know.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest word in bytes. Known words have up to 22.
const LONGEST: usize = 47;
/// Replaces the rest of a longer word.
const REST: &str = "…";

/// A word that a later version wrote; it is shown and written again unchanged. It is `Copy`, like the
/// known words, so its length is limited: `…` replaces the rest of a longer word.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Word {
    bytes: [u8; LONGEST],
    length: u8,
}

impl Word {
    /// The word, shortened if it is too long.
    #[must_use]
    pub fn new(word: &str) -> Self {
        let (kept, rest) = if word.len() <= LONGEST {
            (word, "")
        } else {
            let mut ends = (0..=LONGEST - REST.len()).rev();
            let end = ends.find(|at| word.is_char_boundary(*at)).unwrap_or(0);
            (&word[..end], REST)
        };
        let length = kept.len() + rest.len();
        let mut bytes = [0; LONGEST];
        bytes[..kept.len()].copy_from_slice(kept.as_bytes());
        bytes[kept.len()..length].copy_from_slice(rest.as_bytes());
        Self { bytes, length: length as u8 }
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // `new` cuts only at a character boundary.
        str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|word| Self::new(&word))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_word_is_cut_at_a_character_boundary() {
        for word in ["", "later", "été", &"x".repeat(LONGEST)] {
            assert_eq!(Word::new(word).as_str(), word);
        }
        let cut = |word: String| Word::new(&word).as_str().to_owned();
        assert_eq!(cut("x".repeat(LONGEST + 1)), "x".repeat(LONGEST - 3) + REST);
        assert_eq!(cut("é".repeat(LONGEST)), "é".repeat(22) + REST);
        let short = cut("é".repeat(LONGEST));
        assert_eq!(cut(short.clone()), short);
    }
}
