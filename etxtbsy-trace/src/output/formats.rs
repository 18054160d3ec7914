//! The values of `--format`: what each of them is, and what writes it. A new format is a file of this folder, a
//! value here, and its arms.

use std::fs::File;

use clap::ValueEnum;

use super::{Output, json::Json, text::Text};

/// What is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A live view, on a terminal; with `run`, CMD reads nothing, and its output has a pane
    Tui,
    /// Incidents in words, as they are found
    Text,
    /// JSON lines
    Json,
}

impl Format {
    /// Whether programs read it: it goes to stdout and has no colours.
    #[must_use]
    pub fn is_for_programs(self) -> bool {
        match self {
            Self::Tui | Self::Text => false,
            Self::Json => true,
        }
    }

    /// An output in this format, in colour or not, `verbose` or short; `None` for the view, which draws the
    /// lines itself.
    #[must_use]
    pub fn open(self, writer: File, color: bool, verbose: bool) -> Option<Box<dyn Output>> {
        match self {
            Self::Tui => None,
            Self::Text => Some(Box::new(Text::new(writer, color, verbose))),
            Self::Json => Some(Box::new(Json::new(writer))),
        }
    }
}
