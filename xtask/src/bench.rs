//! What tracing costs.

use std::ffi::OsString;

use anyhow::Result;

use crate::command::{self, built, root};

/// Runs the benchmark as root.
pub(crate) fn run(args: &[OsString]) -> Result<()> {
    command::run(root(built("etxtbsy-trace")?).arg("--version").args(args))
}
