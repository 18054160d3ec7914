//! Builds the eBPF programs: into `OUT_DIR/etxtbsy-trace-ebpf`, and for kernels with the function
//! `bpf_rdonly_cast` (6.2 on) into `OUT_DIR/etxtbsy-trace-ebpf-cast`.

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use std::{env, fs, path::PathBuf};

use anyhow::Context as _;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../xtask/src/toolchain.rs");
    if let Err(e) = build() {
        println!("cargo::error={e:#}: run `cargo xtask setup`");
    }
}

fn build() -> anyhow::Result<()> {
    let toolchain = toolchain::find()
        .context("cannot look for Rust toolchains")?
        .context("no Rust toolchain here has core's sources, which the eBPF programs need")?;
    // <target>/<profile>/build/<package>/out
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let target_dir = out_dir.ancestors().nth(4).context("OUT_DIR is no place of cargo's")?;
    // SAFETY: nothing has started a thread in this process yet.
    unsafe {
        // Lets a stable compiler build `core`.
        env::set_var("RUSTC_BOOTSTRAP", "1");
        env::set_var("PATH", toolchain::path_with_cargo_bin());
        // Each profile and each of clippy's runs has its own OUT_DIR, where aya-build would build anew.
        env::set_var("CARGO_BUILD_BUILD_DIR", target_dir.join("ebpf"));
        // aya-build turns all that this inner cargo says into warnings: only those of the compiler.
        env::set_var("CARGO_TERM_QUIET", "true");
    }
    let build = |features| {
        let package = aya_build::Package {
            name: "etxtbsy-trace-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../etxtbsy-trace-ebpf"),
            features,
            ..Default::default()
        };
        aya_build::build_ebpf([package], aya_build::Toolchain::Custom(&toolchain.name))
            .context("the eBPF programs do not build, see above; if bpf-linker is what is missing")
    };
    build(&["cast"])?;
    // Both builds have the same name.
    let object = out_dir.join("etxtbsy-trace-ebpf");
    fs::rename(&object, out_dir.join("etxtbsy-trace-ebpf-cast"))
        .with_context(|| format!("cannot rename {}", object.display()))?;
    build(&[])
}
