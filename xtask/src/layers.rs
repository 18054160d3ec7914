//! Tests the direction of imports within a crate: the modules at its root are layers, and each imports only
//! from lower ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// The path of a module from the root of its crate.
type Module = Vec<String>;

/// The modules of a crate, and the paths that the code of each names.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// The imports from a higher layer, one line each. `layers` has the modules at the root of the crate, the
/// highest first; `source` is the crate's `src`.
fn upward_imports(source: &Path, layers: &[&str]) -> io::Result<Vec<String>> {
    let layer_of = |module: &Module| {
        module.first().and_then(|name| layers.iter().position(|layer| layer == name))
    };
    let mut found = Vec::new();
    for (module, paths) in imports(source)? {
        if module.is_empty() {
            continue;
        }
        let Some(own) = layer_of(&module) else {
            found.push(format!("{} has no layer: add it to the list", module[0]));
            continue;
        };
        for path in paths {
            if layer_of(&path).is_some_and(|other| other < own) {
                found.push(format!("{} imports {}", module.join("::"), path.join("::")));
            }
        }
    }
    found.dedup();
    Ok(found)
}

/// The import cycles between modules in one folder, one line each.
fn cycles(source: &Path) -> io::Result<Vec<String>> {
    let imports = imports(source)?;
    let folders: BTreeSet<&[String]> =
        imports.keys().filter_map(|module| Some(module.split_last()?.1)).collect();
    let mut found = Vec::new();
    for folder in folders {
        let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (module, paths) in &imports {
            let Some(own) = child(folder, module) else { continue };
            let others = paths.iter().filter_map(|path| child(folder, path));
            let others = others.filter(|other| {
                *other != own && imports.contains_key(&[folder, &[(*other).to_owned()]].concat())
            });
            below.entry(own).or_default().extend(others);
        }
        // Removes modules that import none of the others, until only cycles are left.
        while let Some(lowest) =
            below.iter().find(|(_, on)| on.iter().all(|it| !below.contains_key(it)))
        {
            let lowest = *lowest.0;
            below.remove(lowest);
        }
        if !below.is_empty() {
            found.push(format!("in crate::{}: {below:?}", folder.join("::")));
        }
    }
    Ok(found)
}

/// The name after `folder` in the path of a module in that folder.
fn child<'a>(folder: &[String], module: &'a [String]) -> Option<&'a str> {
    Some(module.strip_prefix(folder)?.first()?)
}

fn imports(source: &Path) -> io::Result<Imports> {
    let mut found = Imports::new();
    collect(source, &[], &mut found)?;
    Ok(found)
}

fn collect(folder: &Path, module: &[String], found: &mut Imports) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            collect(&path, &[module, &[name]].concat(), found)?;
        } else if path.extension().is_some_and(|it| it == "rs") && name != "tests" {
            let is_folders = matches!(name.as_str(), "mod" | "lib" | "main");
            let own = if is_folders { module.to_vec() } else { [module, &[name]].concat() };
            let paths = paths(&fs::read_to_string(&path)?, &own);
            found.entry(own).or_default().extend(paths);
        }
    }
    Ok(())
}

/// The paths in the code of a file that begin with `crate` or `super`, from the root of the crate.
fn paths(text: &str, module: &[String]) -> BTreeSet<Module> {
    let code: String = text
        .split("#[cfg(test)]\nmod ")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join(" ");
    let mut found = BTreeSet::new();
    let mut rest = code.as_str();
    while let Some(at) = rest.find("::") {
        let before = &rest[..at];
        let start = before.rfind(|it: char| !is_name_char(it)).map_or(0, |at| at + 1);
        let mut base = match &before[start..] {
            "crate" => Vec::new(),
            "super" => module[..module.len().saturating_sub(1)].to_vec(),
            _ => {
                rest = &rest[at + 2..];
                continue;
            }
        };
        rest = &rest[at + 2..];
        while let Some(above) = rest.strip_prefix("super::") {
            base.pop();
            rest = above;
        }
        rest = leaves(rest, &base, &mut found);
    }
    found
}

/// Parses what follows a path: names, and groups in braces. Returns the rest of the text.
fn leaves<'a>(text: &'a str, base: &[String], found: &mut BTreeSet<Module>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start().trim_start_matches(',').trim_start();
            match rest.strip_prefix('}') {
                Some(after) => return after,
                None if rest.is_empty() => return rest,
                None => {}
            }
            let after = leaves(rest, base, found);
            // Skips a character that is not part of a path, as in `*` or `as`.
            rest = if after.len() == rest.len() { &rest[1..] } else { after };
        }
    }
    let end = text.find(|it: char| !is_name_char(it)).unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name == "self" {
        found.insert(base.to_vec());
        return rest;
    }
    let path = [base, &[name.to_owned()]].concat();
    if let Some(rest) = rest.strip_prefix("::") {
        return leaves(rest, &path, found);
    }
    found.insert(path);
    rest
}

fn is_name_char(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

/// The layers of `etxtbsy-trace-ebpf`, the highest first. The head of its `main.rs` describes each.
const EBPF: [&str; 11] = [
    "hooks",
    "iters",
    "queries",
    "failure",
    "holds",
    "emit",
    "stacks",
    "tree",
    "bounded_loop",
    "kernel",
    "maps",
];

/// The layers of the program, the highest first.
const PROGRAM: [&str; 17] = [
    "main", "cli", "demo", "check", "tui", "hunt", "session", "report", "output", "timeline",
    "analysis", "command", "provoke", "tracer", "host", "event", "text",
];

const PROGRAM_SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../etxtbsy-trace/src");

const EBPF_SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../etxtbsy-trace-ebpf/src");

#[test]
fn ebpf_modules_import_only_lower_layers() {
    assert_eq!(upward_imports(Path::new(EBPF_SOURCE), &EBPF).unwrap(), [""; 0]);
}

#[test]
fn ebpf_modules_have_no_import_cycles() {
    assert_eq!(cycles(Path::new(EBPF_SOURCE)).unwrap(), [""; 0]);
}

#[test]
fn program_modules_import_only_lower_layers() {
    assert_eq!(upward_imports(Path::new(PROGRAM_SOURCE), &PROGRAM).unwrap(), [""; 0]);
}

#[test]
fn program_modules_have_no_import_cycles() {
    assert_eq!(cycles(Path::new(PROGRAM_SOURCE)).unwrap(), [""; 0]);
}

#[test]
fn upward_imports_and_cycles_are_detected() {
    let crate_ = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(crate_.path().join(name), text).unwrap();
    fs::create_dir(crate_.path().join("low")).unwrap();
    write("main.rs", "mod high; mod low;");
    write("high.rs", "use crate::{low::{a, b::B}};\n// crate::nothing::at_all");
    write("low/mod.rs", "mod a; mod b;");
    write("low/a.rs", "use super::b::{self, B};\nfn f() { crate::high::f() }");
    write("low/b.rs", "use super::a;\n#[cfg(test)]\nmod tests { use crate::high; }");
    write("new.rs", "");
    assert_eq!(
        upward_imports(crate_.path(), &["high", "low"]).unwrap(),
        ["low::a imports high::f", "new has no layer: add it to the list"]
    );
    assert_eq!(
        cycles(crate_.path()).unwrap(),
        [
            r#"in crate::: {"high": {"low"}, "low": {"high"}}"#,
            r#"in crate::low: {"a": {"b"}, "b": {"a"}}"#
        ]
    );
}
