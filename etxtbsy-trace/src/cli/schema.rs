//! `schema`: prints the JSON Schema of the lines.

use std::io::{self, Write as _};

use anyhow::Context as _;

use super::args::Lines;
use crate::output::schema;

/// Prints the JSON Schema of those lines.
pub(super) fn run(of: Lines) -> anyhow::Result<u8> {
    let schema = match of {
        Lines::Trace => schema::trace(),
        Lines::Check => schema::check(),
    };
    let schema = serde_json::to_string_pretty(&schema)?;
    writeln!(io::stdout(), "{schema}").context("cannot write to stdout")?;
    Ok(0)
}
