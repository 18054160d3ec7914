//! `cargo xtask dist`: what a release consists of. Here: the programs; [the crate `release`](../../release/src/main.rs)
//! packs them.

mod check;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::{cargo, command, is_installed, output, run, step, target_dir},
    target,
};

/// The crate of the program, and the program.
pub(crate) const NAME: &str = "etxtbsy-trace";
/// That of all crates.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The targets of releases.
pub(crate) const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];

/// Arguments of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Target to build for (repeatable)
    #[arg(
        long = "target",
        value_name = "TRIPLE",
        default_values = TARGETS,
        value_parser = TARGETS
    )]
    targets: Vec<String>,
    /// Then installs the packages and unpacks the archives in virtual machines without a compiler, and traces a failure
    /// there
    #[arg(long)]
    check: bool,
}

/// Builds the archives and packages, into `target/dist`.
pub(crate) fn run_dist(args: &Args) -> Result<()> {
    let place = target_dir()?.join("dist");
    // Only what this version has gets a checksum.
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot empty {}", place.display()))?;
    }
    let time = commit_time()?;
    for target in &args.targets {
        build(target, &place)?;
    }
    step("packing");
    let mut pack = release("pack");
    run(pack.args(["--time", &time.to_string()]).arg(&place).args(&args.targets))?;
    for target in &args.targets {
        fs::remove_dir_all(place.join(target))?;
    }
    step(&format!("ready, in {}", place.display()));
    if args.check { check::check(&place, &args.targets) } else { Ok(()) }
}

/// A command of the crate that packs releases.
pub(crate) fn release(task: &str) -> Command {
    cargo(["run", "--release", "--locked", "--package", "release", "--", task])
}

/// The name of a target's archive, without `.tar.gz`, and of the one directory in it.
pub(crate) fn archive_name(target: &str) -> String {
    format!("{NAME}-{VERSION}-{target}")
}

/// Builds the program of a target into a directory of that name, and its debug information beside it.
fn build(target: &str, place: &Path) -> Result<()> {
    step(&format!("building for {target}"));
    target::ensure(target)?;
    let (variable, linker) = target::linker(target);
    let mut cargo = cargo(["build", "--release", "--locked", "--package", NAME, "--target"]);
    run(cargo.arg(target).env(variable, linker))?;
    let built = target_dir()?.join(target).join("release").join(NAME);
    fs::create_dir_all(place.join(target))?;
    let debug = place.join(format!("{}.debug", archive_name(target)));
    split(&built, &debug, &place.join(target).join(NAME))
}

/// Splits a program into what runs and what only debuggers read.
fn split(built: &Path, debug: &Path, binary: &Path) -> Result<()> {
    // That of LLVM knows all architectures.
    let tool = ["llvm-objcopy", "llvm-objcopy-22", "llvm-objcopy-19", "rust-objcopy", "objcopy"];
    let tool = tool.into_iter().find(|tool| is_installed(tool));
    let tool = tool.context("objcopy is missing: install llvm or binutils")?;
    run(command(tool).arg("--only-keep-debug").args([built, debug]))?;
    fs::set_permissions(debug, fs::Permissions::from_mode(0o644))?;
    let mut link = std::ffi::OsString::from("--add-gnu-debuglink=");
    link.push(debug);
    run(command(tool).arg("--strip-all").arg(link).args([built, binary]))
}

/// The time of the commit, which all files have.
fn commit_time() -> Result<u64> {
    let time = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(time) => Some(time),
        Err(_) => output(command("git").args(["log", "-1", "--format=%ct"])),
    };
    let time = time.and_then(|time| time.parse().ok());
    ensure!(time.is_some(), "no commit has a time here: set SOURCE_DATE_EPOCH");
    Ok(time.unwrap_or_default())
}
