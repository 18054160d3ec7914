//! Finds the Rust toolchain that builds the eBPF programs. `xtask` includes this file too.
//!
//! Rust ships no prebuilt `core` for the eBPF target, so the toolchain must have the sources of `core` for
//! its own compiler.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// A toolchain that can compile `core` for the eBPF target.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// Its name in rustup; `system` without rustup, when `PATH` has the only toolchain.
    pub(crate) name: String,
    /// The output of `rustc --print sysroot`, which has `bin/rustc` and `bin/cargo`.
    pub(crate) sysroot: PathBuf,
}

/// The active toolchain if it is usable, otherwise the first usable one of rustup.
pub(crate) fn find() -> io::Result<Option<Toolchain>> {
    let listed = match output(Command::new("rustup").args(["toolchain", "list", "-v"])) {
        Ok(listed) => listed,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
            let only = Toolchain { name: "system".to_owned(), sysroot: sysroot.trim_end().into() };
            return Ok(Some(only).filter(|it| is_usable(&it.sysroot)));
        }
        Err(e) => return Err(e),
    };
    // "stable-x86_64-unknown-linux-gnu (active, default) /home/me/.rustup/toolchains/stable-…"
    let mut lines: Vec<&str> = listed.lines().collect();
    lines.sort_by_key(|line| !line.contains("(active"));
    Ok(lines
        .into_iter()
        .filter_map(|line| {
            Some(Toolchain {
                name: line.split_whitespace().next()?.to_owned(),
                sysroot: line[line.find('/')?..].into(),
            })
        })
        .find(|it| is_usable(&it.sysroot)))
}

/// `PATH` with the directory of `cargo install` at the end, for bpf-linker. Unlike rustup's cargo, a
/// distribution's cargo does not look there.
pub(crate) fn path_with_cargo_bin() -> OsString {
    let mut path = env::var_os("PATH").unwrap_or_default();
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(env::home_dir()?.join(".cargo")));
    if let Some(cargo_home) = cargo_home {
        path.push(":");
        path.push(cargo_home.join("bin"));
    }
    path
}

/// Whether a Rust version (`1.96.0`, `1.96.0+dfsg1-1`, `1.97.0-nightly`) can compile this workspace.
pub(crate) fn is_recent_enough(version: &str) -> bool {
    fn minor(version: &str) -> Option<u32> {
        let (digits, _) = version.strip_prefix("1.")?.split_once('.')?;
        digits.parse().ok()
    }
    let least = concat!(env!("CARGO_PKG_RUST_VERSION"), ".0");
    minor(version).is_some_and(|it| Some(it) >= minor(least))
}

fn is_usable(sysroot: &Path) -> bool {
    let core = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
    core.exists()
        && output(Command::new(sysroot.join("bin/rustc")).arg("--version"))
            // "rustc 1.96.0 (ac68faa20 2026-05-25)"
            .is_ok_and(|text| text.split(' ').nth(1).is_some_and(is_recent_enough))
}

/// The command's stdout.
fn output(command: &mut Command) -> io::Result<String> {
    let Output { status, stdout, .. } = command.output()?;
    if !status.success() {
        return Err(io::Error::other(format!("{command:?} failed: {status}")));
    }
    String::from_utf8(stdout).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::is_recent_enough;

    #[test]
    fn versions_are_compared_as_numbers() {
        for version in ["1.96.0+dfsg1-1~deb12u2", "1.97.0-nightly", "1.100.0"] {
            assert!(is_recent_enough(version), "{version}");
        }
        for version in ["1.63.0+dfsg1-2", "1.9.0", "", "unknown"] {
            assert!(!is_recent_enough(version), "{version}");
        }
    }
}
