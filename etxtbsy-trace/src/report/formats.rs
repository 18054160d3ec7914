//! The formats of a report. A new format is a file in this folder and a line here.

use std::io::{self, Write};

use super::{github, html, junit, markdown, model::Document, perfetto, text};

/// Writes a report.
type Writer = fn(&Document, &mut dyn Write) -> io::Result<()>;

/// A format.
#[derive(Debug)]
pub struct Format {
    /// The value of `--format`.
    pub name: &'static str,
    /// Its line in the help.
    pub help: &'static str,
    /// Whether a terminal cannot show it.
    pub is_binary: bool,
    /// Writes a report in it.
    pub write: Writer,
}

const fn format(name: &'static str, help: &'static str, write: Writer) -> Format {
    Format { name, help, is_binary: false, write }
}

/// All formats; the first is the default.
pub static FORMATS: &[Format] = &[
    format("text", "Plain text, at most 1 MiB", text::write),
    format("markdown", "Markdown for the summary of a CI job, at most 1 MiB", markdown::write),
    format("github", "At most 10 warnings of a GitHub Actions job", github::write),
    format("junit", "JUnit XML: a group is a test case", junit::write),
    format("html", "One HTML file without links to others", html::write),
    Format {
        is_binary: true,
        ..format("perfetto", "Tracks for ui.perfetto.dev, as protobuf", perfetto::write)
    },
];

/// The format of that name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Format> {
    FORMATS.iter().find(|format| format.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples::{self, written};

    #[test]
    fn every_text_has_the_places_in_the_code() {
        for format in FORMATS.iter().filter(|format| !format.is_binary) {
            let text = written(format.write, &samples::with_stacks());
            for label in ["opened at", "forked at"] {
                assert!(text.contains(label), "{}: no {label} in {text}", format.name);
            }
        }
    }
}
