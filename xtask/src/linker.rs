//! bpf-linker, which links rustc's output into eBPF objects.

use std::{
    fs,
    ops::RangeInclusive,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    apt,
    command::{cargo, command, output, run, step, target_dir},
    toolchain::Toolchain,
};

const VERSION: &str = "0.13.0";
/// The major versions of LLVM with which [`VERSION`] can be built.
const LLVM: RangeInclusive<u32> = 21..=23;

/// Installs bpf-linker unless one is installed that can read this toolchain's bitcode.
pub(crate) fn ensure_for(toolchain: &Toolchain) -> Result<()> {
    let rustc = toolchain.sysroot.join("bin/rustc");
    let llvm = output(command(&rustc).arg("-vV"))
        .and_then(|text| number(text.split_once("LLVM version: ")?.1))
        .with_context(|| format!("`{} -vV` does not show its LLVM version", rustc.display()))?;
    if is_installed(llvm) {
        return Ok(());
    }
    ensure!(
        LLVM.contains(&llvm),
        "bpf-linker {VERSION} needs LLVM {} to {}, but {} has {llvm}: run `rustup update`",
        LLVM.start(),
        LLVM.end(),
        rustc.display(),
    );
    step(
        "building bpf-linker with rustc's LLVM, so that it can read rustc's bitcode (a minute or two)",
    );
    let (library, llvm) = match linked_llvm(&rustc) {
        Some(library) => (library, llvm),
        None => packaged_llvm(llvm)?,
    };
    let prefix = linking_prefix(&library)
        .with_context(|| format!("cannot create a link to {}", library.display()))?;
    let directory = library.parent().unwrap_or(&prefix).display();
    run(cargo(["install", "bpf-linker", "--version", VERSION, "--locked", "--force"])
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", &prefix)
        .env("RUSTFLAGS", format!("-Clink-arg=-Wl,-rpath,{directory}"))
        .env("CARGO_PROFILE_RELEASE_DEBUG", "false"))?;
    ensure!(is_installed(llvm), "bpf-linker does not run: see `ldd $(command -v bpf-linker)`");
    Ok(())
}

/// Whether `PATH` has a working bpf-linker that is at least [`VERSION`] and has at least this LLVM.
fn is_installed(llvm: u32) -> bool {
    let own = output(command("bpf-linker").arg("--version"))
        .and_then(|text| number(text.strip_prefix("bpf-linker 0.")?));
    let path = output(command("sh").args(["-c", "command -v bpf-linker"]));
    own.is_some_and(|own| Some(own) >= number(&VERSION["0.".len()..]))
        // `None`: upstream's binary, which includes the newest LLVM.
        && path.and_then(|path| linked_llvm(Path::new(&path))).is_none_or(|library| {
            let name = library.file_name().unwrap_or_default().to_string_lossy();
            name.strip_prefix("libLLVM.so.").and_then(number) >= Some(llvm)
        })
}

/// The shared LLVM library of a program, if it is linked with one.
fn linked_llvm(program: &Path) -> Option<PathBuf> {
    // "	libLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007f00dc800000)"
    output(command("ldd").arg(program))?.lines().find_map(|line| {
        let (name, path) = line.trim_start().split_once(" => ")?;
        name.starts_with("libLLVM").then(|| path.rsplit_once(" (").map(|it| it.0.into()))?
    })
}

/// The distribution's LLVM, for a rustc with built-in LLVM: the library and its major version.
fn packaged_llvm(least: u32) -> Result<(PathBuf, u32)> {
    let package = |llvm: &u32| format!("llvm-{llvm}-dev");
    let llvm =
        (least..=*LLVM.end()).find(|llvm| apt::candidate(&package(llvm)).is_some()).with_context(
            || format!("there is no package {}: run `cargo binstall bpf-linker`", package(&least)),
        )?;
    apt::install(&[package(&llvm)])?;
    Ok((format!("/usr/lib/llvm-{llvm}/lib/libLLVM.so").into(), llvm))
}

/// A directory for `LLVM_PREFIX`: bpf-linker links with `lib/libLLVM.so` in it, but rustc's library has a
/// longer name.
fn linking_prefix(library: &Path) -> Result<PathBuf> {
    let prefix = target_dir()?.join("llvm");
    fs::create_dir_all(prefix.join("lib"))?;
    let link = prefix.join("lib/libLLVM.so");
    if link.is_symlink() {
        fs::remove_file(&link)?;
    }
    symlink(library, link)?;
    Ok(prefix)
}

/// The number at the start of the text.
fn number(text: &str) -> Option<u32> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}
