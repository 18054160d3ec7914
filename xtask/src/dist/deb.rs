//! The Debian package, which dpkg-deb builds from a directory.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use super::{NAME, SERVICE, VERSION, archive::Files};
use crate::command::{command, run};

/// Builds the package of a target.
pub(super) fn build(
    target: &str,
    place: &Path,
    binary: &Path,
    pages: &Path,
    documents: &Files,
    time: u64,
) -> Result<PathBuf> {
    let architecture = if target.starts_with("aarch64") { "arm64" } else { "amd64" };
    let files = contents(binary, pages, documents)?;
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let mut bytes = 0;
    for (path, mode, content) in files.each() {
        bytes += content.len();
        put(&directory.path().join(path), mode, content)?;
    }
    let control = control(architecture, bytes.div_ceil(1024));
    put(&directory.path().join("DEBIAN/control"), 0o644, control.as_bytes())?;
    let package = place.join(format!("{NAME}_{VERSION}_{architecture}.deb"));
    let mut build = command("dpkg-deb");
    // It gives all files this time, at most.
    build.env("SOURCE_DATE_EPOCH", time.to_string());
    run(build.args(["--root-owner-group", "-Zxz", "--build"]).args([directory.path(), &package]))?;
    Ok(package)
}

/// The files where Debian has them.
fn contents(binary: &Path, pages: &Path, documents: &Files) -> Result<Files> {
    let mut files = Files::default();
    files.add_program("usr/bin/etxtbsy-trace", fs::read(binary)?);
    files.extend("usr/share/doc/etxtbsy-trace", documents);
    files.add("usr/share/doc/etxtbsy-trace/copyright", COPYRIGHT.as_bytes().to_vec());
    files.add("usr/lib/systemd/system/etxtbsy-trace.service", SERVICE.as_bytes().to_vec());
    files.add_directory("usr/share/man/man1", &pages.join("man1"))?;
    for (from, to) in [
        ("bash/etxtbsy-trace.bash", "usr/share/bash-completion/completions/etxtbsy-trace"),
        ("zsh/_etxtbsy-trace", "usr/share/zsh/vendor-completions/_etxtbsy-trace"),
        ("fish/etxtbsy-trace.fish", "usr/share/fish/vendor_completions.d/etxtbsy-trace.fish"),
    ] {
        files.add(to, fs::read(pages.join(from))?);
    }
    Ok(files)
}

const COPYRIGHT: &str = "\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: etxtbsy-trace
Source: https://github.com/etxtbsy-trace/etxtbsy-trace

Files: *
Copyright: the etxtbsy-trace contributors
License: MIT or Apache-2.0
 LICENSE-MIT and LICENSE-APACHE in this directory. The program contains other works; their
 licences are in LICENSES-THIRD-PARTY.txt.
";

/// What dpkg needs to know. The program is static, and the service is not started by itself.
fn control(architecture: &str, kibibytes: usize) -> String {
    format!(
        "Package: {NAME}\n\
         Version: {VERSION}\n\
         Architecture: {architecture}\n\
         Maintainer: The etxtbsy-trace maintainers <maintainers@etxtbsy-trace.invalid>\n\
         Installed-Size: {kibibytes}\n\
         Section: utils\n\
         Priority: optional\n\
         Homepage: https://github.com/etxtbsy-trace/etxtbsy-trace\n\
         Description: Says who made an exec fail with \"Text file busy\"\n \
         etxtbsy-trace uses eBPF to report which process had the file open for writing when\n \
         an exec failed with ETXTBSY, how it got the file, and what helps.\n \
         .\n \
         The service etxtbsy-trace records the failures of the whole machine. It is off until\n \
         `systemctl enable --now etxtbsy-trace`.\n"
    )
}

fn put(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let write = || {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, content)?;
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_has_one_field_or_continuation_a_line() {
        for line in control("amd64", 7).lines() {
            assert!(line.starts_with(' ') || line.split_once(": ").is_some(), "{line}");
        }
    }
}
