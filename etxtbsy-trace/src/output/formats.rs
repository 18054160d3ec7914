//! The values of `--format`. A new format is a file in this folder, a value here, and its arms.

use std::fs::File;

use clap::ValueEnum;

use super::{Output, json::Json, look::Style, text::Text};

/// What is printed or drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Live view on a terminal; with `run`, CMD has no stdin, and `o` shows its output
    Tui,
    /// Incidents as text, as they are found
    Text,
    /// JSON lines
    Json,
}

impl Format {
    /// Whether the format is for programs: it goes to stdout, without colours.
    #[must_use]
    pub fn is_for_programs(self) -> bool {
        match self {
            Self::Tui | Self::Text => false,
            Self::Json => true,
        }
    }

    /// An output in this format; `None` for the view, which draws the lines itself.
    #[must_use]
    pub fn open(self, writer: File, style: Style) -> Option<Box<dyn Output>> {
        match self {
            Self::Tui => None,
            Self::Text => Some(Box::new(Text::new(writer, style))),
            Self::Json => Some(Box::new(Json::new(writer))),
        }
    }
}
