//! `cargo xtask package`: the packages of the crates that are published.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::{
    command::{cargo, command, output, run, shown, step, target_dir},
    dist::{self, NAME, TARGETS, VERSION},
    target,
};

/// The crates that are published.
const PUBLISHED: [&str; 5] =
    ["etxtbsy-stacks", "etxtbsy-trace-common", "etxtbsy-trace-event", NAME, "etxtbsy-workload"];
/// What [`NAME`]'s build script makes, and takes from a package.
const OBJECTS: [&str; 2] = ["etxtbsy-trace-ebpf", "etxtbsy-trace-ebpf-cast"];
/// Where the build script looks in a package; git ignores it.
const PREBUILT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../etxtbsy-trace/prebuilt");

/// Files by their paths below [`PREBUILT`].
type Prebuilt = BTreeMap<String, Vec<u8>>;

/// Arguments of `cargo xtask package`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Publish the packages after the checks
    #[arg(long)]
    publish: bool,
}

/// Makes the packages, into `target/package`, and builds each from its package alone.
pub(crate) fn run_package(args: &Args) -> Result<()> {
    let changes = output(command("git").args(["status", "--porcelain"]));
    let commit = output(command("git").args(["rev-parse", "HEAD"]));
    let (changes, commit) =
        changes.zip(commit).context("this is no git repository with a commit")?;
    ensure!(changes.is_empty(), "packages are of a commit, and these differ from it:\n{changes}");
    let mut prebuilt = Prebuilt::from([
        ("commit".to_owned(), commit.into_bytes()),
        ("LICENSES-THIRD-PARTY.txt".to_owned(), licences()?),
    ]);
    for target in TARGETS {
        step(&format!("building the eBPF programs for {target}"));
        let architecture = target.split('-').next().unwrap_or_default();
        let out_dir = out_dir(target)?;
        for object in OBJECTS {
            let content = fs::read(out_dir.join(object))?;
            prebuilt.insert(format!("{architecture}/{object}"), content);
        }
    }
    let _in_place = InPlace::write(&prebuilt, Path::new(PREBUILT))?;
    step("making the packages, and building what is in them");
    run(&mut on_published("package"))?;
    let place = target_dir()?.join("package");
    let packaged = prebuilt_in(&fs::read(place.join(format!("{NAME}-{VERSION}.crate")))?)?;
    ensure!(packaged == prebuilt, "the package of {NAME} has other eBPF programs than were built");
    step(&format!("ready, in {}:", place.display()));
    for name in PUBLISHED {
        println!("{name}-{VERSION}.crate");
    }
    if args.publish {
        step("publishing the packages");
        run(on_published("publish").arg("--no-verify"))?;
    }
    Ok(())
}

/// The licences of the eBPF programs.
fn licences() -> Result<Vec<u8>> {
    let mut licences = dist::release("licences-of-objects");
    let printed = licences.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    ensure!(printed.status.success(), "`{}` failed: {}", shown(&licences), printed.status);
    Ok(printed.stdout)
}

/// A subcommand of cargo for the published crates.
fn on_published(subcommand: &str) -> Command {
    // Cargo has no other way to take in what git ignores.
    let mut cargo = cargo([subcommand, "--locked", "--allow-dirty"]);
    cargo.args(PUBLISHED.iter().flat_map(|name| ["--package", name]));
    cargo
}

/// Where the build script of [`NAME`] has put the objects for a target.
fn out_dir(target: &str) -> Result<PathBuf> {
    target::ensure(target)?;
    let mut check = cargo(["check", "--release", "--locked", "--message-format=json"]);
    check.args(["--package", NAME, "--lib", "--target", target]).stderr(Stdio::inherit());
    let checked = check.output().context("cannot start cargo")?;
    ensure!(checked.status.success(), "`{}` failed: {}", shown(&check), checked.status);
    let package = format!("/{NAME}#{VERSION}");
    let messages = checked.stdout.split(|byte| *byte == b'\n');
    messages
        .filter_map(|line| serde_json::from_slice::<Value>(line).ok())
        .filter(|message| message["reason"] == "build-script-executed")
        .filter(|message| message["package_id"].as_str().is_some_and(|id| id.ends_with(&package)))
        .find_map(|message| Some(message["out_dir"].as_str()?.into()))
        .context("cargo does not say where the eBPF programs are")
}

/// The prebuilt files where cargo packages them; removed at the end, so that no later package has old ones.
struct InPlace<'a>(&'a Path);

impl<'a> InPlace<'a> {
    fn write(files: &Prebuilt, place: &'a Path) -> Result<Self> {
        // Of a run that was killed.
        if place.exists() {
            fs::remove_dir_all(place)
                .with_context(|| format!("cannot empty {}", place.display()))?;
        }
        let written = Self(place);
        for (path, content) in files {
            let path = place.join(path);
            fs::create_dir_all(path.parent().unwrap_or(place))?;
            fs::write(&path, content)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(written)
    }
}

impl Drop for InPlace<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(self.0);
    }
}

/// The prebuilt files in a package.
fn prebuilt_in(package: &[u8]) -> Result<Prebuilt> {
    let below = format!("{NAME}-{VERSION}/prebuilt");
    let mut found = Prebuilt::new();
    for entry in tar::Archive::new(GzDecoder::new(package)).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.into_owned();
        if let Ok(path) = path.strip_prefix(&below) {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            found.insert(path.display().to_string(), content);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::archive_name;

    fn metadata() -> Value {
        let metadata =
            output(&mut cargo(["metadata", "--locked", "--no-deps", "--format-version=1"]));
        serde_json::from_str(&metadata.unwrap()).unwrap()
    }

    #[test]
    fn exactly_the_published_crates_may_be_published() {
        let metadata = metadata();
        let packages = metadata["packages"].as_array().unwrap();
        let published = packages.iter().filter(|package| package["publish"].is_null());
        let names: Vec<&str> = published.map(|package| package["name"].as_str().unwrap()).collect();
        assert_eq!(names, PUBLISHED);
    }

    #[test]
    fn packages_have_their_build_script_and_licences() {
        for name in PUBLISHED {
            let list = cargo(["package", "--locked", "--allow-dirty", "--list", "--package", name])
                .output()
                .unwrap();
            assert!(list.status.success(), "{}", String::from_utf8_lossy(&list.stderr));
            let list = String::from_utf8(list.stdout).unwrap();
            let has = |path| list.lines().any(|line| line == path);
            assert!(has("LICENSE-MIT") && has("LICENSE-APACHE"), "{list}");
            if name == NAME {
                assert!(has("README.md") && has("build/toolchain.rs"), "{list}");
                assert!(!list.contains("tests/"), "{list}");
            }
        }
    }

    /// What cargo-binstall downloads, and the program in it, are what `cargo xtask dist` makes.
    #[test]
    fn binstall_finds_the_archives_of_a_release() {
        let metadata = metadata();
        let packages = metadata["packages"].as_array().unwrap();
        let package = packages.iter().find(|package| package["name"] == NAME).unwrap();
        let binstall = &package["metadata"]["binstall"];
        for target in TARGETS {
            for built in [target.to_owned(), target.replace("musl", "gnu")] {
                let own = &binstall["overrides"][&built];
                let expand = |key: &str| {
                    let value = if own[key].is_null() { &binstall[key] } else { &own[key] };
                    let values = [
                        ("{ repo }", package["repository"].as_str().unwrap()),
                        ("{ name }", NAME),
                        ("{ bin }", NAME),
                        ("{ version }", VERSION),
                        ("{ target }", &built),
                    ];
                    values.iter().fold(value.as_str().unwrap().to_owned(), |text, (name, value)| {
                        text.replace(name, value)
                    })
                };
                let archive = archive_name(target);
                let url = expand("pkg-url");
                assert!(
                    url.ends_with(&format!("/releases/download/v{VERSION}/{archive}.tar.gz")),
                    "{url}"
                );
                assert_eq!(expand("bin-dir"), format!("{archive}/{NAME}"));
                assert_eq!(expand("pkg-fmt"), "tgz");
            }
        }
    }
}
