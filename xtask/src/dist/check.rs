//! `cargo xtask dist --check`: tries what was built in virtual machines without a compiler.

use std::path::Path;

use anyhow::Result;

use crate::vm;

/// The kernels for a target: the oldest that is supported and a newer one; Debian has fewer for arm64.
fn kernels(target: &str) -> &'static [&'static str] {
    if target.starts_with("aarch64") { &["6.12-arm64"] } else { &["5.10", "6.12"] }
}

/// Installs each package and unpacks each archive in `place` on a clean machine, and traces a failure there.
pub(super) fn check(place: &Path, targets: &[String]) -> Result<()> {
    let kernels: Vec<&str> = targets.iter().flat_map(|target| kernels(target)).copied().collect();
    vm::run(&vm::Args::of_release(place, &kernels))
}
