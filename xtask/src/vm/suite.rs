//! The live tests as cargo builds them, the same programs as on the host.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::arch::Arch;
use crate::{
    command::{cargo, step, target_dir},
    target,
};

/// The variable for the duration of races in the tests.
const RACE_SECONDS: &str = "ETXTBSY_TRACE_RACE_SECONDS";

/// The time limit of a test without a race, which is more than the tests allow a process.
const TEST: Duration = Duration::from_secs(3 * 60);

/// The tests of a release, as a shell script.
const RELEASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dist/check.sh");

/// Modules of tests of what the kernel has no part in, and of runtimes that are not in the image. A run of all tests
/// leaves them out.
const OTHER_MODULES: [&str; 6] =
    ["action::", "hunt::", "outputs::", "recipes::", "recording_files::", "suites::"];

/// A test program.
struct TestProgram {
    name: String,
    program: PathBuf,
    /// The directory in which cargo runs it.
    directory: PathBuf,
}

/// What the virtual machine runs.
pub(super) struct Suite {
    tests: Vec<TestProgram>,
    /// The programs under test, at the paths where the tests expect them.
    binaries: Vec<PathBuf>,
    /// Directories that must exist.
    pub(super) directories: Vec<PathBuf>,
    /// `KEY=value`
    pub(super) environment: Vec<String>,
}

impl Suite {
    /// Builds the tests.
    pub(super) fn build(arch: Arch) -> Result<Self> {
        step(&format!("building the tests for {}", arch.debian()));
        let mut cargo = cargo(["test", "--release", "--locked", "--no-run"]);
        if let Some(target) = arch.target() {
            target::ensure(target)?;
            let (variable, linker) = target::linker(target);
            cargo.args(["--target", target]).env(variable, linker);
            // The programs are in the image, which is in memory.
            cargo.env("CARGO_PROFILE_RELEASE_DEBUG", "0");
        }
        let built = cargo
            .args(["--package=etxtbsy-trace", "--test=live"])
            .arg("--message-format=json-render-diagnostics")
            .stderr(Stdio::inherit())
            .output()
            .context("cannot start cargo")?;
        ensure!(built.status.success(), "the tests do not compile: see above");
        let mut suite = Self {
            tests: Vec::new(),
            binaries: Vec::new(),
            directories: vec![target_dir()?.join(arch.target().unwrap_or_default()).join("tmp")],
            environment: environment(),
        };
        for line in String::from_utf8_lossy(&built.stdout).lines() {
            suite.add(line);
        }
        ensure!(!suite.tests.is_empty(), "cargo built no test program");
        let directories = suite.tests.iter().map(|tests| tests.directory.clone());
        suite.directories.extend(directories);
        Ok(suite)
    }

    /// The tests of the release in a directory, for an architecture.
    pub(super) fn of_release(place: &Path, arch: Arch) -> Result<Self> {
        let mut binaries = Vec::new();
        for entry in fs::read_dir(place)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_package = [".tar.gz", ".deb", ".rpm"].iter().any(|it| name.ends_with(it));
            if is_package && arch.names().iter().any(|it| name.contains(it)) {
                binaries.push(path);
            }
        }
        ensure!(!binaries.is_empty(), "{} has no packages", place.display());
        let directory = place.to_owned();
        Ok(Self {
            tests: vec![TestProgram {
                name: "release".to_owned(),
                program: RELEASE.into(),
                directory,
            }],
            binaries,
            directories: Vec::new(),
            environment: [environment(), vec![format!("RELEASE={}", place.display())]].concat(),
        })
    }

    /// Adds the program in a message of cargo, if it has one.
    fn add(&mut self, message: &str) {
        let Ok(message) = serde_json::from_str::<Value>(message) else { return };
        let Some(program) = message["executable"].as_str().map(PathBuf::from) else { return };
        let Some(name) = message["target"]["name"].as_str() else { return };
        let manifest = message["manifest_path"].as_str().map(Path::new);
        let Some(directory) = manifest.and_then(Path::parent) else { return };
        if message["profile"]["test"] == true {
            let (name, directory) = (name.to_owned(), directory.to_owned());
            self.tests.push(TestProgram { name, program, directory });
        } else {
            self.binaries.push(program);
        }
    }

    /// The programs to copy into the image.
    pub(super) fn programs(&self) -> impl Iterator<Item = &Path> {
        self.tests.iter().map(|tests| &tests.program).chain(&self.binaries).map(PathBuf::as_path)
    }

    /// A line for init for each test program.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |it: &TestProgram| {
            format!("{} {} {}", it.name, it.program.display(), it.directory.display())
        };
        self.tests.iter().map(line).collect()
    }
}

/// The arguments that select tests: those whose names contain one of `filters`, or all whose result depends on the kernel.
pub(super) fn selection(filters: &[String]) -> Vec<String> {
    if filters.is_empty() {
        OTHER_MODULES.iter().flat_map(|module| ["--skip", *module]).map(str::to_owned).collect()
    } else {
        filters.to_vec()
    }
}

/// The time limit of a test.
pub(super) fn limit() -> Duration {
    let race = env::var(RACE_SECONDS).ok().and_then(|seconds| seconds.parse().ok());
    TEST + Duration::from_secs(race.unwrap_or(0))
}

/// The environment of the tests and of init.
fn environment() -> Vec<String> {
    let own = env::vars().filter(|(key, _)| key.starts_with("ETXTBSY_TRACE_"));
    own.map(|(key, value)| format!("{key}={value}"))
        .chain([format!("TEST_SECONDS={}", limit().as_secs()), "RUST_BACKTRACE=0".to_owned()])
        // Allows tests to set the machine's clock.
        .chain(["ETXTBSY_TRACE_OWN_MACHINE=1".to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_programs_are_parsed_from_cargo() {
        let mut suite = Suite {
            tests: Vec::new(),
            binaries: Vec::new(),
            directories: Vec::new(),
            environment: Vec::new(),
        };
        for message in [
            r#"{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"name":"live"},"profile":{"test":true},"executable":"/t/live-1"}"#,
            r#"{"reason":"compiler-artifact","manifest_path":"/w/p/Cargo.toml","target":{"name":"p"},"profile":{"test":false},"executable":"/t/p"}"#,
            r#"{"reason":"compiler-artifact","manifest_path":"/w/q/Cargo.toml","target":{"name":"q"},"profile":{"test":false},"executable":null}"#,
            r#"{"reason":"build-finished","success":true}"#,
        ] {
            suite.add(message);
        }
        assert_eq!(suite.lines(), ["live /t/live-1 /w/p"]);
        assert_eq!(
            suite.programs().collect::<Vec<_>>(),
            [Path::new("/t/live-1"), Path::new("/t/p")]
        );
    }
}
