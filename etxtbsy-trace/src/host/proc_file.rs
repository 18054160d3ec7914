//! Files of /proc.

use std::io::Read as _;

/// The first bytes of a file of /proc, whose length others decide about.
pub(crate) fn read_begin(path: &str, most: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(most as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
