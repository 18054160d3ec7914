//! What a program is written in: its advice differs.
//!
//! [`recognise`] decides by the name of the executable, the files that the process maps, and what
//! the ELF file itself shows; [`Runtimes`] reads these of a live process.

use std::{
    collections::HashMap,
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _},
};

use crate::{event::Runtime, host::proc_file::read_begin};

/// How many executables are remembered; nobody runs more on one machine in a short time.
const MOST: usize = 1024;
/// How many bytes of the list of a process's mappings are read: some 40,000 of them.
const MOST_MAPS: usize = 4 << 20;
/// Limits for what an ELF file says of itself.
const MOST_SECTIONS: usize = 4096;
const MOST_BYTES: u64 = 1 << 20;

/// What is known of a process's program.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits<'a> {
    /// The path of its executable.
    pub exe: &'a str,
    /// Its name.
    pub comm: &'a str,
    /// The files that it maps.
    pub mapped: &'a [&'a str],
    /// What its ELF file shows.
    pub elf: ElfFacts,
}

/// What the sections of an ELF file show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ElfFacts {
    /// Go's linker made it (`.go.buildinfo`, `.note.go.buildid`).
    pub go: bool,
    /// `rustc` compiled a part of it (`.comment`).
    pub rust: bool,
    /// It was read.
    pub read: bool,
}

/// What a program is written in; `None` if too little is known of it.
///
/// The name of the executable comes first, for an interpreter is written in C itself. A virtual
/// machine or interpreter that is a library comes before the language of the program it is part of.
#[must_use]
pub fn recognise(traits: &Traits<'_>) -> Option<Runtime> {
    if let Some(runtime) = by_name(traits.exe, traits.comm) {
        return Some(runtime);
    }
    let maps = |library: &str| {
        let is = |path: &&str| base(path).strip_prefix(library).is_some_and(is_version);
        traits.mapped.iter().any(is)
    };
    let libraries = [
        ("libjvm", Runtime::Jvm),
        ("libnode", Runtime::Node),
        ("libpython", Runtime::Python),
        ("libpypy", Runtime::Python),
    ];
    let library = libraries.into_iter().find(|(library, _)| maps(library));
    match library {
        Some((_, runtime)) => Some(runtime),
        None if traits.elf.go => Some(Runtime::Go),
        None if traits.elf.rust => Some(Runtime::Rust),
        None if traits.elf.read => Some(Runtime::Native),
        None => None,
    }
}

/// What the name of an executable says; `comm` names the applet of a multi-call executable.
#[must_use]
pub fn by_name(exe: &str, comm: &str) -> Option<Runtime> {
    const SHELLS: [&str; 14] = [
        "sh", "bash", "dash", "ash", "zsh", "ksh", "ksh93", "mksh", "lksh", "rbash", "fish",
        "yash", "posh", "hush",
    ];
    let name = base(exe.strip_suffix(" (deleted)").unwrap_or(exe));
    let name = if ["busybox", "busybox.static", "toybox"].contains(&name) { comm } else { name };
    let numbered = |stem: &str| name.strip_prefix(stem).is_some_and(is_version);
    if SHELLS.contains(&name) {
        Some(Runtime::Shell)
    } else if name == "java" {
        Some(Runtime::Jvm)
    } else if numbered("node") || numbered("nodejs") {
        Some(Runtime::Node)
    } else if numbered("python") || numbered("pypy") {
        Some(Runtime::Python)
    } else {
        None
    }
}

/// Whether only a version follows a name: `3.11`, `-18`, `3.so.1.0`, `3.11d`.
fn is_version(rest: &str) -> bool {
    let rest = rest.replace(".so", "");
    !rest.contains(|c: char| !c.is_ascii_digit() && !".-dmut".contains(c))
}

/// The last component of a path.
fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Recognises live processes, each executable once.
#[derive(Debug, Default)]
pub struct Runtimes {
    /// By device and inode number of the executable, and the name of the process.
    known: HashMap<(u64, u64, String), Option<Runtime>>,
}

impl Runtimes {
    /// What the program of a live process is written in, by the pid it has here.
    pub fn of(&mut self, pid: u32) -> Option<Runtime> {
        let link = format!("/proc/{pid}/exe");
        let file = std::fs::metadata(&link).ok()?;
        let comm = std::fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let comm = String::from_utf8_lossy(comm.trim_ascii_end()).into_owned();
        let key = (file.dev(), file.ino(), comm);
        if let Some(runtime) = self.known.get(&key) {
            return *runtime;
        }
        let exe = std::fs::read_link(&link).ok()?;
        let maps = read_begin(&format!("/proc/{pid}/maps"), MOST_MAPS).unwrap_or_default();
        let maps = String::from_utf8_lossy(&maps);
        // address perms offset dev inode path
        let mapped: Vec<&str> =
            maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..])).collect();
        let runtime = recognise(&Traits {
            exe: &exe.to_string_lossy(),
            comm: &key.2,
            mapped: &mapped,
            elf: File::open(&link).ok().and_then(|file| elf_facts(&file)).unwrap_or_default(),
        });
        // One that ended meanwhile has shown too little.
        if runtime.is_some() {
            if self.known.len() >= MOST {
                self.known.clear();
            }
            self.known.insert(key, runtime);
        }
        runtime
    }

    /// The same of a process that has ended, by its executable and that one's path. What it had mapped is not
    /// known: `None` if that might matter.
    #[must_use]
    pub fn of_executable(&self, file: &File, path: &[u8]) -> Option<Runtime> {
        let facts = file.metadata().ok()?;
        let is_it =
            |(dev, ino, _): &&(u64, u64, String)| (*dev, *ino) == (facts.dev(), facts.ino());
        if let Some(key) = self.known.keys().find(is_it) {
            return self.known.get(key).copied().flatten();
        }
        let (exe, elf) = (String::from_utf8_lossy(path), elf_facts(file).unwrap_or_default());
        let runtime = recognise(&Traits { exe: &exe, elf, ..Traits::default() });
        runtime.filter(|runtime| *runtime != Runtime::Native)
    }
}

/// What the sections of a 64-bit ELF file show; `None` if it is none.
fn elf_facts(file: &File) -> Option<ElfFacts> {
    let read = |at: u64, size: u64| {
        let mut bytes = vec![0; usize::try_from(size.min(MOST_BYTES)).ok()?];
        file.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    };
    let header = read(0, 64)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    // e_shoff, e_shentsize, e_shnum, e_shstrndx
    let (table, size) = (word(&header, 40, 8)?, word(&header, 58, 2)?);
    let (number, names) = (word(&header, 60, 2)?, word(&header, 62, 2)?);
    if size != 64 || number as usize > MOST_SECTIONS {
        return Some(ElfFacts { read: true, ..ElfFacts::default() });
    }
    let sections = read(table, number * size)?;
    let sections: Vec<&[u8]> = sections.chunks_exact(64).collect();
    // sh_offset, sh_size
    let part = |section: &[u8]| read(word(section, 24, 8)?, word(section, 32, 8)?);
    let names = sections.get(names as usize).and_then(|section| part(section)).unwrap_or_default();
    let mut facts = ElfFacts { read: true, ..ElfFacts::default() };
    for section in sections {
        let at = word(section, 0, 4).unwrap_or(0) as usize;
        let name = names.get(at..).unwrap_or_default();
        match name.split(|byte| *byte == 0).next() {
            Some(b".go.buildinfo" | b".note.go.buildid" | b".gopclntab") => facts.go = true,
            Some(b".comment") => {
                let comment = part(section).unwrap_or_default();
                facts.rust |= comment.windows(5).any(|word| word == b"rustc");
            }
            _ => {}
        }
    }
    Some(facts)
}

/// A little-endian number of `size` bytes.
fn word(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + size)?;
    Some(bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    /// This test is written in Rust, and a C program may have mapped anything.
    #[test]
    fn the_program_of_a_process_that_has_ended_is_known_by_its_file() {
        let known = |path: &str| {
            let file = File::open(path).unwrap();
            Runtimes::default().of_executable(&file, path.as_bytes())
        };
        assert_eq!(known("/proc/self/exe"), Some(Runtime::Rust));
        assert_eq!(known("/bin/sh"), Some(Runtime::Shell));
        assert_eq!(known("/bin/true"), None);
    }

    const GO: ElfFacts = ElfFacts { go: true, rust: false, read: true };
    const RUST: ElfFacts = ElfFacts { go: false, rust: true, read: true };
    const C: ElfFacts = ElfFacts { go: false, rust: false, read: true };

    /// Executable, name, mapped files, sections, and what that comes to.
    type Case<'a> = (&'a str, &'a str, &'a [&'a str], ElfFacts, Option<Runtime>);

    #[test]
    fn programs_are_recognised_by_name_mappings_and_sections() {
        let none = ElfFacts::default();
        let jvm = "/usr/lib/jvm/java-17-openjdk-amd64/lib/server/libjvm.so";
        let python = "/usr/lib/x86_64-linux-gnu/libpython3.11.so.1.0";
        let cases: [Case<'_>; 26] = [
            ("/usr/bin/java", "java", &[], C, Some(Runtime::Jvm)),
            ("/opt/app/bin/launcher", "launcher", &[jvm], C, Some(Runtime::Jvm)),
            ("/usr/bin/node", "node", &[], C, Some(Runtime::Node)),
            ("/usr/bin/node", "MainThread", &[], C, Some(Runtime::Node)),
            ("/usr/bin/nodejs-18", "x", &[], C, Some(Runtime::Node)),
            ("/usr/bin/code", "code", &["/usr/lib/libnode.so.115"], C, Some(Runtime::Node)),
            ("/usr/bin/python3.11", "pytest", &[], C, Some(Runtime::Python)),
            ("/root/.pyenv/versions/3.12.1/bin/python3.12", "x", &[], C, Some(Runtime::Python)),
            ("/usr/bin/pypy3", "pypy3", &[], C, Some(Runtime::Python)),
            ("/usr/bin/uwsgi", "uwsgi", &[python], C, Some(Runtime::Python)),
            ("/usr/bin/bash", "bash", &[], C, Some(Runtime::Shell)),
            ("/bin/dash (deleted)", "sh", &[], C, Some(Runtime::Shell)),
            ("/bin/busybox", "sh", &[], C, Some(Runtime::Shell)),
            ("/bin/busybox", "cp", &[], C, Some(Runtime::Native)),
            ("/tmp/go-build1/b001/exe/tool", "tool", &[], GO, Some(Runtime::Go)),
            ("/usr/bin/cargo", "cargo", &[], RUST, Some(Runtime::Rust)),
            ("/usr/bin/gcc", "gcc", &["/lib/x86_64-linux-gnu/libc.so.6"], C, Some(Runtime::Native)),
            // No interpreters, though they are called like some.
            ("/usr/bin/nodemon-native", "nodemon", &[], C, Some(Runtime::Native)),
            ("/usr/bin/pythonize", "x", &[], RUST, Some(Runtime::Rust)),
            ("/usr/bin/javac", "javac", &[], C, Some(Runtime::Native)),
            ("/usr/bin/javac", "javac", &[jvm], C, Some(Runtime::Jvm)),
            ("/usr/bin/shfmt", "shfmt", &[], GO, Some(Runtime::Go)),
            // Little or nothing is known.
            ("", "tool", &[], none, None),
            ("/usr/bin/tool", "tool", &[], none, None),
            ("/usr/bin/bash", "", &[], none, Some(Runtime::Shell)),
            ("/usr/bin/java", "", &[], none, Some(Runtime::Jvm)),
        ];
        for (exe, comm, mapped, elf, runtime) in cases {
            let traits = Traits { exe, comm, mapped, elf };
            assert_eq!(recognise(&traits), runtime, "{traits:?}");
        }
    }

    #[test]
    fn live_processes_are_recognised() {
        let mut runtimes = Runtimes::default();
        assert_eq!(runtimes.of(std::process::id()), Some(Runtime::Rust));
        for (program, runtime) in [("/bin/sh", Runtime::Shell), ("/bin/cat", Runtime::Native)] {
            let mut child =
                Command::new(program).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            assert_eq!(runtimes.of(child.id()), Some(runtime), "{program}");
            drop(child.stdin.take());
            child.wait().unwrap();
        }
        assert_eq!(runtimes.of(u32::MAX), None);
        assert_eq!(runtimes.known.len(), 3);
    }

    #[test]
    fn what_is_no_elf_file_shows_nothing() {
        let file = tempfile::tempfile().unwrap();
        for bytes in [&b""[..], b"#!/bin/sh\n", &[0x7f; 64], b"\x7fELF\x02\x01"] {
            file.set_len(0).unwrap();
            file.write_all_at(bytes, 0).unwrap();
            assert_eq!(elf_facts(&file), None);
        }
        // Sections that are not there.
        let mut header = [0xff; 64];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file.write_all_at(&header, 0).unwrap();
        assert_eq!(elf_facts(&file), Some(C));
    }
}
