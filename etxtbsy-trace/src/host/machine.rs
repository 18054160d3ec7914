//! Which machine this is, and which boot of it.

use std::fs;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The id of this boot; `None` if /proc does not show it.
#[must_use]
pub fn boot_id() -> Option<String> {
    let id = fs::read_to_string(BOOT_ID).ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_id_is_one_word() {
        let id = boot_id().unwrap();
        assert!(id.len() == 36 && !id.contains(char::is_whitespace), "{id}");
        assert_eq!(boot_id(), Some(id));
    }
}
