//! Finds the package of the requested kernel, and its image and modules.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context as _, Result, bail};

use super::{
    arch::Arch,
    packages::{Package, Packages},
};
use crate::command::command;

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// The package's upstream version, such as `6.12.117`; with the architecture for arm64.
    pub(super) version: String,
    /// The requested version, if no suite has it.
    pub(super) instead_of: Option<String>,
    pub(super) image: PathBuf,
    pub(super) arch: Arch,
    /// `…/modules/RELEASE`
    modules: PathBuf,
}

impl Kernel {
    /// Fetches the newest kernel of that version, unless it is cached.
    pub(super) fn fetch(packages: &Packages, wanted: &str) -> Result<Self> {
        let (wanted, arch) = Arch::of(wanted);
        // The packages for virtual machines, which are the smallest.
        let flavour = format!("-cloud-{}", arch.debian());
        let images = packages.list("linux-image-", &flavour)?;
        let image = newest(&images, wanted)
            .or_else(|| closest(&images, wanted))
            .with_context(|| format!("no suite has a package linux-image-*{flavour}"))?;
        let upstream = image.version.split('-').next().unwrap_or(&image.version);
        let is_wanted = newest(&images, wanted).is_some();

        // From 7.2 on, the image is one of several packages of the same release.
        let release = image.name.trim_start_matches("linux-image-");
        let parts = packages.needs(image)?.into_iter().filter(|name| name.ends_with(release));
        let all: Vec<Package> = [image.name.clone()]
            .into_iter()
            .chain(parts)
            .map(|name| Package { name, version: image.version.clone() })
            .collect();
        let root = packages.unpacked(&all)?;
        Ok(Self {
            version: match arch {
                Arch::Amd64 => upstream.to_owned(),
                Arch::Arm64 => format!("{upstream}-arm64"),
            },
            arch,
            instead_of: (!is_wanted).then(|| wanted.to_owned()),
            image: find(&root, &|name| name.starts_with("vmlinuz"))
                .with_context(|| format!("no vmlinuz in {}", root.display()))?,
            modules: find(&root, &|name| name == release)
                .filter(|it| it.is_dir())
                .with_context(|| format!("no modules of {release} in {}", root.display()))?,
        })
    }

    /// Copies modules and their dependencies to a directory, and returns their names in load order. Skips
    /// missing modules, which may be built in.
    pub(super) fn copy_modules(
        &self,
        names: &[&str],
        to: &Path,
        busybox: &Path,
    ) -> Result<Vec<String>> {
        let mut order = Vec::new();
        for name in names {
            self.copy_module(name, to, busybox, &mut order)?;
        }
        Ok(order)
    }

    fn copy_module(
        &self,
        name: &str,
        to: &Path,
        busybox: &Path,
        order: &mut Vec<String>,
    ) -> Result<()> {
        let is_match = |file: &str| {
            file.split_once(".ko").is_some_and(|(stem, _)| stem.replace('-', "_") == name)
        };
        let Some(file) = find(&self.modules, &is_match) else { return Ok(()) };
        let module = read_module(&file, busybox)?;
        let plain = format!("{name}.ko");
        if order.contains(&plain) {
            return Ok(());
        }
        for needed in needs(&module) {
            self.copy_module(&needed, to, busybox, order)?;
        }
        fs::write(to.join(&plain), module)?;
        order.push(plain);
        Ok(())
    }
}

/// Reads a module, which may be compressed.
fn read_module(file: &Path, busybox: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(OsStr::to_str) {
        Some("ko") => Ok(fs::read(file)?),
        Some("xz") => {
            let unpacked =
                command(busybox).arg("xzcat").arg(file).stderr(Stdio::inherit()).output()?;
            if !unpacked.status.success() {
                bail!("`busybox xzcat {}` failed", file.display());
            }
            Ok(unpacked.stdout)
        }
        _ => bail!(
            "{} has an unknown compression: only .ko and .ko.xz are supported",
            file.display()
        ),
    }
}

/// The names of a module's dependencies: `depends=a,b` in its section `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(value);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// The first file or directory below `dir` whose name matches.
fn find(dir: &Path, is_match: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir).ok()?.flatten().map(|it| it.path()).collect();
    entries.sort();
    let named = |path: &PathBuf| path.file_name().and_then(OsStr::to_str).is_some_and(is_match);
    entries.iter().find(|path| named(path)).cloned().or_else(|| {
        entries
            .iter()
            .filter(|it| it.is_dir() && !it.is_symlink())
            .find_map(|it| find(it, is_match))
    })
}

/// The newest kernel of a version; `6.1` does not match `6.12`.
fn newest<'a>(images: &'a [Package], wanted: &str) -> Option<&'a Package> {
    let wanted = numbers(wanted);
    real(images)
        .filter(|image| numbers(&image.version).starts_with(&wanted))
        .max_by_key(|image| sort_key(image))
}

/// The newest kernel of the oldest series that is newer than the version; otherwise the newest of all.
fn closest<'a>(images: &'a [Package], wanted: &str) -> Option<&'a Package> {
    let wanted = numbers(wanted);
    let newer = real(images).filter(|image| numbers(&image.version) > wanted);
    let series = newer.map(|image| numbers(&image.version)[..2].to_vec()).min();
    match series {
        Some(series) => real(images)
            .filter(|image| numbers(&image.version).starts_with(&series))
            .max_by_key(|image| sort_key(image)),
        None => real(images).max_by_key(|image| sort_key(image)),
    }
}

/// The packages that contain a kernel: a metapackage only depends on one.
fn real(images: &[Package]) -> impl Iterator<Item = &Package> {
    images.iter().filter(|image| {
        let release = image.name.trim_start_matches("linux-image-");
        numbers(release).len() > 2 && numbers(&image.version).len() > 2
    })
}

/// A sort key: the version, and whether the package was not built for an older suite.
fn sort_key(image: &Package) -> (Vec<u64>, bool) {
    (numbers(&image.version), !image.version.contains('~'))
}

/// `6.12.117-1~deb12u1` → 6, 12, 117, 1
pub(super) fn numbers(version: &str) -> Vec<u64> {
    let end = version.find(|c: char| !c.is_ascii_digit() && !".-".contains(c));
    version[..end.unwrap_or(version.len())]
        .split(['.', '-'])
        .map_while(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(versions: &[(&str, &str)]) -> Vec<Package> {
        let image = |(release, version): &(&str, &str)| Package {
            name: format!("linux-image-{release}-cloud-amd64"),
            version: (*version).to_owned(),
        };
        versions.iter().map(image).collect()
    }

    fn served() -> Vec<Package> {
        images(&[
            ("6.1", "6.1.180-1~deb11u1"),
            ("6.1.0-55", "6.1.192-1"),
            ("6.1.0-56", "6.1.192-2"),
            ("6.1.0-9", "6.1.99-1"),
            ("6.12.117+deb12", "6.12.117-1~deb12u1"),
            ("6.12.117+deb13", "6.12.117-1"),
            ("6.12.94+deb13", "6.12.94-1"),
            ("6.19.6+deb13", "6.19.6-2~bpo13+1"),
            ("6.19.14+deb13", "6.19.14-1~bpo13+1"),
            ("7.2.13+deb14", "7.2.13-1"),
            ("7.3", "7.3~rc7-1~exp1"),
        ])
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (wanted, release) in [
            ("6.1", "6.1.0-56"),
            ("6.12", "6.12.117+deb13"),
            ("6.12.94", "6.12.94+deb13"),
            ("7", "7.2.13+deb14"),
        ] {
            let served = served();
            let found = newest(&served, wanted).unwrap();
            assert_eq!(found.name, format!("linux-image-{release}-cloud-amd64"), "{wanted}");
        }
        assert_eq!(newest(&served(), "6.18"), None);
    }

    #[test]
    fn a_missing_version_has_a_close_one() {
        let served = served();
        assert_eq!(closest(&served, "6.18").unwrap().version, "6.19.14-1~bpo13+1");
        assert_eq!(closest(&served, "5.10").unwrap().version, "6.1.192-2");
        assert_eq!(closest(&served, "8.1").unwrap().version, "7.2.13-1");
    }

    #[test]
    fn module_dependencies_are_parsed() {
        assert_eq!(
            needs(b"x\0license=GPL\0depends=virtio-ring,virtio\0y"),
            ["virtio_ring", "virtio"]
        );
        assert_eq!(needs(b"x\0depends=\0y"), [""; 0]);
        assert_eq!(needs(b"x"), [""; 0]);
    }
}
