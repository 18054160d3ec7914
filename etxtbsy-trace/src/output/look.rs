//! How the text looks: its colours, its characters, the width of its lines, and how much of it is shown.

use crate::text::escape::Charset;
use anstyle::AnsiColor;
use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm, core::display_width};

/// What a piece of text is about, which gives its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    /// The victim, the failure, anything lost.
    Bad,
    /// A holder, and a file still held.
    Holder,
    /// A release.
    Good,
    /// What a reader needs first.
    Strong,
    /// What a reader needs second.
    Faint,
    /// Anything else.
    Plain,
}

/// How the text looks.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Whether to colour.
    pub color: bool,
    /// Whether to shorten nothing and show everything.
    pub verbose: bool,
    /// The characters that the reader can see.
    pub charset: Charset,
    /// The width at which lines wrap; `None` if they do not.
    pub columns: Option<usize>,
}

/// What the text output writes, and how.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// How it looks.
    pub look: Look,
    /// Whether only the summary is written.
    pub summary_only: bool,
    /// Whether each incident in full is a group of the log of GitHub Actions, which readers unfold.
    pub log_groups: bool,
}

impl From<Look> for Style {
    fn from(look: Look) -> Self {
        Self { look, summary_only: false, log_groups: false }
    }
}

impl Look {
    /// No colours, and long texts are shortened.
    pub const PLAIN: Self =
        Self { color: false, verbose: false, charset: Charset::Unicode, columns: None };

    /// `text`, already escaped, in its colour: one of the 16 that every terminal's theme keeps
    /// readable.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Holder => AnsiColor::Yellow.on_default(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Strong => anstyle::Style::new().bold(),
            Tone::Faint => anstyle::Style::new().dimmed(),
            Tone::Plain => anstyle::Style::new(),
        };
        if self.color && !text.is_empty() && tone != Tone::Plain {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// A string from another process, escaped and, unless verbose, shortened.
    pub(crate) fn short(self, raw: &str, columns: usize) -> String {
        if self.verbose { self.charset.text(raw) } else { self.charset.short(raw, columns) }
    }

    /// A command line of another process, in about `columns` at most unless verbose.
    pub(crate) fn command(self, argv: &[String], columns: usize) -> String {
        self.charset.command(argv, self.many(columns))
    }

    /// One of our sentences with names of other processes.
    pub(crate) fn prose(self, raw: &str) -> String {
        self.charset.prose(raw)
    }

    /// A line: `text` in a column after `before`, in the characters of the reader. A longer one goes on
    /// below `text`; it wraps only between words, so a word can be wider than the reader's columns.
    pub(crate) fn line(self, before: &str, text: &str) -> String {
        let word = text.trim_start_matches(' ');
        let before = self.charset.own(&format!("{before}{}", &text[..text.len() - word.len()]));
        let text = self.charset.own(word);
        let Some(columns) = self.columns.filter(|_| !text.is_empty()) else {
            return format!("{before}{text}\n");
        };
        // Without a column to hang from, what goes on is indented, so that it is no line of its own.
        let hang = display_width(&before).max(2).min(columns / 2);
        let hang = " ".repeat(hang);
        let options = Options::new(columns)
            .initial_indent(&before)
            .subsequent_indent(&hang)
            .break_words(false)
            .word_separator(WordSeparator::AsciiSpace)
            .word_splitter(WordSplitter::NoHyphenation)
            .wrap_algorithm(WrapAlgorithm::FirstFit);
        textwrap::wrap(&text, options).join("\n") + "\n"
    }

    /// How many entries of a list are shown: `few`, or all if verbose.
    pub(crate) fn many(self, few: usize) -> usize {
        if self.verbose { usize::MAX } else { few }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn narrow(columns: usize) -> Look {
        Look { columns: Some(columns), ..Look::PLAIN }
    }

    #[test]
    fn a_line_goes_on_below_its_text() {
        let line = |look: Look| look.line("  holder   ", "demo[4310] · fd 5 O_WRONLY · via fork");
        assert_eq!(line(Look::PLAIN), "  holder   demo[4310] · fd 5 O_WRONLY · via fork\n");
        assert_eq!(
            line(narrow(30)),
            "  holder   demo[4310] · fd 5\n           O_WRONLY · via fork\n"
        );
        assert_eq!(narrow(12).line("", "lost 3: ring buffer"), "lost 3: ring\n  buffer\n");
    }

    #[test]
    fn a_word_is_never_cut() {
        let path = "/a/path-that-is/wider-than.the-terminal";
        assert_eq!(narrow(20).line("  busy     ", path), format!("  busy     {path}\n"));
        assert_eq!(
            narrow(20).line("", &format!("see {path} now")),
            format!("see\n  {path}\n  now\n")
        );
        assert_eq!(narrow(1).line("", "a b"), "a\nb\n");
        assert_eq!(narrow(9).line("  label  ", ""), "  label  \n");
    }

    #[test]
    fn colours_take_no_columns() {
        let look = Look { color: true, ..narrow(12) };
        let [one, two] = ["one", "two"].map(|word| look.paint(Tone::Bad, word));
        assert_eq!(
            look.line("a  ", &format!("{one} {two} {one}")),
            format!("a  {one} {two}\n   {one}\n")
        );
    }

    #[test]
    fn a_wide_character_takes_two_columns() {
        assert_eq!(narrow(8).line("", "ファイル x"), "ファイル\n  x\n");
    }

    #[test]
    fn ascii_stand_ins_are_counted() {
        let look = Look { charset: Charset::Ascii, ..narrow(6) };
        assert_eq!(look.line("", "ab … c"), "ab ...\n  c\n");
    }
}
