//! Debian's packages, fetched and unpacked where nobody installs anything: apt with lists and a
//! cache of its own. It compares each package with the hash in the lists, and the lists with
//! Debian's signature.

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

/// Which suites have kernels, oldest first; true if there are security updates of it.
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

/// After which the lists are fetched again.
const STALE: Duration = Duration::from_secs(24 * 3600);

/// A package in one version.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
}

/// What all suites serve for an architecture, in a directory of ours.
#[derive(Clone)]
pub(super) struct Packages {
    dir: PathBuf,
    pub(super) arch: Arch,
}

impl Packages {
    /// With lists of today.
    pub(super) fn of_debian(dir: &Path, arch: Arch, mirror: Option<&str>) -> Result<Self> {
        ensure!(apt::exists(), "Debian's kernels are fetched by apt, which is not installed");
        let packages = Self { dir: dir.to_owned(), arch };
        fs::create_dir_all(packages.dir.join("lists/partial"))?;
        fs::create_dir_all(packages.dir.join("archives/partial"))?;
        if !Path::new(KEYRING).exists() {
            apt::install(&["debian-archive-keyring".to_owned()])?;
        }
        let mirror = mirror.map(str::to_owned).or_else(own_mirror).context(
            "this machine's apt has no mirror of Debian: \
             give one of https://www.debian.org/mirror/list with `--mirror URL`",
        )?;
        fs::write(packages.dir.join("sources.list"), sources(&mirror))?;
        packages.refresh()?;
        Ok(packages)
    }

    /// Fetches the lists if those here are not of that mirror, or not of today.
    fn refresh(&self) -> Result<()> {
        let stamp = self.dir.join("refreshed");
        let sources = fs::read(self.dir.join("sources.list"))?;
        let is_fresh = fs::read(&stamp).is_ok_and(|of| of == sources)
            && stamp.metadata()?.modified()?.elapsed().is_ok_and(|age| age < STALE);
        if is_fresh {
            return Ok(());
        }
        step("fetching the lists of packages of all suites of Debian, for their kernels");
        match run(self.apt("apt-get").args(["update", "--quiet"])) {
            Ok(()) => fs::write(stamp, sources)?,
            // A suite may be gone, or the network: what is there may do.
            Err(e) => eprintln!("    {e:#}; going on"),
        }
        Ok(())
    }

    /// An apt program that has nothing to do with what is installed here.
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

    /// All packages whose names begin and end so, in all versions.
    pub(super) fn list(&self, prefix: &str, suffix: &str) -> Result<Vec<Package>> {
        let names = output(self.apt("apt-cache").args(["pkgnames", prefix]))
            .context("`apt-cache pkgnames` failed")?;
        let names = names.lines().filter(|name| name.ends_with(suffix));
        let said = output(self.apt("apt-cache").arg("madison").args(names))
            .context("`apt-cache madison` failed")?;
        Ok(versions(&said))
    }

    /// The oldest package of a name: whatever belongs together is of the same suite.
    pub(super) fn oldest(&self, name: &str) -> Result<Package> {
        let mut all = self.list(name, "")?;
        all.retain(|package| package.name == name);
        all.pop().with_context(|| format!("no suite has the package {name}"))
    }

    /// The names of the packages that this one says it needs.
    pub(super) fn needs(&self, package: &Package) -> Result<Vec<String>> {
        let said =
            output(self.apt("apt-cache").args(["depends", "--important"]).arg(exact(package)))
                .with_context(|| format!("`apt-cache depends {}` failed", package.name))?;
        Ok(dependencies(&said))
    }

    /// The directory in which these packages are unpacked, all into one.
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

/// The directory in which a program of this machine's own distribution is unpacked, with all that
/// it needs and is not installed: another's program would need another's libraries.
pub(super) fn unpacked_program(package: &str, dir: &Path) -> Result<PathBuf> {
    let unpacked = dir.join(package);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    step(&format!("fetching {package} and what it needs; it is unpacked, not installed"));
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

/// Unpacks all packages of a directory, and removes them; whole, or not at all.
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

/// Leaves an empty directory, with what apt wants to find in it.
fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir)?;
    }
    fs::create_dir_all(dir.join("partial")).with_context(|| dir.display().to_string())
}

/// As apt takes it.
fn exact(package: &Package) -> String {
    format!("{}={}", package.name, package.version)
}

/// The mirror of Debian that this machine's apt uses.
fn own_mirror() -> Option<String> {
    let said = output(command("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN)|$(LABEL)|$(REPO_URI)",
    ]))?;
    let uri = said.lines().find_map(|line| line.strip_prefix("Debian|Debian|"))?;
    Some(uri.trim_end_matches('/').to_owned())
}

/// apt's list of sources. Security updates are beside the mirror's `debian`.
fn sources(mirror: &str) -> String {
    let line = |place: &str| format!("deb [signed-by={KEYRING}] {mirror}{place} main\n");
    let lines = SUITES.into_iter().flat_map(|(suite, has_security)| {
        let security = has_security.then(|| line(&format!("-security {suite}-security")));
        [line(&format!(" {suite}"))].into_iter().chain(security)
    });
    lines.collect()
}

/// What `apt-cache madison` says: `  name | version | where`.
fn versions(madison: &str) -> Vec<Package> {
    let package = |line: &str| {
        let mut columns = line.split('|').map(|column| column.trim().to_owned());
        Some(Package { name: columns.next()?, version: columns.next()? })
    };
    madison.lines().filter_map(package).collect()
}

/// What `apt-cache depends` says: `  Depends: name`, or ` |Depends: name` before an alternative.
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
    fn madison_has_a_package_a_line() {
        let said = "linux-image-a | 6.1.192-2 | http://mirror/debian bookworm/main amd64 Packages\n\
                    linux-image-b |   7.2.13-1 | http://mirror/debian sid/main amd64 Packages\n";
        let package =
            |name: &str, version: &str| Package { name: name.into(), version: version.into() };
        assert_eq!(
            versions(said),
            [package("linux-image-a", "6.1.192-2"), package("linux-image-b", "7.2.13-1")]
        );
    }

    #[test]
    fn security_updates_are_beside_the_mirror() {
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
    fn dependencies_are_names() {
        let said = "linux-image-x\n  PreDepends: linux-base\n |Depends: dracut\n  \
                    Depends: <linux-initramfs-tool>\n    dracut\n  Depends: linux-binary-x\n";
        assert_eq!(dependencies(said), ["dracut", "<linux-initramfs-tool>", "linux-binary-x"]);
    }
}
