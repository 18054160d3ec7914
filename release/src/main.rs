//! Packs a release: what `cargo xtask dist` has built, with all that belongs beside it, as archives and packages.
//!
//! It is a program of its own, so that neither the shipped program nor `cargo xtask` waits for what only releases need.
//! Here: the contents and formats of packages. Not here: compiling ([`xtask`](../xtask/src/dist.rs) does it).

mod archive;
mod deb;
mod layout;
mod licences;
mod linked;
mod pages;
mod rpm;
mod sbom;

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use clap::Parser;

use archive::{Files, sha256};
use linked::Linked;

const NAME: &str = "etxtbsy-trace";
const VERSION: &str = env!("CARGO_PKG_VERSION");
const SUMMARY: &str = "Says who made an exec fail with \"Text file busy\"";
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");
const MAINTAINER: &str = "The etxtbsy-trace maintainers";
const ADDRESS: &str = "maintainers@etxtbsy-trace.invalid";
/// What the packages say of the program; paragraphs, each in one line.
const DESCRIPTION: [&str; 2] = [
    "etxtbsy-trace uses eBPF to report which process had the file open for writing when an exec failed with ETXTBSY, how it got the file, and what helps.",
    "The service etxtbsy-trace records the failures of the whole machine. It is off until `systemctl enable --now etxtbsy-trace`.",
];
/// What the documentation of a release has, besides `docs/`.
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];
const SERVICE: &str = include_str!("../../packaging/etxtbsy-trace.service");

/// What `cargo xtask` calls for releases.
#[derive(Parser)]
enum Task {
    /// Packs what `cargo xtask dist` has built
    Pack(Args),
    /// Prints the licences of the compiled eBPF programs, for the packages of `cargo xtask package`
    LicencesOfObjects,
}

#[derive(clap::Args)]
struct Args {
    /// The time of all files, in seconds since 1970
    #[arg(long)]
    time: u32,
    /// The directory for the release; TARGET/etxtbsy-trace in it is the program for each target
    directory: PathBuf,
    /// The target triples
    #[arg(required = true)]
    targets: Vec<String>,
}

fn main() -> Result<()> {
    match Task::parse() {
        Task::Pack(args) => pack(&args),
        Task::LicencesOfObjects => {
            print!("{}", licences::of_objects()?);
            Ok(())
        }
    }
}

fn pack(args: &Args) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let pages = tempfile::tempdir()?;
    pages::write(pages.path())?;
    let mut made = Vec::new();
    for target in &args.targets {
        let release = Release::new(target, args, &root, pages.path())?;
        for (name, bytes) in release.files()? {
            fs::write(args.directory.join(&name), &bytes)
                .with_context(|| format!("cannot write {name}"))?;
            made.push(name);
        }
        made.push(deb::build(&release, &args.directory)?);
        made.push(debug_file(target));
    }
    made.sort();
    let mut sums = String::new();
    for name in made {
        writeln!(sums, "{}  {name}", sha256(&fs::read(args.directory.join(&name))?))?;
    }
    fs::write(args.directory.join("SHA256SUMS"), &sums)?;
    print!("{sums}");
    Ok(())
}

/// The name that the files of a target have in common.
fn stem(target: &str) -> String {
    format!("{NAME}-{VERSION}-{target}")
}

/// The name of the debug information of a target's program, which `cargo xtask dist` writes.
fn debug_file(target: &str) -> String {
    format!("{}.debug", stem(target))
}

/// What is released for a target.
struct Release<'a> {
    target: &'a str,
    /// Seconds since 1970.
    time: u32,
    program: Vec<u8>,
    /// Man pages in `man1`, and completions in a directory for each shell.
    pages: Files,
    /// For people: the documents, the licences, `docs/`.
    documents: Files,
    /// `packaging/`: what starts the program on other machines.
    deployment: Files,
    linked: Linked,
}

impl<'a> Release<'a> {
    fn new(target: &'a str, args: &Args, root: &Path, pages: &Path) -> Result<Self> {
        let program = args.directory.join(target).join(NAME);
        let program =
            fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
        let linked = Linked::of(target)?;
        let mut deployment = Files::default();
        deployment.add_directory("", &root.join("packaging"))?;
        let mut documents = Files::default();
        for file in DOCUMENTS {
            documents.add(file, fs::read(root.join(file))?);
        }
        documents.add_directory("docs", &root.join("docs"))?;
        documents.add("LICENSES-THIRD-PARTY.txt", licences::of_program(&linked)?.into_bytes());
        let mut shown = Files::default();
        shown.add_directory("", pages)?;
        Ok(Self { target, time: args.time, program, pages: shown, documents, deployment, linked })
    }

    /// The archive, the RPM and the SBOM: names and contents.
    fn files(&self) -> Result<Vec<(String, Vec<u8>)>> {
        let stem = stem(self.target);
        let sbom = sbom::json(self)?;
        let mut files = Files::default();
        files.add_program(NAME, self.program.clone());
        files.extend("", &self.documents);
        files.extend("", &self.pages);
        files.extend("", &self.deployment);
        let archive = files.archive(&stem, self.time.into())?;
        let (package, content) = rpm::build(self)?;
        Ok(vec![
            (format!("{stem}.tar.gz"), archive),
            (format!("{stem}.cdx.json"), sbom),
            (package, content),
        ])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use ::rpm::Package;
    use cyclonedx_bom::prelude::{Bom, Validate as _};

    /// A release of a program that is only text.
    fn made() -> Vec<(String, Vec<u8>)> {
        let target = "aarch64-unknown-linux-musl";
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(target)).unwrap();
        fs::write(directory.path().join(target).join(NAME), "program").unwrap();
        let args = Args {
            time: 1_700_000_000,
            directory: directory.path().to_owned(),
            targets: vec![target.to_owned()],
        };
        let pages = tempfile::tempdir().unwrap();
        pages::write(pages.path()).unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Release::new(target, &args, &root, pages.path()).unwrap().files().unwrap()
    }

    #[test]
    fn a_release_is_the_same_each_time_and_can_be_read() {
        let made_files = made();
        assert!(made_files == made(), "two runs give other bytes");
        let [(archive, _), (bill, json), (package, content)] = &made_files[..] else { panic!() };
        assert_eq!(archive, &format!("etxtbsy-trace-{VERSION}-aarch64-unknown-linux-musl.tar.gz"));
        assert_eq!(bill, &format!("etxtbsy-trace-{VERSION}-aarch64-unknown-linux-musl.cdx.json"));
        assert_eq!(package, &format!("etxtbsy-trace-{VERSION}-1.aarch64.rpm"));

        let bill = Bom::parse_from_json_v1_5(&json[..]).unwrap();
        assert!(bill.validate().passed());
        let names: Vec<String> =
            bill.components.unwrap().0.iter().map(|it| it.name.to_string()).collect();
        assert!(names.iter().any(|name| name == "btf-rs"), "{names:?}");
        let places = String::from_utf8_lossy(json);
        assert!(!places.contains("path+file"), "it has paths of the build");

        let package = Package::parse(&mut &content[..]).unwrap();
        let paths = package.metadata.get_file_paths().unwrap();
        for path in [
            "/usr/bin/etxtbsy-trace",
            "/usr/lib/systemd/system/etxtbsy-trace.service",
            "/usr/share/man/man1/etxtbsy-trace-run.1.gz",
            "/usr/share/zsh/site-functions/_etxtbsy-trace",
            "/usr/share/doc/etxtbsy-trace/LICENSES-THIRD-PARTY.txt",
        ] {
            assert!(paths.iter().any(|it| it == Path::new(path)), "{path}: {paths:?}");
        }
    }
}
