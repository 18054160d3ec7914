//! The licences of what a binary contains.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::Path,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::command::cargo;

const EBPF: &str = "etxtbsy-trace-ebpf";

/// What precedes the licences of the program.
const HEAD: &str = "\
The program etxtbsy-trace contains the works below, and the standard library of Rust (MIT or
Apache-2.0) and musl (MIT).

btf-rs and btf-rs-derive (LGPL-2.1-or-later) are linked statically. Whoever has this program may
replace them: the complete sources of etxtbsy-trace, and how to build it, are at
https://github.com/etxtbsy-trace/etxtbsy-trace under the tag of this version. In its Cargo.toml,
[patch.crates-io] names another btf-rs; `cargo xtask dist` links the program again.

nucleo-matcher (MPL-2.0) is unchanged. Its sources are at the address below.

";

const OBJECTS_HEAD: &str = "\
The compiled eBPF programs contain the works below, and core of Rust (MIT or Apache-2.0).

";

/// The text of the licences of all that is linked for a target.
pub(super) fn of(target: &str) -> Result<String> {
    text(&metadata(target)?, HEAD, &["etxtbsy-trace", EBPF])
}

/// The same for the eBPF programs alone.
pub(crate) fn of_objects() -> Result<String> {
    text(&metadata("bpfel-unknown-none")?, OBJECTS_HEAD, &[EBPF])
}

/// The packages of the workspace and their dependencies.
fn metadata(target: &str) -> Result<Value> {
    let metadata = cargo(["metadata", "--locked", "--format-version=1", "--filter-platform"])
        .arg(target)
        .output()
        .context("cannot start cargo")?;
    ensure!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    serde_json::from_slice(&metadata.stdout).context("cargo metadata")
}

fn text(metadata: &Value, head: &str, roots: &[&str]) -> Result<String> {
    let packages = list(&metadata["packages"]);
    let linked = linked(metadata, roots);
    let mut text = head.to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages.iter().filter(|package| linked.contains(string(&package["id"]))) {
        if package["source"].is_null() {
            continue;
        }
        let name = format!("{} {}", string(&package["name"]), string(&package["version"]));
        let licence = package["license"].as_str().unwrap_or("see its licence file");
        let address = string(&package["repository"]);
        writeln!(text, "{name}: {licence}\n    {address}")?;
        let manifest = Path::new(string(&package["manifest_path"]));
        let files = files(manifest.parent().context("a manifest has no directory")?)?;
        for file in files {
            texts.entry(file.trim().to_owned()).or_default().push(name.clone());
        }
    }
    for (licence, names) in texts {
        writeln!(text, "\n{}\n{}:\n\n{licence}", "-".repeat(80), names.join(", "))?;
    }
    Ok(text)
}

/// The ids of the packages whose code is in these.
fn linked<'a>(metadata: &'a Value, roots: &[&str]) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"])
        .iter()
        .map(|node| (string(&node["id"]), node))
        .collect();
    let mut open: Vec<&str> = list(&metadata["packages"])
        .iter()
        .filter(|package| roots.contains(&string(&package["name"])))
        .map(|package| string(&package["id"]))
        .collect();
    let mut found = BTreeSet::new();
    while let Some(id) = open.pop() {
        let Some(node) = nodes.get(id).filter(|_| found.insert(id)) else { continue };
        let is_normal = |dependency: &&Value| {
            list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null())
        };
        let dependencies = list(&node["deps"]).iter().filter(is_normal);
        open.extend(dependencies.map(|dependency| string(&dependency["pkg"])));
    }
    found
}

/// The licence texts in the directory of a package.
fn files(directory: &Path) -> Result<Vec<String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_uppercase();
        let is_licence =
            ["LICENSE", "LICENCE", "COPYING", "NOTICE"].iter().any(|word| name.starts_with(word));
        if is_licence && path.is_file() {
            found.insert(name, String::from_utf8_lossy(&fs::read(&path)?).into_owned());
        }
    }
    Ok(found.into_values().collect())
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_that_ask_for_their_text_are_there() {
        let text = of("x86_64-unknown-linux-gnu").unwrap();
        for words in
            ["btf-rs 2", "GNU LESSER GENERAL PUBLIC LICENSE", "Mozilla Public License", "aya-ebpf "]
        {
            assert!(text.contains(words), "{words}");
        }
        let objects = of_objects().unwrap();
        assert!(objects.contains("aya-ebpf ") && !objects.contains("btf-rs"), "{objects}");
        // Only the tests use it.
        assert!(!text.contains("proptest"));
    }
}
