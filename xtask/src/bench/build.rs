//! Whole builds, and a whole test run, which are measured.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::UsageWho;

use super::{observer::Observer, operation::cpu_time};
use crate::command::{cargo, command, is_installed, output};

/// The number of C files to compile, crates to build, and tests to run.
const FILES: u32 = 80;
const CRATES: u32 = 12;
const TESTS: u32 = 150;

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Make,
    Cargo,
    Nextest,
}

/// A project in its own directory.
pub(super) struct Build {
    kind: Kind,
    dir: PathBuf,
}

/// The times of a build, in nanoseconds.
pub(super) struct BuildTimes {
    pub(super) elapsed: f64,
    /// CPU time, including that of a tracer that starts the build.
    pub(super) cpu: f64,
}

impl Build {
    /// Writes the projects that this machine can build.
    pub(super) fn all(dir: &Path) -> Result<Vec<Self>> {
        let mut all = Vec::new();
        if is_installed("make") && is_installed("cc") {
            all.push(Self::new(Kind::Make, dir)?);
        }
        all.push(Self::new(Kind::Cargo, dir)?);
        if output(cargo(["nextest", "--version"]).stderr(Stdio::null())).is_some() {
            all.push(Self::new(Kind::Nextest, dir)?);
        }
        Ok(all)
    }

    fn new(kind: Kind, dir: &Path) -> Result<Self> {
        let dir = dir.join(match kind {
            Kind::Make => "make",
            Kind::Cargo => "cargo",
            Kind::Nextest => "nextest",
        });
        fs::create_dir_all(dir.join("src"))?;
        match kind {
            Kind::Make => write_c(&dir)?,
            Kind::Cargo => write_crates(&dir)?,
            Kind::Nextest => write_tests(&dir)?,
        }
        Ok(Self { kind, dir })
    }

    /// Builds the project from scratch, or runs all its tests.
    pub(super) fn run(&self, observer: Observer) -> Result<BuildTimes> {
        let (built, run) = match self.kind {
            Kind::Make => {
                let mut make = command("make");
                make.args(["-s", "-j"]).arg(thread::available_parallelism()?.to_string());
                (Some("objects"), make)
            }
            Kind::Cargo => (Some("target"), cargo(["build", "--offline", "--quiet"])),
            // Only the test run is measured, so nothing is removed.
            Kind::Nextest => (None, cargo(["nextest", "run", "--offline", "--status-level=none"])),
        };
        let built = built.map(|name| self.dir.join(name)).filter(|dir| dir.exists());
        built.map_or(Ok(()), fs::remove_dir_all)?;
        let mut run = observer.command(run);
        // The settings for building this program must not affect the project.
        run.current_dir(&self.dir).env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS");
        run.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let children = || cpu_time(UsageWho::RUSAGE_CHILDREN);
        let (cpu, began) = (children()?, Instant::now());
        let ended = run.output().with_context(|| format!("cannot start {self}"))?;
        let times = BuildTimes {
            elapsed: began.elapsed().as_secs_f64() * 1e9,
            cpu: (children()? - cpu) * 1e3,
        };
        let stderr = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "{self} failed: {}", stderr.trim_end());
        Ok(times)
    }
}

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Make => write!(f, "make -j, {FILES} files of C"),
            Kind::Cargo => write!(f, "cargo build, {CRATES} crates"),
            Kind::Nextest => write!(f, "cargo nextest run, {TESTS} tests"),
        }
    }
}

fn write_c(dir: &Path) -> Result<()> {
    fs::write(
        dir.join("Makefile"),
        "objects := $(patsubst src/%.c,objects/%.o,$(wildcard src/*.c))\n\
         objects/program: $(objects)\n\tcc -o $@ $^\n\
         objects/%.o: src/%.c\n\t@mkdir -p objects\n\tcc -O1 -c -o $@ $<\n",
    )?;
    for number in 0..FILES {
        let text = format!(
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
             int f{number}(int n) {{ return n < 2 ? n : f{number}(n - 1) + {number}; }}\n"
        );
        fs::write(dir.join(format!("src/f{number}.c")), text)?;
    }
    fs::write(dir.join("src/main.c"), "int f0(int);\nint main(void) { return f0(0); }\n")?;
    Ok(())
}

fn manifest(name: &str, more: &str) -> String {
    format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
}

fn write_crates(dir: &Path) -> Result<()> {
    let depend = |number| format!("c{number} = {{ path = \"c{number}\" }}\n");
    let all: String = (0..CRATES).map(depend).collect();
    let more = format!("[dependencies]\n{all}[workspace]\n");
    fs::write(dir.join("Cargo.toml"), manifest("all", &more))?;
    fs::write(dir.join("src/main.rs"), "fn main() { println!(\"{}\", c0::f(1)); }\n")?;
    for number in 0..CRATES {
        let own = dir.join(format!("c{number}"));
        fs::create_dir_all(own.join("src"))?;
        fs::write(own.join("Cargo.toml"), manifest(&format!("c{number}"), ""))?;
        let text = format!("pub fn f(n: u64) -> String {{ format!(\"{{}}\", n + {number}) }}\n");
        fs::write(own.join("src/lib.rs"), text)?;
    }
    Ok(())
}

fn write_tests(dir: &Path) -> Result<()> {
    fs::write(dir.join("Cargo.toml"), manifest("tests", "[workspace]\n"))?;
    let test = |number| format!("#[test]\nfn t{number}() {{ assert_eq!({number}, {number}); }}\n");
    let all: String = (0..TESTS).map(test).collect();
    fs::write(dir.join("src/lib.rs"), all)?;
    Ok(())
}
