//! Installs what building the eBPF programs needs besides cargo.

use anyhow::{Context as _, Result};

use crate::{
    command::step,
    component::Component,
    linker,
    toolchain::{self, Toolchain},
};

/// Installs what is missing; takes a fraction of a second if nothing is.
pub(crate) fn run() -> Result<Toolchain> {
    let toolchain = if let Some(toolchain) = toolchain::find()? {
        toolchain
    } else {
        step("installing core's sources: Rust ships no ready-made core for eBPF");
        Component::RustSrc.install()?;
        toolchain::find()?.context(
            "still no toolchain with core's sources: see `rustup toolchain list -v`, \
             then run `rustup component add rust-src`",
        )?
    };
    linker::ensure_for(&toolchain)?;
    Ok(toolchain)
}
