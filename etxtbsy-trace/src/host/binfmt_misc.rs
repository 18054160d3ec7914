//! Entries of binfmt_misc, which with flag `F` keep their interpreter open and deny writing to it
//! (`bm_register_write`, fs/binfmt_misc.c).

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

use crate::host::fs_view::{Found, Sight};

/// The names of the entries that keep a file open, in what some processes see.
///
/// `keeps` says whether the entry with that file in binfmt_misc has the very inode open; `None` if this
/// kernel does not show it. Then the path that the entry names has to lead to `file`.
pub fn keepers(
    file: Option<&Found>,
    sights: &[Sight],
    mut keeps: impl FnMut(&File) -> Option<bool>,
) -> Vec<String> {
    let mut names = BTreeSet::new();
    for sight in sights {
        for point in sight.mounted("binfmt_misc") {
            let Some(directory) = sight.find(point) else { continue };
            let directory = format!("/proc/self/fd/{}", directory.file.as_raw_fd());
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                let Ok(text) = fs::read(entry.path()) else { continue };
                let Some(interpreter) = kept_interpreter(&text) else { continue };
                let leads_there = || {
                    let found = sight.find(Path::new(OsStr::from_bytes(interpreter)));
                    let id = |found: &Found| (found.dev, found.ino);
                    found.is_some_and(|found| file.map(id) == Some(id(&found)))
                };
                let opened = File::open(entry.path()).ok();
                if opened.as_ref().and_then(&mut keeps).unwrap_or_else(leads_there) {
                    names.insert(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
    }
    names.into_iter().collect()
}

/// The interpreter of an entry with flag `F`, from what its file says (`entry_status`).
fn kept_interpreter(text: &[u8]) -> Option<&[u8]> {
    let mut lines = text.split(|byte| *byte == b'\n');
    let mut value = |key: &[u8]| lines.find_map(|line| line.strip_prefix(key));
    let interpreter = value(b"interpreter ")?;
    value(b"flags: ")?.contains(&b'F').then_some(interpreter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_flag_f_keeps_an_interpreter_open() {
        let entry = |flags: &str| {
            format!("enabled\ninterpreter /usr/bin/qemu x\nflags: {flags}\noffset 0\nmagic 7f45\n")
        };
        for (flags, kept) in [("F", true), ("POCF", true), ("", false), ("OC", false)] {
            let text = entry(flags);
            let expected = kept.then_some(&b"/usr/bin/qemu x"[..]);
            assert_eq!(kept_interpreter(text.as_bytes()), expected, "{flags}");
        }
        // `status` and `register` are no entries.
        assert_eq!(kept_interpreter(b"enabled\n"), None);
        assert_eq!(kept_interpreter(b""), None);
    }
}
