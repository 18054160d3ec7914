//! Strings from other processes, made harmless before they reach a terminal.
//!
//! A file name may hold anything but `/` and NUL: newlines that fake a line of ours, escape
//! sequences that the terminal obeys, marks that turn the text round or hide part of it. What is
//! not visible as itself is shown as `\n`, `\x1b`, `\u{202e}`. Columns are those of a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Whether a character is not visible as itself: controls, format and bidi marks, separators
/// other than the space, private and unassigned code points, and all that take no column of
/// their own (combining marks, too, which would change what stands before them).
#[must_use]
pub fn hidden(c: char) -> bool {
    !matches!(c, ' '..='~') && (c.width().unwrap_or(0) == 0 || c.escape_debug().len() > 1)
}

/// How many columns a string takes once it is escaped.
#[must_use]
pub fn width(escaped: &str) -> usize {
    escaped.width()
}

/// Which characters a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// All of them.
    Unicode,
    /// Those of ASCII; any other one is shown as `\u{…}`.
    Ascii,
}

impl Charset {
    /// One character, as it is shown.
    fn put(self, out: &mut String, c: char) {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            '\0'..='\x1f' | '\x7f' => {
                out.push_str("\\x");
                let digits = [u32::from(c) >> 4, u32::from(c) & 0xf];
                out.extend(digits.iter().filter_map(|d| char::from_digit(*d, 16)));
            }
            c if hidden(c) || (self == Self::Ascii && !c.is_ascii()) => {
                out.extend(c.escape_unicode());
            }
            c => out.push(c),
        }
    }

    /// [`text`], in these characters.
    #[must_use]
    pub fn text(self, raw: &str) -> String {
        let mut out = String::with_capacity(raw.len());
        raw.chars().for_each(|c| self.put(&mut out, c));
        out
    }

    /// [`prose`], in these characters, and the `µ` of our microseconds.
    #[must_use]
    pub fn prose(self, raw: &str) -> String {
        let parts = raw.split_inclusive(['\\', 'µ']).map(|part| {
            let own = part.strip_suffix(['\\', 'µ']).unwrap_or(part);
            self.text(own) + &part[own.len()..]
        });
        parts.collect()
    }

    /// [`short`], in these characters, but for the `…`.
    #[must_use]
    pub fn short(self, raw: &str, columns: usize) -> String {
        let whole = self.text(raw);
        if width(&whole) <= columns {
            return whole;
        }
        let room = columns.saturating_sub(1);
        let head = self.fitting(raw.chars(), room / 3);
        let tail = self.fitting(raw.chars().rev(), room - room / 3);
        format!("{}…{}", self.text(&raw[..head]), self.text(&raw[raw.len() - tail..]))
    }

    /// [`command`], in these characters, but for the `…`.
    #[must_use]
    pub fn command(self, argv: &[String], columns: usize) -> String {
        let mut out = String::new();
        for (at, argument) in argv.iter().enumerate() {
            let quoted = quote(&self.short(argument, columns));
            if at > 0 && width(&out) + 1 + width(&quoted) > columns {
                return out + &format!(" … ({} more)", argv.len() - at);
            }
            if at > 0 {
                out.push(' ');
            }
            out += &quoted;
        }
        out
    }

    /// How many bytes of `chars` fit into `columns`.
    fn fitting(self, chars: impl Iterator<Item = char>, columns: usize) -> usize {
        let (mut used, mut bytes) = (0, 0);
        for c in chars {
            let mut shown = String::new();
            self.put(&mut shown, c);
            used += width(&shown);
            if used > columns {
                break;
            }
            bytes += c.len_utf8();
        }
        bytes
    }
}

/// The whole of `raw`; a backslash becomes two, so that nothing can pass for an escape.
#[must_use]
pub fn text(raw: &str) -> String {
    Charset::Unicode.text(raw)
}

/// [`text`] for sentences of ours with foreign names in them: backslashes stay as they are.
#[must_use]
pub fn prose(raw: &str) -> String {
    Charset::Unicode.prose(raw)
}

/// [`text`] in at most `columns`: what is too long loses its middle, more of the head than of the
/// tail, for it is the end of a path that tells files apart. No escape is cut in two.
#[must_use]
pub fn short(raw: &str, columns: usize) -> String {
    Charset::Unicode.short(raw, columns)
}

/// A command line, quoted as a shell would want it, in at most about `columns`.
#[must_use]
pub fn command(argv: &[String], columns: usize) -> String {
    Charset::Unicode.command(argv, columns)
}

/// Quotes an argument that a shell would not take for one word as it stands.
fn quote(escaped: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "%+,-./:=@_…".contains(c);
    if !escaped.is_empty() && escaped.chars().all(plain) {
        escaped.to_owned()
    } else if escaped.contains(['\\', '\'']) {
        format!("$'{}'", escaped.replace('\'', "\\'"))
    } else {
        format!("'{escaped}'")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::samples;
    use proptest::prelude::*;

    #[test]
    fn what_is_visible_stays() {
        for raw in ["/usr/bin/make", "a b'c\"d", "Straße/ファイル/é", "\u{fffd}"] {
            assert_eq!(text(raw), raw);
        }
    }

    #[test]
    fn what_is_not_becomes_visible() {
        let cases = [
            ("a\nb\r\t", r"a\nb\r\t"),
            ("\x1b[31m\x07\x7f\0", r"\x1b[31m\x07\x7f\x00"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("gpj.\u{202e}exe\u{2066}\u{200f}", r"gpj.\u{202e}exe\u{2066}\u{200f}"),
            ("a\u{200b}b\u{feff}\u{ad}\u{2028}", r"a\u{200b}b\u{feff}\u{ad}\u{2028}"),
            ("e\u{301}\u{fe0f}\u{3164}", r"e\u{301}\u{fe0f}\u{3164}"),
            ("a\u{a0}b\u{e000}\u{e0041}", r"a\u{a0}b\u{e000}\u{e0041}"),
            (r"not a newline: \n", r"not a newline: \\n"),
        ];
        for (raw, shown) in cases {
            assert_eq!(text(raw), shown);
        }
        assert_eq!(prose("`#!/bin/sh\\n` in a\nb"), r"`#!/bin/sh\n` in a\nb");
    }

    #[test]
    fn a_terminal_without_unicode_gets_ascii() {
        assert_eq!(Charset::Ascii.text("a/家\n"), r"a/\u{5bb6}\n");
        assert_eq!(Charset::Ascii.short("家家", 14), r"…\u{5bb6}");
        assert_eq!(Charset::Ascii.prose("`\\n`: 家 for 180 µs"), r"`\n`: \u{5bb6} for 180 µs");
    }

    #[test]
    fn what_is_too_long_loses_its_middle() {
        assert_eq!(short("/a/b/c", 6), "/a/b/c");
        assert_eq!(short("/a/very/long/path/to/tool", 10), "/a/…o/tool");
        // Six columns each: half an escape would be worse than none.
        assert_eq!(short(&"\u{9b}".repeat(9), 20), r"\u{9b}…\u{9b}\u{9b}");
        assert_eq!(short("ファイルファイル", 9), "フ…ァイル");
        assert_eq!(short("abc", 0), "…");
    }

    #[test]
    fn commands_are_quoted_like_a_shell() {
        let argv = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let show = |list: &[&str]| command(&argv(list), 60);
        assert_eq!(show(&["make", "-j8", "A=b/c"]), "make -j8 A=b/c");
        assert_eq!(show(&["sh", "-c", "echo $HOME", ""]), "sh -c 'echo $HOME' ''");
        assert_eq!(show(&["a'b", "c\nd"]), r"$'a\'b' $'c\nd'");
        assert_eq!(show(&[]), "");
        let many = vec!["argument"; 20];
        assert_eq!(
            show(&many),
            "argument argument argument argument argument argument … (14 more)"
        );
    }

    proptest! {
        #[test]
        fn nothing_hidden_gets_through(raw in samples::string(), columns in 0usize..40) {
            prop_assert!(samples::harmless(&text(&raw)) && !text(&raw).contains('\n'));
            prop_assert!(samples::harmless(&prose(&raw)) && !prose(&raw).contains('\n'));
            let cut = short(&raw, columns);
            prop_assert!(samples::harmless(&cut) && !cut.contains('\n'));
            prop_assert!(width(&cut) <= columns.max(1));
        }

        #[test]
        fn different_strings_look_different(a in samples::string(), b in samples::string()) {
            prop_assert_eq!(a == b, text(&a) == text(&b));
        }
    }
}
