//! The Debian package, which dpkg-deb builds from a directory.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, fmt::rfc2822, tz::TimeZone};

use crate::{
    ADDRESS, DESCRIPTION, MAINTAINER, NAME, REPOSITORY, Release, SUMMARY, VERSION,
    layout::{self, Places},
};

const PLACES: Places =
    Places { zsh: "usr/share/zsh/vendor-completions", documents: "usr/share/doc/etxtbsy-trace" };

/// What lintian finds, and why it is so.
const OVERRIDES: &str = include_str!("lintian-overrides");

/// Builds the package of a target into a directory; its name.
pub(crate) fn build(release: &Release<'_>, place: &Path) -> Result<String> {
    let architecture = if release.target.starts_with("aarch64") { "arm64" } else { "amd64" };
    let mut files = layout::files(release, &PLACES)?;
    let documents = PLACES.documents;
    files.add(&format!("{documents}/copyright"), copyright().into_bytes());
    let changes = layout::compressed(changes(release.time)?.as_bytes())?;
    files.add(&format!("{documents}/changelog.gz"), changes);
    files.add("usr/share/lintian/overrides/etxtbsy-trace", OVERRIDES.as_bytes().to_vec());
    let directory = tempfile::tempdir()?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    let mut bytes = 0;
    for (path, mode, content) in files.each() {
        bytes += content.len();
        put(&directory.path().join(path), mode, content)?;
    }
    let control = control(architecture, bytes.div_ceil(1024));
    put(&directory.path().join("DEBIAN/control"), 0o644, control.as_bytes())?;
    let name = format!("{NAME}_{VERSION}_{architecture}.deb");
    let built = Command::new("dpkg-deb")
        // It gives all files this time, at most.
        .env("SOURCE_DATE_EPOCH", release.time.to_string())
        .args(["--root-owner-group", "-Zxz", "--build"])
        .args([directory.path(), &place.join(&name)])
        .output()
        .context("cannot start dpkg-deb: install the package dpkg")?;
    ensure!(built.status.success(), "dpkg-deb: {}", String::from_utf8_lossy(&built.stderr).trim());
    Ok(name)
}

/// Debian's form of the list of changes, which leads to ours.
fn changes(time: u32) -> Result<String> {
    let time = Timestamp::from_second(time.into())?.to_zoned(TimeZone::UTC);
    let time = rfc2822::to_string(&time)?;
    Ok(format!(
        "{NAME} ({VERSION}) unstable; urgency=medium\n\n  * See CHANGELOG.md in this directory.\n\n \
         -- {MAINTAINER} <{ADDRESS}>  {time}\n"
    ))
}

const MIT: &str = include_str!("../../LICENSE-MIT");

/// The copyright in Debian's machine-readable form; Debian itself has the text of the Apache licence.
fn copyright() -> String {
    let field = |text: &str| {
        text.lines().fold(String::new(), |field, line| {
            field + " " + if line.is_empty() { "." } else { line } + "\n"
        })
    };
    format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\
         Upstream-Name: {NAME}\n\
         Source: {REPOSITORY}\n\
         Comment: The program contains other works. LICENSES-THIRD-PARTY.txt in this directory has\n \
         their licences.\n\n\
         Files: *\n\
         Copyright: the etxtbsy-trace contributors\n\
         License: MIT or Apache-2.0\n\n\
         License: MIT\n{}\n\
         License: Apache-2.0\n \
         On Debian systems, the text is in /usr/share/common-licenses/Apache-2.0.\n",
        field(MIT)
    )
}

/// What dpkg needs to know. The program is static, and the service is not started by itself.
fn control(architecture: &str, kibibytes: usize) -> String {
    let description = DESCRIPTION.map(wrapped).join(" .\n");
    format!(
        "Package: {NAME}\n\
         Version: {VERSION}\n\
         Architecture: {architecture}\n\
         Maintainer: {MAINTAINER} <{ADDRESS}>\n\
         Installed-Size: {kibibytes}\n\
         Section: utils\n\
         Priority: optional\n\
         Homepage: {REPOSITORY}\n\
         Description: {SUMMARY}\n{description}"
    )
}

/// A paragraph as a field's continuation: lines of at most 79 characters, each after a space.
fn wrapped(paragraph: &str) -> String {
    let options = textwrap::Options::new(79).initial_indent(" ").subsequent_indent(" ");
    textwrap::fill(paragraph, options) + "\n"
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
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;

    #[test]
    fn control_has_one_field_or_continuation_a_line() {
        for line in control("amd64", 7).lines() {
            assert!(line.starts_with(' ') || line.split_once(": ").is_some(), "{line}");
        }
    }

    #[test]
    fn changes_have_debians_form() {
        let text = changes(1_700_000_000).unwrap();
        assert!(text.starts_with("etxtbsy-trace ("), "{text}");
        assert!(text.ends_with(">  Tue, 14 Nov 2023 22:13:20 +0000\n"), "{text}");
    }
}
