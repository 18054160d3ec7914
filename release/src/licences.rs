//! The licences of what a binary contains.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

use crate::linked::Linked;

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

/// What precedes the licences of the eBPF programs alone.
const OBJECTS_HEAD: &str = "\
The compiled eBPF programs contain the works below, and core of Rust (MIT or Apache-2.0).

";

/// The licences of the program.
pub(crate) fn of_program(linked: &Linked) -> Result<String> {
    text(linked, HEAD)
}

/// The licences of the compiled eBPF programs.
pub(crate) fn of_objects() -> Result<String> {
    text(&Linked::of_objects()?, OBJECTS_HEAD)
}

/// The text of the licences of all that is linked: a list, then each text once.
fn text(linked: &Linked, head: &str) -> Result<String> {
    let mut text = head.to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in linked.of_others() {
        let name = format!("{} {}", package.name, package.version);
        let licence = package.license.as_deref().unwrap_or("see its licence file");
        let address = package.repository.as_deref().unwrap_or_default();
        writeln!(text, "{name}: {licence}\n    {address}")?;
        let directory = package.manifest_path.parent().context("a manifest has no directory")?;
        for file in files(directory.as_std_path())? {
            texts.entry(file.trim().to_owned()).or_default().push(name.clone());
        }
    }
    for (licence, names) in texts {
        writeln!(text, "\n{}\n{}:\n\n{licence}", "-".repeat(80), names.join(", "))?;
    }
    Ok(text)
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn licences_that_ask_for_their_text_are_there() {
        let text = of_program(&Linked::of("x86_64-unknown-linux-gnu").unwrap()).unwrap();
        for words in
            ["btf-rs 2", "GNU LESSER GENERAL PUBLIC LICENSE", "Mozilla Public License", "aya-ebpf "]
        {
            assert!(text.contains(words), "{words}");
        }
        let objects = of_objects().unwrap();
        assert!(objects.contains("aya-ebpf ") && !objects.contains("btf-rs"), "{objects}");
    }
}
