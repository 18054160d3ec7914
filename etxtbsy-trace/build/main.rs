//! Puts the eBPF programs into `OUT_DIR`: `etxtbsy-trace-ebpf`, and for kernels with the function
//! `bpf_rdonly_cast` (6.2 on) `etxtbsy-trace-ebpf-cast`.
//!
//! In the repository this compiles them. A package has compiled ones, because whoever installs it may have
//! neither bpf-linker nor the sources of `core`.

mod compile;
mod prebuilt;
mod toolchain;

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

const PLAIN: &str = "etxtbsy-trace-ebpf";
const CASTING: &str = "etxtbsy-trace-ebpf-cast";

fn main() {
    println!("cargo::rerun-if-changed=build");
    if let Err(e) = build() {
        println!("cargo::error={e:#}");
    }
}

fn build() -> anyhow::Result<()> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    if package.join(compile::SOURCES).exists() {
        compile::compile(&out_dir).context("run `cargo xtask setup`")
    } else {
        prebuilt::copy(package, &out_dir)
    }
}
