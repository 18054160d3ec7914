//! Opens a file for writing where other users may have put what is found there.
//!
//! The path is walked name by name, each opened (`O_PATH | O_NOFOLLOW`) before it is judged, and what was
//! judged is what is opened for writing, by its fd: nobody can put something else in its place between.
//!
//! - A link is followed only if root or the writing user made it, and never in a directory of somebody
//!   else, or in one to which all may write and whose names all may change.
//! - In a directory of another user, an existing file is written if it belongs to that user; one of our own is
//!   unlinked and made anew, for the name could be a hard link to a file elsewhere; others are refused.
//! - In a directory of our own (or root's) to which others may write, the same without the first.
//! - To append, a file is not made anew: it must have one name only, and then cannot be from elsewhere.

use crate::text::shown;
use nix::unistd::Uid;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Stat, fstat, fstatfs, openat,
    readlinkat, unlinkat,
};
use std::{
    collections::VecDeque,
    ffi::{OsStr, OsString},
    fmt,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::ffi::{OsStrExt as _, OsStringExt as _},
    },
    path::{Component, Path, PathBuf},
};

/// Links to follow, as many as the kernel does (`MAXSYMLINKS`, include/linux/namei.h, 6.12).
const LINKS: u32 = 40;
/// Names to find changed between two looks, before it is given up.
const CHANGES: u32 = 100;

/// Who can have put names into a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Directory {
    /// Root or the user.
    Own,
    /// Others, too; whether those can change the names that root and the user put there.
    Shared { changing: bool },
    /// This other user, whose it is.
    Foreign(u32),
}

impl Directory {
    fn of(stat: &Stat, own: Uid) -> Self {
        // A user's group is mostly the user's alone.
        let others = if own.is_root() { 0o022 } else { 0o002 };
        if ![0, own.as_raw()].contains(&stat.st_uid) {
            Self::Foreign(stat.st_uid)
        } else if stat.st_mode & others == 0 {
            Self::Own
        } else {
            Self::Shared { changing: stat.st_mode & 0o1002 == 0o002 }
        }
    }

    /// How it is called in an error.
    fn name(self) -> String {
        match self {
            Self::Own => "a directory of this user".to_owned(),
            Self::Shared { .. } => "a directory to which others may write".to_owned(),
            Self::Foreign(uid) => format!("a directory of uid {uid}"),
        }
    }

    /// Why a link there is not followed.
    fn refuses_link(self, stat: &Stat, own: Uid) -> Option<String> {
        if ![0, own.as_raw()].contains(&stat.st_uid) {
            return Some(format!("is a link that uid {} made", stat.st_uid));
        }
        let refuses = matches!(self, Self::Foreign(_) | Self::Shared { changing: true });
        refuses.then(|| format!("is a link in {}", self.name()))
    }

    /// What to do with what is there already.
    fn judge(self, stat: &Stat, own: Uid) -> Result<Existing, String> {
        match self {
            Self::Own => Ok(Existing::Write),
            Self::Foreign(owner) if owner == stat.st_uid => Ok(Existing::Write),
            Self::Shared { .. } | Self::Foreign(_) if stat.st_uid == own.as_raw() => {
                let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
                Ok(if is_file { Existing::Replace } else { Existing::Write })
            }
            Self::Shared { .. } | Self::Foreign(_) => {
                Err(format!("belongs to uid {}, in {}", stat.st_uid, self.name()))
            }
        }
    }
}

/// What to do with a file that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Existing {
    Write,
    Replace,
}

/// What to do with the content of a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// It must be empty ([`HasContent`]).
    Refuse,
    /// It is removed.
    Overwrite,
    /// It stays, and more is added.
    Append,
}

/// A regular file has content, which [`Content::Refuse`] keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HasContent {
    /// Its size in bytes.
    pub bytes: u64,
}

impl fmt::Display for HasContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it has {} bytes already", self.bytes)
    }
}

impl std::error::Error for HasContent {}

/// A file open for writing; a regular one appends each write.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: File,
    /// The directory in which it is, and its name there, if it is a regular file that was found by its name.
    pub place: Option<(OwnedFd, OsString)>,
}

/// Opens the file at `path`, or creates it, for the user `own`, as whom this thread acts.
///
/// A FIFO blocks until it has a reader. Links in procfs, such as `/dev/fd/3`, lead to what they refer to.
pub fn open(path: &Path, own: Uid, content: Content) -> io::Result<Opened> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(io::Error::from_raw_os_error(libc::ENOENT));
    }
    let mut directory = start(path)?;
    let mut names = names(path);
    let (mut links, mut changes) = (0, 0);
    while let Some(name) = names.pop_front() {
        let kind = Directory::of(&fstat(&directory)?, own);
        let refused = |why: String| Err(io::Error::other(format!("{} {why}", shown(&name))));
        let mut found = match look(&directory, &name, OFlags::NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) if names.is_empty() && !bytes.ends_with(b"/") => {
                match create(&directory, &name) {
                    Err(rustix::io::Errno::EXIST) if changes < CHANGES => {
                        changes += 1;
                        names.push_front(name);
                        continue;
                    }
                    created => {
                        return Ok(Opened { file: created?, place: Some((directory, name)) });
                    }
                }
            }
            found => found?,
        };
        let mut stat = fstat(&found)?;
        let mut by_name = true;
        if is(&stat, FileType::Symlink) {
            links += 1;
            if links > LINKS {
                return Err(io::Error::from_raw_os_error(libc::ELOOP));
            }
            if let Some(why) = kind.refuses_link(&stat, own) {
                return refused(why);
            }
            if fstatfs(&directory)?.f_type == PROC_SUPER_MAGIC {
                found = look(&directory, &name, OFlags::empty())?;
                stat = fstat(&found)?;
                by_name = false;
            } else {
                let target = readlinkat(&found, "", Vec::new())?.into_bytes();
                let target = PathBuf::from(OsString::from_vec(target));
                if target.is_absolute() {
                    directory = start(&target)?;
                }
                let mut before = self::names(&target);
                before.append(&mut names);
                names = before;
                continue;
            }
        }
        if !names.is_empty() {
            directory = found;
            continue;
        }
        let is_regular = is(&stat, FileType::RegularFile);
        let judged = kind.judge(&stat, own);
        if judged.is_ok() && is_regular && content == Content::Refuse && stat.st_size > 0 {
            return Err(io::Error::other(HasContent { bytes: stat.st_size.cast_unsigned() }));
        }
        match judged {
            Err(why) => return refused(why),
            _ if is(&stat, FileType::Directory) => break,
            Ok(Existing::Replace) if content == Content::Append && stat.st_nlink > 1 => {
                return refused(format!("has several names, in {}", kind.name()));
            }
            // With one name, it is no file from elsewhere.
            Ok(existing) if existing == Existing::Write || content == Content::Append => {
                // The very file that was judged, whatever has its name by now.
                let fd = format!("/proc/self/fd/{}", found.as_raw_fd());
                let mut options = File::options();
                let truncates = content == Content::Overwrite;
                let file = options.write(true).append(is_regular).truncate(false).open(fd)?;
                if is_regular && truncates {
                    file.set_len(0)?;
                }
                let place = (is_regular && by_name).then_some((directory, name));
                return Ok(Opened { file, place });
            }
            Ok(_) => {
                changes += 1;
                if changes > CHANGES {
                    return refused("is being changed all the time".to_owned());
                }
                match unlinkat(&directory, &name, AtFlags::empty()) {
                    Ok(()) | Err(rustix::io::Errno::NOENT) => names.push_front(name),
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
    Err(io::Error::from_raw_os_error(libc::EISDIR))
}

/// Where a path begins.
fn start(path: &Path) -> rustix::io::Result<OwnedFd> {
    look(CWD, OsStr::new(if path.is_absolute() { "/" } else { "." }), OFlags::DIRECTORY)
}

/// The names of a path, from where it begins.
fn names(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_owned())
        .collect()
}

fn look(directory: impl AsFd, name: &OsStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(directory, name, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty())
}

fn create(directory: &OwnedFd, name: &OsStr) -> rustix::io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(directory, name, flags, Mode::from_raw_mode(0o666)).map(File::from)
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}
