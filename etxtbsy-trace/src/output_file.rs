//! The file of `--output`.

use crate::{
    cli::{is_stdout, shown},
    user::Invoker,
};
use anyhow::{Context, Result, anyhow, bail};
use nix::{
    errno::Errno,
    unistd::{Gid, Uid, getgroups, setfsgid, setfsuid},
};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

/// Creates or truncates the file at `path` (`-`: stdout) as `owner` would: it is theirs, and
/// where they may not write, it fails. `None` is ourselves.
///
/// A FIFO blocks until it has a reader.
pub fn create(path: &Path, owner: Option<&Invoker>) -> Result<File> {
    if is_stdout(path) {
        let stdout: OwnedFd =
            io::stdout().as_fd().try_clone_to_owned().context("cannot write to stdout")?;
        return Ok(stdout.into());
    }
    open(owner, || unless_planted(path, owner))?
        .map_err(|error| anyhow!("{}; name another file: -o FILE", refusal(path, owner, &error)))
}

/// Creates the first of the files at `paths` that does not exist yet, as `owner` would.
pub fn create_new(
    paths: impl Iterator<Item = PathBuf>,
    owner: Option<&Invoker>,
) -> Result<(PathBuf, File)> {
    let mut last = None;
    for path in paths {
        match open(owner, || File::create_new(&path))? {
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

/// Creates or truncates a file; a link that some other user has put there is not followed, unless
/// root has. (The kernel itself does not follow it in /tmp, if fs.protected_symlinks is set.)
fn unless_planted(path: &Path, owner: Option<&Invoker>) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    match options.clone().custom_flags(libc::O_NOFOLLOW).open(path) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {}
        opened => return opened,
    }
    let own = owner.map_or_else(Uid::effective, |owner| owner.uid);
    let link = path.symlink_metadata()?;
    if link.is_symlink() && ![0, own.as_raw()].contains(&link.uid()) {
        return Err(io::Error::other(format!("it is a link that uid {} made", link.uid())));
    }
    options.open(path)
}

/// Opens a file as `owner` would.
fn open(
    owner: Option<&Invoker>,
    open: impl FnOnce() -> io::Result<File>,
) -> Result<io::Result<File>> {
    match owner {
        Some(owner) => as_user(owner, open),
        None => Ok(open()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, Permissions},
        io::{Read, Write},
        os::unix::fs::{MetadataExt, PermissionsExt},
        thread,
    };
    use tempfile::TempDir;

    /// A directory that all may enter, and write to if `mode` says so.
    fn directory(mode: u32) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), Permissions::from_mode(mode)).unwrap();
        directory
    }

    /// `nobody`, or `None`, with the reason printed, for those who may not act as another.
    fn nobody() -> Option<Invoker> {
        if Uid::effective().is_root() {
            return Some(Invoker::named("nobody").unwrap());
        }
        eprintln!("skipped: only root can act as another user");
        None
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
        let directory = directory(0o777);
        let at = |name: &str| directory.path().join(name);
        fs::write(at("precious"), "text").unwrap();
        std::os::unix::fs::chown(at("precious"), Some(nobody.uid.as_raw()), None).unwrap();
        for (maker, owner, followed) in [
            (54321, None, false),
            (54321, Some(&nobody), false),
            (nobody.uid.as_raw(), None, false),
            (nobody.uid.as_raw(), Some(&nobody), true),
            (0, Some(&nobody), true),
            (0, None, true),
        ] {
            let link = at("link");
            std::os::unix::fs::symlink("precious", &link).unwrap();
            std::os::unix::fs::lchown(&link, Some(maker), None).unwrap();
            fs::write(at("precious"), "text").unwrap();
            let created = create(&link, owner);
            assert_eq!(created.is_ok(), followed, "{maker}");
            assert_eq!(fs::read(at("precious")).unwrap().is_empty(), followed, "{maker}");
            if let Err(error) = created {
                let told = format!("/link: it is a link that uid {maker} made (as ");
                assert!(error.to_string().contains(&told), "{error}");
            }
            fs::remove_file(link).unwrap();
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
