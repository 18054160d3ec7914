//! The compiled eBPF programs of a package, which `cargo xtask package` puts there.

use std::{env, fs, path::Path};

use anyhow::{Context as _, ensure};

use crate::{CASTING, PLAIN};

/// Copies the objects for the target's architecture.
pub(crate) fn copy(package: &Path, out_dir: &Path) -> anyhow::Result<()> {
    println!("cargo::rerun-if-changed=prebuilt");
    let prebuilt = package.join("prebuilt");
    let commit = fs::read_to_string(prebuilt.join("commit")).context(
        "no prebuilt eBPF programs here: `cargo xtask package` makes packages with them",
    )?;
    // Cargo writes it into each package. A copy by other means, of one commit too, may lack it.
    if let Ok(origin) = fs::read_to_string(package.join(".cargo_vcs_info.json")) {
        ensure!(
            origin.contains(&format!("\"{commit}\"")),
            "the prebuilt eBPF programs are of commit {commit}, and the package is not: \
             run `cargo xtask package`"
        );
    }
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    for name in [PLAIN, CASTING] {
        fs::copy(prebuilt.join(&architecture).join(name), out_dir.join(name)).with_context(
            || {
                format!(
                    "no prebuilt {name} for {architecture}: build in a clone of {}",
                    env!("CARGO_PKG_REPOSITORY")
                )
            },
        )?;
    }
    Ok(())
}
