//! Where a distribution has the files of a package.

use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};

use crate::{NAME, Release, SERVICE, archive::Files};

/// The directories in which distributions differ.
pub(crate) struct Places {
    /// Completions of zsh.
    pub(crate) zsh: &'static str,
    /// Documents.
    pub(crate) documents: &'static str,
}

/// The files of a release below `/`. Manual pages are compressed, as all distributions have them.
pub(crate) fn files(release: &Release<'_>, places: &Places) -> Result<Files> {
    let mut files = Files::default();
    files.add_program("usr/bin/etxtbsy-trace", release.program.clone());
    files.extend(places.documents, &release.documents);
    files.add("usr/lib/systemd/system/etxtbsy-trace.service", SERVICE.as_bytes().to_vec());
    let completions = [
        (format!("bash/{NAME}.bash"), "usr/share/bash-completion/completions/etxtbsy-trace".into()),
        (format!("zsh/_{NAME}"), format!("{}/_etxtbsy-trace", places.zsh)),
        (
            format!("fish/{NAME}.fish"),
            "usr/share/fish/vendor_completions.d/etxtbsy-trace.fish".into(),
        ),
    ];
    for (path, _, content) in release.pages.each() {
        if path.starts_with("man1/") {
            files.add(&format!("usr/share/man/{path}.gz"), compressed(content)?);
        }
        let completion = completions.iter().find(|(from, _)| from == path);
        if let Some((_, to)) = completion {
            files.add(to, content.to_vec());
        }
    }
    Ok(files)
}

/// gzip without a name and a time.
pub(crate) fn compressed(content: &[u8]) -> Result<Vec<u8>> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::best());
    gzip.write_all(content)?;
    gzip.finish().context("gzip")
}
