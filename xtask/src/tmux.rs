//! The terminal that tests and pictures of the view take.

use anyhow::{Result, bail};

use crate::{
    apt,
    command::{command, output, step},
};

/// Installs tmux if it is missing.
pub(crate) fn ensure() -> Result<()> {
    if output(command("tmux").arg("-V")).is_some() {
        return Ok(());
    }
    if !apt::exists() {
        bail!("the view is tested in tmux, which is missing: install your distribution's package");
    }
    step("installing tmux: the view is tested and drawn in it");
    apt::install(&["tmux".to_owned()])
}
