//! Formats plain values as text.
//!
//! Here: quoting of names that other processes chose, times and durations, pids, and the words of the
//! lines. Not here: sentences about incidents (`output`, `analysis::verdict`).

pub mod escape;
pub mod time;

use std::ffi::OsStr;

use serde::Serialize;

/// A name for a one-line message: unchanged, or quoted and escaped if it is empty or has a character
/// that is not visible as itself.
#[must_use]
#[expect(clippy::unnecessary_debug_formatting, reason = "the escapes are wanted")]
pub fn shown(name: &OsStr) -> String {
    let escaped = format!("{name:?}");
    match name.to_str() {
        Some(plain) if !plain.is_empty() && escaped == format!("\"{plain}\"") => plain.to_owned(),
        _ => escaped,
    }
}

/// A word of the lines as in JSON, such as `fork-exec-race`, escaped.
#[must_use]
pub fn name<T: Serialize>(value: T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => escape::text(&name),
        _ => "?".to_owned(),
    }
}

/// The pids of a process in the tracer's namespace and in its own, if they differ from `pid`.
pub(crate) fn other_pids(
    pid: u32,
    local: Option<u32>,
    own: Option<u32>,
) -> impl Iterator<Item = String> {
    let local = local.filter(|local| *local != pid);
    let own = own.filter(|own| *own != pid && Some(*own) != local);
    let local = local.map(|local| format!("pid {local} here"));
    local.into_iter().chain(own.map(|own| format!("pid {own} in its namespace")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pids_of_other_namespaces_are_named_where_they_differ() {
        let named = |pid, local, own| other_pids(pid, local, own).collect::<Vec<_>>();
        assert!(named(9, Some(9), Some(9)).is_empty());
        assert!(named(9, None, Some(9)).is_empty());
        assert_eq!(named(9, Some(9), Some(1)), ["pid 1 in its namespace"]);
        assert_eq!(named(9, Some(4), Some(4)), ["pid 4 here"]);
        assert_eq!(named(9, Some(4), Some(1)), ["pid 4 here", "pid 1 in its namespace"]);
    }

    #[test]
    fn shown_names_are_one_line() {
        use std::os::unix::ffi::OsStrExt;
        assert_eq!(shown(OsStr::new("no-such-cmd")), "no-such-cmd");
        assert_eq!(shown(OsStr::new("dir/a b'é")), "dir/a b'é");
        assert_eq!(shown(OsStr::new("")), "\"\"");
        assert_eq!(shown(OsStr::new("a\nb")), "\"a\\nb\"");
        assert_eq!(shown(OsStr::new("\u{202e}x\u{1b}[31m")), "\"\\u{202e}x\\u{1b}[31m\"");
        assert_eq!(shown(OsStr::from_bytes(b"\xff")), "\"\\xFF\"");
    }
}
