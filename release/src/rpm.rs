//! The RPM package.

use ::rpm::{BuildConfig, CompressionWithLevel, FileOptions, PackageBuilder};
use anyhow::Result;

use crate::{
    DESCRIPTION, MAINTAINER, NAME, REPOSITORY, Release, SUMMARY, VERSION,
    layout::{self, Places},
};

/// Fedora's and openSUSE's.
const PLACES: Places =
    Places { zsh: "usr/share/zsh/site-functions", documents: "usr/share/doc/etxtbsy-trace" };

/// All licences in the program, by SPDX: each part's is among them.
const LICENCE: &str = "(MIT OR Apache-2.0) AND LGPL-2.1-or-later AND MPL-2.0";

/// The package of a target: its name and content.
pub(crate) fn build(release: &Release<'_>) -> Result<(String, Vec<u8>)> {
    let architecture = if release.target.starts_with("aarch64") { "aarch64" } else { "x86_64" };
    let config =
        BuildConfig::default().source_date(release.time).compression(CompressionWithLevel::Gzip(9));
    let mut builder = PackageBuilder::new(NAME, VERSION, LICENCE, architecture, SUMMARY);
    builder
        .using_config(config)
        .release("1")
        .url(REPOSITORY)
        .packager(MAINTAINER)
        .vendor(MAINTAINER)
        .build_host("localhost")
        .description(DESCRIPTION.join("\n\n"));
    for (path, mode, content) in layout::files(release, &PLACES)?.each() {
        let mut options = FileOptions::new(format!("/{path}")).permissions(mode as u16);
        if path.starts_with("usr/share/doc/") {
            options = options.doc();
        }
        builder.with_file_contents(content, options)?;
    }
    let mut package = Vec::new();
    builder.build()?.write(&mut package)?;
    Ok((format!("{NAME}-{VERSION}-1.{architecture}.rpm"), package))
}
