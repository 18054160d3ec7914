//! Archives whose bytes follow from their files alone.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};

/// Files by their paths: the mode and the content.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files(BTreeMap<String, (u32, Vec<u8>)>);

impl Files {
    /// Adds a file.
    pub(crate) fn add(&mut self, path: &str, content: Vec<u8>) {
        self.0.insert(path.to_owned(), (0o644, content));
    }

    /// Adds a program.
    pub(crate) fn add_program(&mut self, path: &str, content: Vec<u8>) {
        self.0.insert(path.to_owned(), (0o755, content));
    }

    /// Adds all files of another set, below a directory (empty: as they are).
    pub(crate) fn extend(&mut self, directory: &str, files: &Self) {
        for (path, file) in &files.0 {
            self.0.insert(join(directory, path), file.clone());
        }
    }

    /// Adds the files of a directory and of those in it.
    pub(crate) fn add_directory(&mut self, at: &str, directory: &Path) -> Result<()> {
        let entries = fs::read_dir(directory);
        for entry in entries.with_context(|| format!("cannot list {}", directory.display()))? {
            let entry = entry?;
            let path = join(at, &entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                self.add_directory(&path, &entry.path())?;
            } else {
                self.add(&path, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    /// Path, mode and content of each.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&str, u32, &[u8])> {
        self.0.iter().map(|(path, (mode, content))| (path.as_str(), *mode, &content[..]))
    }

    /// A compressed archive of them, below a directory: sorted, of root, all of one time.
    pub(crate) fn archive(&self, directory: &str, time: u64) -> Result<Vec<u8>> {
        let gzip = GzBuilder::new().write(Vec::new(), Compression::best());
        let mut archive = tar::Builder::new(gzip);
        for (path, mode, content) in self.each() {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_mtime(time);
            header.set_uid(0);
            header.set_gid(0);
            archive.append_data(&mut header, join(directory, path), content)?;
        }
        Ok(archive.into_inner()?.finish()?)
    }
}

fn join(directory: &str, path: &str) -> String {
    if directory.is_empty() { path.to_owned() } else { format!("{directory}/{path}") }
}

/// The checksum, in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;

    #[test]
    fn archives_of_the_same_files_are_equal() {
        let archive = |order: [&str; 3]| {
            let mut files = Files::default();
            for path in order {
                files.add(path, path.as_bytes().to_vec());
            }
            files.add_program("program", b"x".to_vec());
            files.archive("name-1.0", 1_700_000_000).unwrap()
        };
        let one = archive(["b", "docs/a", "a"]);
        assert_eq!(one, archive(["a", "b", "docs/a"]));
        let mut entries = tar::Archive::new(GzDecoder::new(&one[..]));
        let entries = entries.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let header = entry.header();
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap()), (1_700_000_000, 0));
            (entry.path().unwrap().display().to_string(), header.mode().unwrap())
        });
        let wanted = [
            ("name-1.0/a", 0o644),
            ("name-1.0/b", 0o644),
            ("name-1.0/docs/a", 0o644),
            ("name-1.0/program", 0o755),
        ];
        let wanted = wanted.map(|(path, mode)| (path.to_owned(), mode));
        assert_eq!(entries.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn sums_are_those_of_sha256sum() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
