//! Byte strings of other processes as text and, if they are not UTF-8, also as base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// The most bytes of a process's arguments, or of a path.
pub const TEXT_BYTES: usize = 4096;

/// Bytes as a JSON string, and as base64 if that string is not exact.
#[must_use]
pub fn text(bytes: &[u8]) -> (String, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(STANDARD.encode(bytes))),
    }
}

/// [`text`] for bytes that may not be known.
#[must_use]
pub fn maybe_text(bytes: Option<&[u8]>) -> (Option<String>, Option<String>) {
    match bytes.map(text) {
        Some((lossy, exact)) => (Some(lossy), exact),
        None => (None, None),
    }
}

/// [`text`] for a list: the second part is `None` if every element is UTF-8.
#[must_use]
pub fn texts(list: &[Vec<u8>]) -> (Vec<String>, Option<Vec<Option<String>>>) {
    let (lossy, exact): (Vec<_>, Vec<_>) = list.iter().map(|bytes| text(bytes)).unzip();
    let any = exact.iter().any(Option::is_some);
    (lossy, any.then_some(exact))
}
