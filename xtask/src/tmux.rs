//! tmux, the terminal for the tests and the picture of the view.

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
        bail!(
            "tmux is not installed, and the tests of the view need it: install your distribution's package"
        );
    }
    step("installing tmux: the tests and the picture of the view need it");
    apt::install(&["tmux".to_owned()])
}
