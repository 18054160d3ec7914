//! How the text looks: its colours, and how much of it is shown.

use crate::text::escape;
use anstyle::{AnsiColor, Style};

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
pub(crate) struct Look {
    /// Whether to colour.
    pub(crate) color: bool,
    /// Whether to shorten nothing and show everything.
    pub(crate) verbose: bool,
}

impl Look {
    /// No colours, and long texts are shortened.
    pub(crate) const PLAIN: Self = Self { color: false, verbose: false };

    /// `text`, already escaped, in its colour: one of the 16 that every terminal's theme keeps
    /// readable.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let style = match tone {
            Tone::Bad => AnsiColor::Red.on_default().bold(),
            Tone::Holder => AnsiColor::Yellow.on_default(),
            Tone::Good => AnsiColor::Green.on_default(),
            Tone::Strong => Style::new().bold(),
            Tone::Faint => Style::new().dimmed(),
            Tone::Plain => Style::new(),
        };
        if self.color && !text.is_empty() && tone != Tone::Plain {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    /// A string from another process, escaped and, unless verbose, shortened.
    pub(crate) fn short(self, raw: &str, columns: usize) -> String {
        if self.verbose { escape::text(raw) } else { escape::short(raw, columns) }
    }

    /// How many entries of a list are shown: `few`, or all if verbose.
    pub(crate) fn many(self, few: usize) -> usize {
        if self.verbose { usize::MAX } else { few }
    }
}
