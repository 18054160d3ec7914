//! Escapes strings from other processes before they reach a terminal.
//!
//! A file name can have any byte but `/` and NUL: newlines that fake one of our lines, escape
//! sequences that the terminal executes, characters that reverse or hide text. A character that is
//! not visible as itself is shown as `\n`, `\x1b`, `\u{202e}`. Columns are those of a terminal.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Whether a character is not visible as itself: control, format and bidi characters, separators
/// other than the space, private and unassigned code points, and all that take no column of their
/// own, such as combining marks, which would change the character before them.
#[must_use]
pub fn hidden(c: char) -> bool {
    !matches!(c, ' '..='~') && (c.width().unwrap_or(0) == 0 || c.escape_debug().len() > 1)
}

/// The columns of an escaped string.
#[must_use]
pub fn width(escaped: &str) -> usize {
    escaped.width()
}

/// Our own characters beyond ASCII, and their stand-ins.
const STAND_INS: [(char, &str); 11] = [
    ('→', "->"),
    ('←', "<-"),
    ('├', "|"),
    ('└', "`"),
    ('│', "|"),
    ('─', "-"),
    ('·', "-"),
    ('…', "..."),
    ('µ', "u"),
    ('×', "x"),
    ('≤', "<="),
];

/// The characters that a terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charset {
    /// All of them.
    Unicode,
    /// Only ASCII; any other character is shown as `\u{…}`.
    Ascii,
}

impl Charset {
    /// Appends a character as it is shown.
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

    /// [`text`] in this charset.
    #[must_use]
    pub fn text(self, raw: &str) -> String {
        let mut out = String::with_capacity(raw.len());
        raw.chars().for_each(|c| self.put(&mut out, c));
        out
    }

    /// [`prose`] in this charset; `µ` is kept, because our microseconds have it.
    #[must_use]
    pub fn prose(self, raw: &str) -> String {
        let parts = raw.split_inclusive(['\\', 'µ']).map(|part| {
            let own = part.strip_suffix(['\\', 'µ']).unwrap_or(part);
            self.text(own) + &part[own.len()..]
        });
        parts.collect()
    }

    /// [`short`] in this charset; `…` is kept.
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

    /// [`command`] in this charset; `…` is kept.
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

    /// Our own text around such names in this charset: arrows, lines, dots and `µ` get stand-ins.
    #[must_use]
    pub fn own(self, text: &str) -> String {
        if self == Self::Unicode || text.is_ascii() {
            return text.to_owned();
        }
        let mut out = String::with_capacity(text.len());
        for c in text.replace(" · ", ", ").chars() {
            match STAND_INS.iter().find(|(own, _)| *own == c) {
                Some((_, ascii)) => out.push_str(ascii),
                None if c.is_ascii() => out.push(c),
                None => out.extend(c.escape_unicode()),
            }
        }
        out
    }

    /// The number of bytes of `chars` that fit into `columns`.
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

/// Text that the runners of CI read as a command, changed so that it is none: `::` at the beginning of a
/// line, and `##[` or `##vso[` anywhere.
#[must_use]
pub fn unlike_commands(text: &str) -> String {
    let lines = text.split_inclusive('\n').map(|line| {
        let command = line.trim_start();
        let indent = &line[..line.len() - command.len()];
        let escape = if command.starts_with("::") { "\\" } else { "" };
        format!("{indent}{escape}{command}")
    });
    lines.collect::<String>().replace("##[", "##\\[").replace("##vso[", "##\\vso[")
}

/// All of `raw`, escaped. A backslash becomes two, so that no name can look like an escape.
#[must_use]
pub fn text(raw: &str) -> String {
    Charset::Unicode.text(raw)
}

/// [`text`] for our own sentences with names of other processes: backslashes are kept.
#[must_use]
pub fn prose(raw: &str) -> String {
    Charset::Unicode.prose(raw)
}

/// [`text`] in at most `columns`: a long string loses its middle. It keeps more of the end, because
/// the end of a path distinguishes files. No escape is cut in two.
#[must_use]
pub fn short(raw: &str, columns: usize) -> String {
    Charset::Unicode.short(raw, columns)
}

/// A command line, quoted for a shell, in about `columns` at most.
#[must_use]
pub fn command(argv: &[String], columns: usize) -> String {
    Charset::Unicode.command(argv, columns)
}

/// Quotes an argument if a shell would not read it as one word.
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
    fn visible_characters_are_kept() {
        for raw in ["/usr/bin/make", "a b'c\"d", "Straße/ファイル/é", "\u{fffd}"] {
            assert_eq!(text(raw), raw);
        }
    }

    #[test]
    fn hidden_characters_are_escaped() {
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
    fn our_own_characters_have_stand_ins() {
        let text = "├─ a[1] · b ← … → 5 µs";
        assert_eq!(Charset::Ascii.own(text), "|- a[1], b <- ... -> 5 us");
        assert_eq!(Charset::Ascii.own("家\n"), "\\u{5bb6}\n");
        assert_eq!(Charset::Unicode.own(text), text);
    }

    #[test]
    fn no_line_is_a_command_of_ci() {
        for (text, safe) in [
            ("::error::x\n  ::endgroup::\n", "\\::error::x\n  \\::endgroup::\n"),
            ("a ::error::x\n", "a ::error::x\n"),
            ("a ##[error]x ##vso[task]y", "a ##\\[error]x ##\\vso[task]y"),
            ("\n\n", "\n\n"),
        ] {
            assert_eq!(unlike_commands(text), safe);
        }
    }

    #[test]
    fn a_long_string_loses_its_middle() {
        assert_eq!(short("/a/b/c", 6), "/a/b/c");
        assert_eq!(short("/a/very/long/path/to/tool", 10), "/a/…o/tool");
        // Each escape takes six columns and is not cut.
        assert_eq!(short(&"\u{9b}".repeat(9), 20), r"\u{9b}…\u{9b}\u{9b}");
        assert_eq!(short("ファイルファイル", 9), "フ…ァイル");
        assert_eq!(short("abc", 0), "…");
    }

    #[test]
    fn commands_are_quoted_for_a_shell() {
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
        fn no_hidden_character_remains(raw in samples::string(), columns in 0usize..40) {
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
