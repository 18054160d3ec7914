//! The direction of imports within a crate: its rooms, the modules at its root, are floors of a house, and
//! each imports only from those below it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
};

/// A module, as the names that lead to it from the root of its crate.
type Module = Vec<String>;

/// The modules of a crate, and the paths that each of them names in its code.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// What stands against `rooms`, which has the modules at the root of a crate, the highest first; one line
/// each. `source` is the crate's `src`.
fn upward_imports(source: &Path, rooms: &[&str]) -> io::Result<Vec<String>> {
    let floor = |module: &Module| {
        module.first().and_then(|name| rooms.iter().position(|room| room == name))
    };
    let mut found = Vec::new();
    for (module, paths) in imports(source)? {
        if module.is_empty() {
            continue;
        }
        let Some(own) = floor(&module) else {
            found.push(format!("{} has no floor: add it to the list", module[0]));
            continue;
        };
        for path in paths {
            if floor(&path).is_some_and(|other| other < own) {
                found.push(format!("{} imports {}", module.join("::"), path.join("::")));
            }
        }
    }
    found.dedup();
    Ok(found)
}

/// The circles between modules that lie in one folder; one line each.
fn circles(source: &Path) -> io::Result<Vec<String>> {
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
        // Whatever stands on nothing that is left goes; what remains stands on itself.
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

/// The name after `folder` in the path of a module that is in it.
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

/// The paths in the code of a file that begin with `crate` or `super`, from the root of the crate on.
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
        let start = before.rfind(|it: char| !is_of_name(it)).map_or(0, |at| at + 1);
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

/// Reads what follows a path: names, and groups of them in braces. Gives what comes after that.
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
            // `*`, or `as`: nothing that a path has.
            rest = if after.len() == rest.len() { &rest[1..] } else { after };
        }
    }
    let end = text.find(|it: char| !is_of_name(it)).unwrap_or(text.len());
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

fn is_of_name(it: char) -> bool {
    it.is_alphanumeric() || it == '_'
}

/// The rooms of `etxtbsy-trace-ebpf`, the highest first. The head of its `main.rs` says what each is for.
const EBPF: [&str; 10] = [
    "hooks",
    "iters",
    "queries",
    "failure",
    "holds",
    "emit",
    "tree",
    "bounded_loop",
    "kernel",
    "maps",
];

/// The rooms of the program, the highest first.
const PROGRAM: [&str; 14] = [
    "main", "cli", "demo", "check", "tui", "session", "output", "timeline", "analysis", "command",
    "tracer", "host", "event", "text",
];

const PROGRAM_SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../etxtbsy-trace/src");

const EBPF_SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../etxtbsy-trace-ebpf/src");

#[test]
fn the_ebpf_programs_import_downwards_only() {
    assert_eq!(upward_imports(Path::new(EBPF_SOURCE), &EBPF).unwrap(), [""; 0]);
}

#[test]
fn no_modules_of_the_ebpf_programs_import_each_other_in_a_circle() {
    assert_eq!(circles(Path::new(EBPF_SOURCE)).unwrap(), [""; 0]);
}

#[test]
fn the_program_imports_downwards_only() {
    assert_eq!(upward_imports(Path::new(PROGRAM_SOURCE), &PROGRAM).unwrap(), [""; 0]);
}

#[test]
fn no_modules_of_the_program_import_each_other_in_a_circle() {
    assert_eq!(circles(Path::new(PROGRAM_SOURCE)).unwrap(), [""; 0]);
}

#[test]
fn upward_imports_and_circles_are_found() {
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
        ["low::a imports high::f", "new has no floor: add it to the list"]
    );
    assert_eq!(
        circles(crate_.path()).unwrap(),
        [
            r#"in crate::: {"high": {"low"}, "low": {"high"}}"#,
            r#"in crate::low: {"a": {"b"}, "b": {"a"}}"#
        ]
    );
}
