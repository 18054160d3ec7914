//! Fetches and unpacks Debian's packages without installing them, by apt with its own lists and cache. Apt
//! checks each package's hash, and Debian's signature of the lists.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::arch::Arch;
use crate::{
    apt,
    command::{command, output, run, step},
};

/// The suites with kernels, oldest first; true for suites with security updates.
const SUITES: [(&str, bool); 7] = [
    ("bullseye", true),
    ("bookworm", true),
    ("bookworm-backports", false),
    ("trixie", true),
    ("trixie-backports", false),
    ("forky", false),
    ("sid", false),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The age after which the lists are fetched again.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A package in one version.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// The packages of all suites for an architecture, in a directory of this task.
#[derive(Clone)]
pub(super) struct Packages {
    dir: PathBuf,
    pub(super) arch: Arch,
}

impl Packages {
    /// Fetches the lists if they are old.
    pub(super) fn of_debian(dir: &Path, arch: Arch, mirror: Option<&str>) -> Result<Self> {
        ensure!(
            apt::exists(),
            "apt is not installed, and fetching Debian's kernels needs it: use a machine with apt"
        );
        let packages = Self { dir: dir.to_owned(), arch };
        fs::create_dir_all(packages.dir.join("lists/partial"))?;
        fs::create_dir_all(packages.dir.join("archives/partial"))?;
        if !Path::new(KEYRING).exists() {
            apt::install(&["debian-archive-keyring".to_owned()])?;
        }
        let mirror = mirror.map(str::to_owned).or_else(own_mirror).context(
            "this machine's apt has no Debian mirror: \
             choose one from https://www.debian.org/mirror/list with `--mirror URL`",
        )?;
        fs::write(packages.dir.join("sources.list"), sources(&mirror))?;
        packages.refresh()?;
        Ok(packages)
    }

    /// Fetches the lists if they are of another mirror, or old.
    fn refresh(&self) -> Result<()> {
        let stamp = self.dir.join("refreshed");
        let sources = fs::read(self.dir.join("sources.list"))?;
        let is_fresh = fs::read(&stamp).is_ok_and(|of| of == sources)
            && stamp.metadata()?.modified()?.elapsed().is_ok_and(|age| age < STALE);
        if is_fresh {
            return Ok(());
        }
        step("fetching the package lists of all Debian suites, for their kernels");
        match run(self.apt("apt-get").args(["update", "--quiet"])) {
            Ok(()) => fs::write(stamp, sources)?,
            // A suite or the network may be unavailable; the existing lists may suffice.
            Err(e) => eprintln!("    {e:#}; continuing"),
        }
        Ok(())
    }

    /// An apt program that ignores this machine's packages and sources.
    fn apt(&self, program: &str) -> Command {
        let mut apt = command(program);
        let own =
            |option: &str, name: &str| format!("-o{option}={}", self.dir.join(name).display());
        apt.env("LC_ALL", "C").arg(own("Dir::State::Lists", "lists")).args([
            own("Dir::Cache", "."),
            own("Dir::Etc::SourceList", "sources.list"),
            format!("-oAPT::Architecture={}", self.arch.debian()),
            format!("-oAPT::Architectures={}", self.arch.debian()),
            "-oDir::Etc::SourceParts=-".into(),
            "-oDir::State::Status=/dev/null".into(),
            "-oAcquire::Languages=none".into(),
            "-oAPT::Sandbox::User=root".into(),
        ]);
        apt
    }

    /// All packages with that prefix and suffix, in all versions.
    pub(super) fn list(&self, prefix: &str, suffix: &str) -> Result<Vec<Package>> {
        let names = output(self.apt("apt-cache").args(["pkgnames", prefix]))
            .context("`apt-cache pkgnames` failed")?;
        let names = names.lines().filter(|name| name.ends_with(suffix));
        let text = output(self.apt("apt-cache").arg("madison").args(names))
            .context("`apt-cache madison` failed")?;
        Ok(versions(&text))
    }

    /// The oldest version of a package, so that related packages come from the same suite.
    pub(super) fn oldest(&self, name: &str) -> Result<Package> {
        let mut all = self.list(name, "")?;
        all.retain(|package| package.name == name);
        all.pop().with_context(|| format!("no suite has the package {name}"))
    }

    /// The names of a package's dependencies.
    pub(super) fn needs(&self, package: &Package) -> Result<Vec<String>> {
        let text =
            output(self.apt("apt-cache").args(["depends", "--important"]).arg(exact(package)))
                .with_context(|| format!("`apt-cache depends {}` failed", package.name))?;
        Ok(dependencies(&text))
    }

    /// Unpacks these packages into one directory, and returns it.
    pub(super) fn unpacked(&self, packages: &[Package]) -> Result<PathBuf> {
        let first = packages.first().context("no package to unpack")?;
        let unpacked = self.dir.join(format!("{}_{}", first.name, first.version));
        if unpacked.exists() {
            return Ok(unpacked);
        }
        step(&format!("fetching {} {}", first.name, first.version));
        let archives = self.dir.join("archives");
        empty(&archives)?;
        run(self
            .apt("apt-get")
            .current_dir(&archives)
            .args(["download", "--quiet"])
            .args(packages.iter().map(exact)))?;
        unpack_all(&archives, &unpacked)?;
        Ok(unpacked)
    }
}

/// Unpacks a package of this machine's own distribution, with dependencies that are not installed, and
/// returns the directory. (Another distribution's program would need other libraries.)
pub(super) fn unpacked_program(package: &str, dir: &Path) -> Result<PathBuf> {
    let unpacked = dir.join(package);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    step(&format!("fetching {package} and its dependencies, which are unpacked and not installed"));
    let archives = dir.join("archives");
    let fetch = || {
        empty(&archives)?;
        run(command("apt-get")
            .args(["install", "--download-only", "--no-install-recommends", "-qq"])
            .arg(format!("-oDir::Cache::Archives={}", archives.display()))
            .args(["-oDebug::NoLocking=true", "-oAPT::Sandbox::User=root", package]))
    };
    fetch().or_else(|_| {
        apt::update();
        fetch()
    })?;
    unpack_all(&archives, &unpacked)?;
    Ok(unpacked)
}

/// Unpacks all packages of a directory, completely or not at all, and removes the archives.
fn unpack_all(archives: &Path, unpacked: &Path) -> Result<()> {
    let partial = unpacked.with_extension("partial");
    empty(&partial)?;
    let mut count = 0;
    for entry in fs::read_dir(archives)? {
        let archive = entry?.path();
        if archive.extension().is_some_and(|it| it == "deb") {
            let status =
                command("dpkg-deb").arg("--extract").args([&archive, &partial]).status()?;
            ensure!(status.success(), "`dpkg-deb --extract {}` failed", archive.display());
            count += 1;
        }
    }
    if count == 0 {
        bail!("apt fetched nothing into {}", archives.display());
    }
    fs::remove_dir_all(archives)?;
    fs::rename(partial, unpacked)?;
    Ok(())
}

/// Creates an empty directory with the subdirectory that apt expects.
fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir.join("partial")).with_context(|| dir.display().to_string())
}

/// The package and version, in apt's syntax.
fn exact(package: &Package) -> String {
    format!("{}={}", package.name, package.version)
}

/// The Debian mirror of this machine's apt.
fn own_mirror() -> Option<String> {
    let text = output(command("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
    ]))?;
    let uri = text.lines().find_map(|line| line.strip_prefix("Debian|Debian|"))?;
    Some(uri.trim_end_matches('/').to_owned())
}

/// Apt's list of sources. Security updates are in a directory next to the mirror's `debian`.
fn sources(mirror: &str) -> String {
    let line = |place: &str| format!("deb [signed-by={KEYRING}] {mirror}{place} main\n");
    let lines = SUITES.into_iter().flat_map(|(suite, has_security)| {
        let security = has_security.then(|| line(&format!("-security {suite}-security")));
        [line(&format!(" {suite}"))].into_iter().chain(security)
    });
    lines.collect()
}

/// Parses the output of `apt-cache madison`: `  name | version | source`.
fn versions(madison: &str) -> Vec<Package> {
    let package = |line: &str| {
        let mut columns = line.split('|').map(|column| column.trim().to_owned());
        Some(Package { name: columns.next()?, version: columns.next()? })
    };
    madison.lines().filter_map(package).collect()
}

/// Parses the output of `apt-cache depends`: `  Depends: name`, or ` |Depends: name` before an alternative.
fn dependencies(depends: &str) -> Vec<String> {
    depends
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '|']).strip_prefix("Depends: "))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn madison_output_is_parsed() {
        let text = "linux-image-a | 6.1.192-2 | http://mirror/debian bookworm/main amd64 Packages\n\
                    linux-image-b |   7.2.13-1 | http://mirror/debian sid/main amd64 Packages\n";
        let package =
            |name: &str, version: &str| Package { name: name.into(), version: version.into() };
        assert_eq!(
            versions(text),
            [package("linux-image-a", "6.1.192-2"), package("linux-image-b", "7.2.13-1")]
        );
    }

    #[test]
    fn sources_include_security_updates() {
        let sources = sources("http://mirror/debian");
        assert_eq!(sources.lines().count(), 10);
        for place in [
            "http://mirror/debian bookworm main",
            "http://mirror/debian-security bookworm-security main",
            "http://mirror/debian sid main",
        ] {
            let line = format!("deb [signed-by={KEYRING}] {place}");
            assert!(sources.lines().any(|it| it == line), "{line}");
        }
    }

    #[test]
    fn dependencies_are_parsed() {
        let text = "linux-image-x\n  PreDepends: linux-base\n |Depends: dracut\n  \
                    Depends: <linux-initramfs-tool>\n    dracut\n  Depends: linux-binary-x\n";
        assert_eq!(dependencies(text), ["dracut", "<linux-initramfs-tool>", "linux-binary-x"]);
    }
}
