//! The file of `--output`.

pub use crate::host::planted::Content;
use crate::{
    host::{
        planted::{self, HasContent, Opened},
        user::Invoker,
    },
    text::shown,
};
use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    unistd::{Gid, Uid, getgroups, setfsgid, setfsuid},
};
use rustix::fs::{AtFlags, Mode, OFlags, fchmod, openat, renameat, unlinkat};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

/// An output file that is open for writing.
#[derive(Debug)]
pub struct OutputFile {
    /// The file; if it is a regular one, each write appends.
    pub file: File,
    /// Where it is, if it is a regular file that was found by its name.
    pub place: Option<Place>,
}

/// Where a regular file is. Other files in that directory are written as its owner would.
#[derive(Clone, Debug)]
pub struct Place {
    directory: Arc<OwnedFd>,
    name: OsString,
    owner: Option<Invoker>,
}

/// Creates or truncates the file at `path`, as [`open`] does.
pub fn create(path: &Path, owner: Option<&Invoker>) -> Result<File> {
    Ok(open(path, owner, Content::Overwrite)?.file)
}

/// Opens the file at `path` (`-`: stdout), or creates it, as `owner` would: it is theirs, and
/// where they may not write, it fails. `None` is ourselves. What others have planted there is not
/// written to ([`planted`]).
///
/// A FIFO blocks until it has a reader.
pub fn open(path: &Path, owner: Option<&Invoker>, content: Content) -> Result<OutputFile> {
    if is_stdout(path) {
        let stdout: OwnedFd =
            io::stdout().as_fd().try_clone_to_owned().context("cannot write to stdout")?;
        return Ok(OutputFile { file: stdout.into(), place: None });
    }
    let own = owner.map_or_else(Uid::effective, |owner| owner.uid);
    match act_as(owner, || planted::open(path, own, content))? {
        Ok(Opened { file, place }) => {
            let place = place.map(|(directory, name)| Place {
                directory: Arc::new(directory),
                name,
                owner: owner.cloned(),
            });
            Ok(OutputFile { file, place })
        }
        Err(error) => match error.get_ref().and_then(|error| error.downcast_ref::<HasContent>()) {
            Some(content) => Err(anyhow!(
                "cannot write {}: {content}; add --append or --overwrite, or name another file: -o FILE",
                shown(path.as_os_str())
            )),
            None => Err(anyhow!("{}; name another file: -o FILE", refusal(path, owner, &error))),
        },
    }
}

impl Place {
    /// The name of the file in its directory.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// Creates a file of that name, in place of one that has it, with the permissions of `like`.
    pub fn create(&self, name: &OsStr, like: &File) -> io::Result<File> {
        self.remove(name)?;
        let mode = Mode::from_raw_mode(rustix::fs::fstat(like)?.st_mode & 0o777);
        let flags =
            OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        self.act(|directory| {
            let file = openat(directory, name, flags, mode)?;
            // Whatever the umask is.
            fchmod(&file, mode)?;
            Ok(file.into())
        })
    }

    /// Renames a file, in place of one that has the new name. False if there is none.
    pub fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<bool> {
        self.act(|directory| is_there(renameat(directory, from, directory, to)))
    }

    /// Removes a file. False if there is none.
    pub fn remove(&self, name: &OsStr) -> io::Result<bool> {
        self.act(|directory| is_there(unlinkat(directory, name, AtFlags::empty())))
    }

    /// Opens for reading a file that is open for writing, whatever its name is by now.
    pub fn reader(&self, file: &File) -> io::Result<File> {
        self.act(|_| File::open(format!("/proc/self/fd/{}", file.as_raw_fd())))
    }

    fn act<T>(&self, act: impl FnOnce(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        act_as(self.owner.as_ref(), || act(&self.directory)).map_err(io::Error::other)?
    }
}

/// Whether a name that was to be changed was there.
fn is_there(changed: rustix::io::Result<()>) -> io::Result<bool> {
    match changed {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Creates the first of the files at `paths` that does not exist yet, as `owner` would.
pub fn create_new(
    paths: impl Iterator<Item = PathBuf>,
    owner: Option<&Invoker>,
) -> Result<(PathBuf, File)> {
    let mut last = None;
    for path in paths {
        match act_as(owner, || File::create_new(&path))? {
            Ok(file) => return Ok((path, file)),
            Err(error) => {
                let taken = error.kind() == io::ErrorKind::AlreadyExists;
                last = Some(refusal(&path, owner, &error));
                if !taken {
                    break;
                }
            }
        }
    }
    Err(anyhow!(last.unwrap_or_default()))
}

/// Does something on file systems as `owner` would.
fn act_as<T>(
    owner: Option<&Invoker>,
    act: impl FnOnce() -> io::Result<T>,
) -> Result<io::Result<T>> {
    match owner {
        Some(owner) => as_user(owner, act),
        None => Ok(act()),
    }
}

/// Why the file at `path` cannot be written.
fn refusal(path: &Path, owner: Option<&Invoker>, error: &io::Error) -> String {
    let cause = match error.raw_os_error() {
        Some(errno) => Errno::from_raw(errno).desc().to_owned(),
        None => error.to_string(),
    };
    let who = match owner {
        Some(owner) => format!("{}, uid {}", shown(&owner.name), owner.uid),
        None => format!("uid {}", Uid::effective()),
    };
    format!("cannot write {}: {cause} (as {who})", shown(path.as_os_str()))
}

/// Lets this thread, and no other, do one thing on file systems with the rights of a user
/// (setfsuid(2)): leaving uid 0, it is without root's capabilities over files too.
fn as_user<T>(user: &Invoker, act: impl FnOnce() -> T) -> Result<T> {
    let groups = getgroups()?;
    set_thread_groups(&user.groups)
        .with_context(|| format!("cannot take the groups of {}", shown(&user.name)))?;
    let gid = setfsgid(user.gid);
    let uid = setfsuid(user.uid);
    // They return what was, and no error; this id is none, and changes nothing.
    let taken = setfsuid(Uid::from_raw(u32::MAX)) == user.uid
        && setfsgid(Gid::from_raw(u32::MAX)) == user.gid;
    let done = taken.then(act);
    setfsuid(uid);
    setfsgid(gid);
    set_thread_groups(&groups).context("cannot take back our own groups")?;
    match done {
        Some(done) => Ok(done),
        None => bail!("cannot write files as {}: setfsuid was refused", shown(&user.name)),
    }
}

/// setgroups(2) for this thread; the function of the C library is for all of them.
fn set_thread_groups(groups: &[Gid]) -> nix::Result<()> {
    let raw: Vec<libc::gid_t> = groups.iter().map(|group| group.as_raw()).collect();
    // SAFETY: the pointer and the length are those of a live vector, which the kernel only reads.
    Errno::result(unsafe { libc::syscall(libc::SYS_setgroups, raw.len(), raw.as_ptr()) })?;
    Ok(())
}

/// Whether an output file stands for stdout. By either name it is the fd that we have: to open it
/// anew could be refused, and would truncate what stdout is redirected to.
#[must_use]
pub fn is_stdout(path: &Path) -> bool {
    path == "-" || path == "/dev/stdout"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        io::{Read, Write},
        os::{
            fd::AsRawFd,
            unix::fs::{MetadataExt, PermissionsExt},
        },
        thread,
    };
    use tempfile::TempDir;
    use test_support::skip;

    /// A directory that all may enter, and write to if `mode` says so.
    fn directory(mode: u32) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        directory
    }

    /// A uid that is nobody's.
    const OTHER: u32 = 54321;

    /// `nobody`; without root, `None`, and the test is skipped.
    fn nobody() -> Option<Invoker> {
        if Uid::effective().is_root() {
            return Some(Invoker::named("nobody").unwrap());
        }
        skip!("acting as another user needs root")
    }

    #[test]
    fn a_file_is_truncated() {
        let directory = directory(0o700);
        let path = directory.path().join("trace.jsonl");
        fs::write(&path, "old and longer").unwrap();
        create(&path, None).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }

    #[test]
    fn content_is_kept_unless_it_may_be_overwritten() {
        let directory = directory(0o700);
        let path = directory.path().join("trace.jsonl");
        fs::write(&path, "old").unwrap();
        let error = open(&path, None, Content::Refuse).unwrap_err().to_string();
        let wanted =
            format!("cannot write {}: it has 3 bytes already; add --append", path.display());
        assert!(error.starts_with(&wanted) && error.contains("--overwrite"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"old");

        open(&path, None, Content::Append).unwrap().file.write_all(b"+new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old+new");
        open(&path, None, Content::Overwrite).unwrap().file.write_all(b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");

        // An empty file, a new one and a device have none.
        fs::write(&path, "").unwrap();
        let opened = open(&path, None, Content::Refuse).unwrap();
        assert_eq!(opened.place.unwrap().name(), "trace.jsonl");
        let new = directory.path().join("new");
        assert!(open(&new, None, Content::Refuse).unwrap().place.is_some());
        for device in ["/dev/null", "/dev/stdout", "-"] {
            let opened = open(Path::new(device), None, Content::Refuse).unwrap();
            assert!(opened.place.is_none(), "{device}");
        }
    }

    #[test]
    fn a_file_with_several_names_is_not_appended_to_where_others_may_write() {
        let shared = directory(0o777);
        let [precious, path] = ["precious", "out"].map(|name| shared.path().join(name));
        fs::write(&precious, "text").unwrap();
        fs::hard_link(&precious, &path).unwrap();
        let error = open(&path, None, Content::Append).unwrap_err().to_string();
        assert!(error.contains("out has several names, in a directory to which"), "{error}");
        fs::remove_file(&precious).unwrap();
        open(&path, None, Content::Append).unwrap().file.write_all(b"+").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"text+");
    }

    #[test]
    fn files_beside_the_first_are_those_of_its_owner() {
        let Some(nobody) = nobody() else { return };
        let directory = directory(0o777);
        let path = directory.path().join("trace.jsonl");
        let OutputFile { file, place } = open(&path, Some(&nobody), Content::Refuse).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let place = place.unwrap();
        let [new, old] = ["new", "old"].map(|name| (OsStr::new(name), directory.path().join(name)));
        // What others planted there is not followed.
        std::os::unix::fs::symlink(&path, &new.1).unwrap();
        place.create(new.0, &file).unwrap().write_all(b"new").unwrap();
        let made = fs::symlink_metadata(&new.1).unwrap();
        assert_eq!((made.uid(), made.mode() & 0o777), (nobody.uid.as_raw(), 0o640));
        assert!(place.rename(new.0, old.0).unwrap() && !place.rename(new.0, old.0).unwrap());
        (&file).write_all(b"text").unwrap();
        let mut text = String::new();
        place.reader(&file).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "text");
        assert!(place.remove(old.0).unwrap() && !place.remove(old.0).unwrap());
    }

    #[test]
    fn a_new_file_takes_the_place_of_none() {
        let Some(nobody) = nobody() else { return };
        let directory = directory(0o777);
        let paths = ["a", "b", "c"].map(|name| directory.path().join(name));
        std::os::unix::fs::symlink("/nowhere", &paths[0]).unwrap();
        fs::write(&paths[1], "old").unwrap();
        let (path, mut file) = create_new(paths.iter().cloned(), Some(&nobody)).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!((&path, fs::metadata(&path).unwrap().uid()), (&paths[2], nobody.uid.as_raw()));
        assert_eq!(fs::read(&paths[1]).unwrap(), b"old");
        let error = create_new(paths.into_iter(), None).unwrap_err().to_string();
        assert!(error.contains("/c: File exists (as uid 0)"), "{error}");
    }

    #[test]
    fn it_belongs_to_the_owner() {
        let Some(nobody) = nobody() else { return };
        let directory = directory(0o777);
        let path = directory.path().join("trace.jsonl");
        create(&path, Some(&nobody)).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.uid(), made.gid()), (nobody.uid.as_raw(), nobody.gid.as_raw()));
    }

    #[test]
    fn where_the_owner_may_not_write_root_does_not() {
        let Some(nobody) = nobody() else { return };
        let directory = directory(0o755);
        let path = directory.path().join("trace.jsonl");
        let error = create(&path, Some(&nobody)).unwrap_err().to_string();
        let start = format!("cannot write {}: Permission denied (as nobody, ", path.display());
        assert!(error.starts_with(&start), "{error}");
        assert!(!path.exists());

        fs::write(&path, "root's").unwrap();
        create(&path, Some(&nobody)).unwrap_err();
        assert_eq!(fs::read(&path).unwrap(), b"root's");
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let Some(nobody) = nobody() else { return };
        let uid = nobody.uid.as_raw();
        // Whose the directory is, its mode, who made the link, who writes.
        for (of, mode, maker, owner, followed) in [
            (0, 0o1777, OTHER, None, false),
            (0, 0o1777, OTHER, Some(&nobody), false),
            (0, 0o1777, uid, None, false),
            (0, 0o1777, uid, Some(&nobody), true),
            (0, 0o1777, 0, Some(&nobody), true),
            (0, 0o1777, 0, None, true),
            (0, 0o755, 0, None, true),
            (0, 0o777, 0, None, false),
            (0, 0o777, uid, Some(&nobody), false),
            (uid, 0o755, uid, None, false),
            (uid, 0o755, 0, None, false),
            (uid, 0o755, uid, Some(&nobody), true),
            (OTHER, 0o755, uid, Some(&nobody), false),
        ] {
            // As the file's own name, and as that of a directory on the way.
            for in_path in [false, true] {
                let case = format!("{of} {mode:o} {maker} {owner:?} {in_path}");
                let (directory, target) = (directory(0o755), directory(0o755));
                let precious = target.path().join("precious");
                fs::write(&precious, "text").unwrap();
                for path in [target.path(), &precious] {
                    std::os::unix::fs::chown(path, owner.map(|_| uid), None).unwrap();
                }
                let link = directory.path().join("link");
                let (to, path) = if in_path {
                    (target.path(), link.join("precious"))
                } else {
                    (precious.as_path(), link.clone())
                };
                std::os::unix::fs::symlink(to, &link).unwrap();
                std::os::unix::fs::lchown(&link, Some(maker), None).unwrap();
                std::os::unix::fs::chown(directory.path(), Some(of), None).unwrap();
                fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
                let created = create(&path, owner);
                assert_eq!(created.is_ok(), followed, "{case}: {created:?}");
                assert_eq!(fs::read(&precious).unwrap().is_empty(), followed, "{case}");
                if let Err(error) = created {
                    let error = error.to_string();
                    assert!(error.contains(": link is a link "), "{case}: {error}");
                }
            }
        }
    }

    #[test]
    fn a_planted_hard_link_leaves_the_file_as_it_was() {
        let Some(nobody) = nobody() else { return };
        let uid = nobody.uid.as_raw();
        // Whose the directory is, its mode, whose the file is; whether the file itself is written, or
        // made anew.
        for (of, mode, file, written, replaced) in [
            (uid, 0o755, 0, false, true),
            (uid, 0o755, 54321, false, false),
            (uid, 0o755, uid, true, false),
            (0, 0o1777, 0, false, true),
            (0, 0o1777, uid, false, false),
            (0, 0o775, 0, false, true),
            (0, 0o755, 0, true, false),
        ] {
            let directory = directory(0o755);
            let [precious, path] = ["precious", "out"].map(|name| directory.path().join(name));
            fs::write(&precious, "text").unwrap();
            std::os::unix::fs::chown(&precious, Some(file), None).unwrap();
            fs::hard_link(&precious, &path).unwrap();
            std::os::unix::fs::chown(directory.path(), Some(of), None).unwrap();
            fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
            let case = format!("{of} {mode:o} {file}");
            let created = create(&path, None);
            assert_eq!(created.is_ok(), written || replaced, "{case}: {created:?}");
            let text = if written { "" } else { "text" };
            assert_eq!(fs::read_to_string(&precious).unwrap(), text, "{case}");
            let [kept, now] = [&precious, &path].map(|path| fs::metadata(path).unwrap().ino());
            assert_eq!(kept != now, replaced, "{case}");
            if let Err(error) = created {
                assert!(
                    error.to_string().contains(&format!("belongs to uid {file}, in ")),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn paths_are_walked_as_the_kernel_walks_them() {
        let directory = directory(0o755);
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        std::os::unix::fs::symlink("a/b", at("relative")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("absolute")).unwrap();
        std::os::unix::fs::symlink("new", at("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        for (path, file) in [
            ("relative/../one", "a/one"),
            ("absolute/b/.././two", "a/two"),
            ("a//b/three", "a/b/three"),
            ("dangling", "new"),
        ] {
            create(&at(path), None).unwrap().write_all(path.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(at(file)).unwrap(), path);
        }
        for (path, cause) in [
            ("a", "Is a directory"),
            ("a/", "Is a directory"),
            ("missing/", "No such file"),
            ("missing/x", "No such file"),
            ("new/x", "Not a directory"),
            ("loop", "Too many"),
        ] {
            let error = create(&at(path), None).unwrap_err().to_string();
            assert!(error.contains(cause), "{path}: {error}");
        }
        let file = File::create(at("by-fd")).unwrap();
        for name in ["/dev/fd", "/proc/self/fd", "/proc/thread-self/fd"] {
            let path = Path::new(name).join(file.as_raw_fd().to_string());
            create(&path, None).unwrap().write_all(name.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(at("by-fd")).unwrap(), name);
        }
    }

    #[test]
    fn our_own_rights_come_back() {
        let Some(nobody) = nobody() else { return };
        let groups = getgroups().unwrap();
        let directory = directory(0o755);
        let path = directory.path().join("trace.jsonl");
        create(&path, Some(&nobody)).unwrap_err();
        assert_eq!(getgroups().unwrap(), groups);
        create(&path, None).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.uid(), made.gid()), (0, Gid::effective().as_raw()));
    }

    #[test]
    fn a_supplementary_group_opens_a_directory() {
        let Some(mut nobody) = nobody() else { return };
        let directory = directory(0o770);
        let group = Gid::from_raw(54321);
        std::os::unix::fs::chown(directory.path(), None, Some(group.as_raw())).unwrap();
        let path = directory.path().join("trace.jsonl");
        create(&path, Some(&nobody)).unwrap_err();
        nobody.groups.push(group);
        create(&path, Some(&nobody)).unwrap();
    }

    #[test]
    fn a_fifo_and_stdout_will_do() {
        let directory = directory(0o755);
        let path = directory.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let writer = {
            let path = path.clone();
            thread::spawn(move || create(&path, None).unwrap().write_all(b"line\n").unwrap())
        };
        let mut read = String::new();
        File::open(&path).unwrap().read_to_string(&mut read).unwrap();
        writer.join().unwrap();
        assert_eq!(read, "line\n");

        let ours = fs::metadata("/proc/self/fd/1").unwrap();
        let copy = create(Path::new("-"), None).unwrap().metadata().unwrap();
        assert_eq!((copy.dev(), copy.ino()), (ours.dev(), ours.ino()));
    }

    #[test]
    fn an_error_is_one_line() {
        let error = create(Path::new("/no-such\n-dir/x"), None).unwrap_err().to_string();
        assert!(error.contains("No such file or directory"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}
