//! `cargo xtask dist`: what a release consists of.

mod archive;
mod deb;
pub(crate) mod licences;

use std::{
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    command::{cargo, command, is_installed, output, run, step, target_dir},
    target,
};
use archive::{Files, sha256};

/// The crate of the program, and the program.
pub(crate) const NAME: &str = "etxtbsy-trace";
/// That of all crates.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The targets of releases.
pub(crate) const TARGETS: [&str; 2] = ["x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"];
/// What the documentation of a release has, besides `docs/`.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
const SERVICE: &str = include_str!("../../packaging/etxtbsy-trace.service");

/// Arguments of `cargo xtask dist`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Target to build for (repeatable)
    #[arg(
        long = "target",
        value_name = "TRIPLE",
        default_value = TARGETS[0],
        value_parser = TARGETS
    )]
    targets: Vec<String>,
}

/// Builds the archives and packages, into `target/dist`.
pub(crate) fn run_dist(args: &Args) -> Result<()> {
    let place = target_dir()?.join("dist");
    // Only what this version has gets a checksum.
    if place.exists() {
        fs::remove_dir_all(&place).with_context(|| format!("cannot empty {}", place.display()))?;
    }
    fs::create_dir_all(&place)?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let time = commit_time()?;
    let pages = place.join("pages");
    step("writing man pages and completions");
    let mut manual = cargo(["run", "--release", "--locked", "--package", "manual", "--"]);
    run(manual.arg(&pages))?;
    let mut made = Vec::new();
    for target in &args.targets {
        made.extend(build(target, &root, &pages, &place, time)?);
    }
    fs::remove_dir_all(&pages)?;
    made.sort();
    let mut sums = String::new();
    for file in &made {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        writeln!(sums, "{}  {name}", sha256(&fs::read(file)?))?;
    }
    fs::write(place.join("SHA256SUMS"), &sums)?;
    step(&format!("ready, in {}:", place.display()));
    print!("{sums}");
    Ok(())
}

/// The name of a target's archive, without `.tar.gz`, and of the one directory in it.
pub(crate) fn archive_name(target: &str) -> String {
    format!("{NAME}-{VERSION}-{target}")
}

/// The files of one target: archive, debug information, package.
fn build(target: &str, root: &Path, pages: &Path, place: &Path, time: u64) -> Result<Vec<PathBuf>> {
    step(&format!("building for {target}"));
    target::ensure(target)?;
    let (variable, linker) = target::linker(target);
    let mut cargo = cargo(["build", "--release", "--locked", "--package", NAME, "--target"]);
    run(cargo.arg(target).env(variable, linker))?;
    let built = target_dir()?.join(target).join("release").join(NAME);
    let name = archive_name(target);
    let debug = place.join(format!("{name}.debug"));
    let binary = place.join(NAME);
    split(&built, &debug, &binary)?;

    let licences = licences::of(target)?;
    let mut documents = Files::default();
    for file in DOCUMENTS {
        documents.add(file, fs::read(root.join(file))?);
    }
    documents.add_directory("docs", &root.join("docs"))?;
    documents.add("LICENSES-THIRD-PARTY.txt", licences.into_bytes());

    let mut files = Files::default();
    files.add_program(NAME, fs::read(&binary)?);
    files.extend("", &documents);
    files.add_directory("", pages)?;
    files.add_directory("", &root.join("packaging"))?;
    let archive = place.join(format!("{name}.tar.gz"));
    fs::write(&archive, files.archive(&name, time)?)?;

    let mut made = vec![archive, debug];
    if is_installed("dpkg-deb") {
        made.push(deb::build(target, place, &binary, pages, &documents, time)?);
    } else {
        step("dpkg-deb is not installed: no Debian package");
    }
    fs::remove_file(binary)?;
    Ok(made)
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
