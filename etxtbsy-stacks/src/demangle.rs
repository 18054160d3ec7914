//! Function names: demangled, and never longer than a limit.

use std::fmt::{self, Write};

use cpp_demangle::{DemangleOptions, Symbol};

/// The most bytes of a function's name or of a source file's.
pub(crate) const NAME_BYTES: usize = 512;
/// The longest mangled name that is demangled: the work can grow faster than the name.
const MANGLED_BYTES: usize = 4096;

/// A name as people write it.
pub(crate) fn function(mangled: &[u8]) -> String {
    let text = String::from_utf8_lossy(&mangled[..mangled.len().min(MANGLED_BYTES + 1)]);
    if text.len() > MANGLED_BYTES {
        return bounded(&text);
    }
    let mut out = Bounded::default();
    if let Ok(name) = rustc_demangle::try_demangle(&text) {
        // What fails here is that the name is full.
        let _ = write!(out, "{name:#}");
    } else if let Some(symbol) =
        text.starts_with("_Z").then(|| Symbol::new(text.as_bytes()).ok()).flatten()
    {
        let _ = symbol
            .structured_demangle(&mut out, &DemangleOptions::new().no_params().no_return_type());
    }
    if out.text.is_empty() { bounded(&text) } else { out.finish() }
}

/// A text cut to the limit.
pub(crate) fn bounded(text: &str) -> String {
    let mut out = Bounded::default();
    let _ = out.write_str(text);
    out.finish()
}

/// Takes text up to the limit, then fails, which stops the writer.
#[derive(Default)]
struct Bounded {
    text: String,
    is_cut: bool,
}

impl Bounded {
    fn finish(mut self) -> String {
        if self.is_cut {
            self.text.push('…');
        }
        self.text
    }
}

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.is_cut {
            return Err(fmt::Error);
        }
        let room = NAME_BYTES - '…'.len_utf8() - self.text.len();
        if text.len() <= room {
            self.text.push_str(text);
            return Ok(());
        }
        let end = (0..=room).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.text.push_str(&text[..end]);
        self.is_cut = true;
        Err(fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_demangled() {
        for (mangled, name) in [
            ("main", "main"),
            ("_ZN3std2fs4File4open17h0123456789abcdefE", "std::fs::File::open"),
            ("_RNvNtCs5QSdWC790r4_3app5files6create", "app::files::create"),
            ("_ZN2ns5Files6createERKSs", "ns::Files::create"),
            ("_Z", "_Z"),
        ] {
            assert_eq!(function(mangled.as_bytes()), name);
        }
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(function(&[b'a'; 512]).len(), NAME_BYTES);
        assert_eq!(function("é".repeat(5000).as_bytes()).chars().last(), Some('…'));
        assert!(function(&[0xff; 9000]).len() <= NAME_BYTES);
        // Each substitution doubles the text.
        let bomb = format!("_Z1fSt4pairI{}E", "S_IS_S_E".repeat(200));
        assert!(function(bomb.as_bytes()).len() <= NAME_BYTES);
    }
}
