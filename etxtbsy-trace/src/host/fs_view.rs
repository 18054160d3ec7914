//! Files by paths that other processes chose, found without waiting for a process.
//!
//! A file system can be served by a program (FUSE) that answers late or never, and whoever asks it
//! cannot even be killed then. So a path is walked name by name, and no farther than to such a file
//! system; what the kernel itself knows of the file found there is all that is asked of it.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::Read as _,
    os::{
        fd::{AsFd, AsRawFd as _, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            fs::OpenOptionsExt as _,
        },
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, PROC_SUPER_MAGIC, Statx, StatxFlags, fstatfs, openat,
        readlinkat, statx,
    },
    path::Arg,
};

/// How many symbolic links a path may lead through, as for the kernel (`MAXSYMLINKS`).
const LINKS: usize = 40;

/// How many names a path may have, links followed.
const NAMES: usize = 4096;

/// What a process sees of the file systems.
pub struct Sight {
    root: Found,
    /// By their numbers.
    mounts: HashMap<u64, Mount>,
}

/// A mount, as proc_pid_mountinfo(5) has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    /// The number of the one it is on.
    parent: u64,
    /// Its device, as the kernel has it: major << 20 | minor.
    dev: u32,
    /// Where it is.
    point: Vec<u8>,
    /// The type of its file system.
    kind: String,
}

/// A file system that something else than this kernel serves, and what was looked for on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSystem {
    /// Its type, such as `fuse.sshfs`.
    pub kind: String,
    /// Where it is mounted.
    pub mount: Vec<u8>,
    /// Its device, as the kernel has it: major << 20 | minor.
    pub dev: u32,
    /// The path of what was looked for.
    pub path: Vec<u8>,
}

/// File systems whose files others than this kernel may have open: another machine, the host of a virtual
/// machine, a program.
const SERVED: [&str; 15] = [
    "9p", "afs", "beegfs", "ceph", "cifs", "fuseblk", "gpfs", "lustre", "ncpfs", "nfs", "nfs4",
    "prl_fs", "smb3", "vboxsf", "virtiofs",
];

/// A file, opened with O_PATH: with nothing but its identity.
#[derive(Debug)]
pub struct Found {
    /// It.
    pub file: OwnedFd,
    /// Its device, as stat(2) gives it.
    pub dev: u64,
    /// Its inode number.
    pub ino: u64,
    /// When it, or a link that led to it, was last changed: nanoseconds of CLOCK_REALTIME.
    pub changed_ns: i128,
    mount: u64,
    kind: FileType,
}

impl Sight {
    /// Of a process; `None` if it has ended.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        Self::in_proc(&pid.to_string())
    }

    /// Our own.
    #[must_use]
    pub fn ours() -> Option<Self> {
        Self::in_proc("self")
    }

    fn in_proc(process: &str) -> Option<Self> {
        let root = openat(CWD, format!("/proc/{process}/root"), PATH, Mode::empty()).ok()?;
        let mut mounts = HashMap::new();
        // In the process's own list its root's mount is missing, if it has changed its root.
        for process in ["self", process] {
            let list = fs::read(format!("/proc/{process}/mountinfo")).ok()?;
            mounts.extend(list.split(|byte| *byte == b'\n').filter_map(mount));
        }
        Some(Self { root: Found::new(root).ok()?, mounts })
    }

    /// What is at `path`, links followed; `None` also where a program would have to be asked.
    #[must_use]
    pub fn find(&self, path: &Path) -> Option<Found> {
        let (found, left) = self.walk(path)?;
        left.is_empty().then_some(found)
    }

    /// The file system that `path` leads to, if something else than this kernel serves it. Of one that a
    /// program serves, which is not asked, no links are followed within it.
    #[must_use]
    pub fn served(&self, path: &Path) -> Option<FileSystem> {
        let (found, left) = self.walk(path)?;
        let mount = self.mounts.get(&found.mount)?;
        let within: PathBuf = left.iter().rev().collect();
        let point = Path::new(OsStr::from_bytes(&mount.point));
        let whole = if left.is_empty() { path.to_owned() } else { point.join(&within) };
        // What is mounted within it has mount points that the kernel knows by name.
        let is_over = |other: &Mount| {
            other.parent == found.mount
                && whole.starts_with(Path::new(OsStr::from_bytes(&other.point)))
        };
        let is_served = SERVED.contains(&&*mount.kind) || mount.kind == "fuse";
        let is_served = is_served || mount.kind.starts_with("fuse.");
        let is_plain = !left.iter().any(|name| name == "..");
        let covered = !left.is_empty() && self.mounts.values().any(is_over);
        (is_served && is_plain && !covered).then(|| FileSystem {
            kind: mount.kind.clone(),
            mount: mount.point.clone(),
            dev: mount.dev,
            path: whole.into_os_string().into_vec(),
        })
    }

    /// Where file systems of a type are mounted.
    pub fn mounted(&self, kind: &str) -> impl Iterator<Item = &Path> {
        let of_kind = self.mounts.values().filter(move |mount| mount.kind == kind);
        of_kind.map(|mount| Path::new(OsStr::from_bytes(&mount.point)))
    }

    /// As far along `path` as the kernel alone leads, links followed: what is there, and the names that are
    /// left, the next one last.
    fn walk(&self, path: &Path) -> Option<(Found, Vec<OsString>)> {
        let mut names = Vec::new();
        push(&mut names, path.as_os_str());
        let mut at = self.root.again()?;
        let (mut links, mut changed_ns) = (0, 0);
        for _ in 0..NAMES {
            let Some(name) = names.pop() else {
                let changed_ns = changed_ns.max(at.changed_ns);
                return Some((Found { changed_ns, ..at }, names));
            };
            if name == ".." {
                let is_root = (at.mount, at.ino) == (self.root.mount, self.root.ino);
                if is_root {
                    continue;
                }
            } else if name == "/" {
                at = self.root.again()?;
                continue;
            }
            if !self.is_of_the_kernel(&at) {
                names.push(name);
                return Some((at, names));
            }
            let next = openat(&at.file, &name, PATH | OFlags::NOFOLLOW, Mode::empty()).ok()?;
            let next = Found::new(next).ok()?;
            if next.kind != FileType::Symlink {
                at = next;
                continue;
            }
            links += 1;
            // A link of procfs leads where the one who follows it is.
            if links > LINKS || next.is_of_proc() {
                return None;
            }
            changed_ns = changed_ns.max(next.changed_ns);
            push(&mut names, &link(&next)?);
        }
        None
    }

    /// Its first bytes; `None` if it is no regular file, or a program would have to be asked.
    #[must_use]
    pub fn first_bytes(&self, found: &Found) -> Option<[u8; 4]> {
        let mut begin = [0; 4];
        self.open(found)?.read_exact(&mut begin).ok()?;
        Some(begin)
    }

    /// It, to be read; `None` as above.
    #[must_use]
    pub fn open(&self, found: &Found) -> Option<File> {
        if found.kind != FileType::RegularFile || !self.is_of_the_kernel(found) {
            return None;
        }
        let path = format!("/proc/self/fd/{}", found.file.as_raw_fd());
        OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()
    }

    fn is_of_the_kernel(&self, found: &Found) -> bool {
        self.mounts.get(&found.mount).is_some_and(Mount::is_of_the_kernel)
    }
}

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

impl Found {
    fn new(file: OwnedFd) -> rustix::io::Result<Self> {
        let facts = facts(&file, "", AtFlags::EMPTY_PATH)?;
        Ok(Self {
            dev: device(&facts),
            ino: facts.stx_ino,
            changed_ns: i128::from(facts.stx_ctime.tv_sec) * 1_000_000_000
                + i128::from(facts.stx_ctime.tv_nsec),
            mount: facts.stx_mnt_id,
            kind: FileType::from_raw_mode(facts.stx_mode.into()),
            file,
        })
    }

    fn again(&self) -> Option<Self> {
        let Self { dev, ino, changed_ns, mount, kind, .. } = *self;
        Some(Self { file: self.file.try_clone().ok()?, dev, ino, changed_ns, mount, kind })
    }

    fn is_of_proc(&self) -> bool {
        fstatfs(&self.file).is_ok_and(|facts| facts.f_type == PROC_SUPER_MAGIC)
    }

    /// Its device, as the kernel has it: major << 20 | minor.
    #[must_use]
    pub fn kernel_dev(&self) -> u32 {
        (libc::major(self.dev) << 20) | libc::minor(self.dev)
    }
}

/// The program that a process runs: its device, as stat(2) gives it, and its inode number.
#[must_use]
pub fn exe(pid: u32) -> Option<(u64, u64)> {
    let facts = facts(CWD, format!("/proc/{pid}/exe"), AtFlags::empty()).ok()?;
    Some((device(&facts), facts.stx_ino))
}

/// What the kernel knows of a file by itself.
fn facts(at: impl AsFd, path: impl Arg, flags: AtFlags) -> rustix::io::Result<Statx> {
    let wanted = StatxFlags::INO | StatxFlags::TYPE | StatxFlags::MNT_ID | StatxFlags::CTIME;
    statx(at, path, flags | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT, wanted)
}

fn device(facts: &Statx) -> u64 {
    libc::makedev(facts.stx_dev_major, facts.stx_dev_minor)
}

/// Where a symbolic link leads.
fn link(found: &Found) -> Option<OsString> {
    let target = readlinkat(&found.file, "", Vec::new()).ok()?;
    Some(OsString::from_vec(target.into_bytes()))
}

/// Puts the names of a path on those that are left to walk, the next one last.
fn push(names: &mut Vec<OsString>, path: &OsStr) {
    let path = Path::new(path).components().filter(|name| *name != Component::CurDir);
    let before = names.len();
    names.extend(path.map(|name| name.as_os_str().to_owned()));
    names[before..].reverse();
}

impl Mount {
    /// Whether the kernel alone serves it.
    fn is_of_the_kernel(&self) -> bool {
        !self.kind.starts_with("fuse") && self.kind != "autofs"
    }
}

/// A line of mountinfo (proc_pid_mountinfo(5)): the mount's number, and the mount.
fn mount(line: &[u8]) -> Option<(u64, Mount)> {
    let mut words = line.split(|byte| *byte == b' ');
    let mut number = || -> Option<u64> { str::from_utf8(words.next()?).ok()?.parse().ok() };
    let (id, parent) = (number()?, number()?);
    let (major, minor) = str::from_utf8(words.next()?).ok()?.split_once(':')?;
    let dev = (major.parse::<u32>().ok()? << 20) | minor.parse::<u32>().ok()?;
    let point = unescaped(words.nth(1)?);
    let kind = words.skip_while(|word| *word != b"-").nth(1)?;
    let kind = String::from_utf8_lossy(kind).into_owned();
    Some((id, Mount { parent, dev, point, kind }))
}

/// A path in mountinfo, where blanks and backslashes are octal numbers (`mangle_path`, fs/seq_file.c).
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut left = word;
    while let [byte, rest @ ..] = left {
        let escape = rest.get(..3).filter(|_| *byte == b'\\');
        let number = escape.and_then(|digits| str::from_utf8(digits).ok());
        if let Some(escaped) = number.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(escaped);
            left = &rest[3..];
        } else {
            bytes.push(*byte);
            left = rest;
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, symlink};

    /// That `path` leads to the same file as for the kernel.
    #[track_caller]
    fn assert_found(path: &Path) {
        let found = Sight::ours().unwrap().find(path).expect("found");
        let facts = fs::metadata(path).unwrap();
        assert_eq!((found.dev, found.ino), (facts.dev(), facts.ino()), "{}", path.display());
    }

    #[test]
    fn a_path_leads_where_the_kernel_would_go() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::write(at("a/b/file"), "text").unwrap();
        symlink("b/../b/file", at("a/relative")).unwrap();
        symlink(at("a"), at("absolute")).unwrap();
        symlink("again", at("again")).unwrap();
        let names =
            ["a", "a/b/file", "a/relative", "absolute/relative", "a/../absolute/./b/.././relative"];
        for name in names {
            assert_found(&at(name));
        }
        for path in ["/", "/proc", "/../../proc"] {
            assert_found(Path::new(path));
        }
        let sight = Sight::ours().unwrap();
        // Where these lead depends on who follows them.
        for path in ["/proc/self/status", "/proc/self/exe", "/dev/fd/0"] {
            assert!(sight.find(Path::new(path)).is_none(), "{path}");
        }
        for name in ["again", "a/b/file/below", "missing"] {
            assert!(sight.find(&at(name)).is_none(), "{name}");
        }
        let found = sight.find(&at("a/relative")).unwrap();
        assert_eq!(sight.first_bytes(&found), Some(*b"text"));
        assert_eq!(sight.first_bytes(&sight.find(&at("a")).unwrap()), None);
    }

    #[test]
    fn the_program_of_a_process_is_known() {
        let own = fs::metadata("/proc/self/exe").unwrap();
        assert_eq!(exe(std::process::id()), Some((own.dev(), own.ino())));
        assert_eq!(exe(u32::MAX), None);
    }

    #[test]
    fn what_a_program_serves_is_told_by_its_type() {
        let line =
            |kind: &str| format!("36 35 0:42 / /m\\040\u{fffd} rw shared:1 master:2 - {kind} a rw");
        for (kind, is_of_the_kernel) in [
            ("ext4", true),
            ("overlay", true),
            ("fuse", false),
            ("fuseblk", false),
            ("fuse.sshfs", false),
            ("autofs", false),
        ] {
            let (number, mount) = mount(line(kind).as_bytes()).unwrap();
            assert_eq!((number, mount.is_of_the_kernel()), (36, is_of_the_kernel), "{kind}");
            let point = "/m \u{fffd}".as_bytes().to_vec();
            assert_eq!(mount, Mount { parent: 35, dev: 42, point, kind: kind.to_owned() });
        }
        assert_eq!(mount(b""), None);
    }
}
