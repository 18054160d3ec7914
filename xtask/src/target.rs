//! Building for another target than this machine's.

use std::{ffi::OsString, path::Path};

use anyhow::{Context as _, Result};

use crate::command::{command, output, run};

/// Installs the standard library for a target if it is missing.
pub(crate) fn ensure(target: &str) -> Result<()> {
    let installed = output(command("rustc").args(["--print", "target-libdir", "--target", target]))
        .is_some_and(|dir| Path::new(&dir).exists());
    if installed {
        return Ok(());
    }
    run(command("rustup").args(["target", "add", target])).with_context(|| {
        format!("the standard library for {target} is missing: run `rustup target add {target}`")
    })
}

/// The variable and value that make cargo link for a target with Rust's own linker.
pub(crate) fn linker(target: &str) -> (OsString, &'static str) {
    let variable = format!("CARGO_TARGET_{}_LINKER", target.to_uppercase().replace('-', "_"));
    (variable.into(), "rust-lld")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_linker_variable_has_cargos_form() {
        let (variable, _) = linker("aarch64-unknown-linux-musl");
        assert_eq!(variable, "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER");
    }
}
