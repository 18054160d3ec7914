//! The packages whose code is in the program for a target.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
};

use anyhow::{Context as _, Result};
use cargo_metadata::{
    CargoOpt, DependencyKind, Metadata, MetadataCommand, Node, Package, PackageId,
};

/// The eBPF programs.
const EBPF: &str = "etxtbsy-trace-ebpf";

/// What is linked, by name and version.
pub(crate) struct Linked {
    packages: Vec<Package>,
    /// What each of them needs, by their ids.
    needs: BTreeMap<PackageId, BTreeSet<PackageId>>,
}

impl Linked {
    /// What the program for a target contains.
    pub(crate) fn of(target: &str) -> Result<Self> {
        Self::by_cargo(target, &["etxtbsy-trace", EBPF])
    }

    /// What the compiled eBPF programs contain.
    pub(crate) fn of_objects() -> Result<Self> {
        Self::by_cargo("bpfel-unknown-none", &[EBPF])
    }

    fn by_cargo(target: &str, roots: &[&str]) -> Result<Self> {
        let mut command = MetadataCommand::new();
        if let Some(cargo) = env::var_os("CARGO") {
            command.cargo_path(cargo);
        }
        let metadata = command
            .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
            .features(CargoOpt::SomeFeatures(Vec::new()))
            .other_options(["--locked", "--filter-platform", target].map(str::to_owned).to_vec())
            .exec()
            .context("cargo metadata")?;
        Self::within(metadata, roots)
    }

    fn within(metadata: Metadata, roots: &[&str]) -> Result<Self> {
        let resolve = metadata.resolve.context("cargo resolves no dependencies")?;
        let nodes: BTreeMap<&PackageId, &Node> =
            resolve.nodes.iter().map(|node| (&node.id, node)).collect();
        let is_root = |package: &&Package| roots.contains(&package.name.as_str());
        let mut open: Vec<PackageId> =
            metadata.packages.iter().filter(is_root).map(|package| package.id.clone()).collect();
        let mut needs = BTreeMap::new();
        while let Some(id) = open.pop() {
            if needs.contains_key(&id) {
                continue;
            }
            let node = nodes.get(&id).with_context(|| format!("cargo resolves no {id}"))?;
            let normal = node.deps.iter().filter(|dependency| {
                dependency.dep_kinds.iter().any(|it| it.kind == DependencyKind::Normal)
            });
            let normal: BTreeSet<PackageId> = normal.map(|it| it.pkg.clone()).collect();
            open.extend(normal.iter().cloned());
            needs.insert(id, normal);
        }
        let mut packages = metadata.packages;
        packages.retain(|package| needs.contains_key(&package.id));
        packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok(Self { packages, needs })
    }

    /// All packages, the own ones included.
    pub(crate) fn packages(&self) -> &[Package] {
        &self.packages
    }

    /// The packages of others.
    pub(crate) fn of_others(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_some())
    }

    /// What a package needs.
    pub(crate) fn needs(&self, package: &Package) -> impl Iterator<Item = &PackageId> {
        self.needs.get(&package.id).into_iter().flatten()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_linked_and_what_only_tests_use_is_not() {
        let linked = Linked::of("x86_64-unknown-linux-gnu").unwrap();
        let names: BTreeSet<&str> =
            linked.packages().iter().map(|package| package.name.as_str()).collect();
        for name in ["aya", "aya-ebpf", "btf-rs", "etxtbsy-trace-common"] {
            assert!(names.contains(name), "{name}");
        }
        assert!(!names.contains("proptest"));
        assert!(linked.of_others().all(|package| !package.name.starts_with("etxtbsy")));
    }
}
