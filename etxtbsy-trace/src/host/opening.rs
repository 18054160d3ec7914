//! Threads that wait within a call that opens or truncates a file: the kernel counts them as writers
//! already, while no fd table shows the description. (A lease that has to be broken first, a permission
//! event of fanotify.)

use std::{
    fs::File,
    os::unix::{ffi::OsStringExt as _, fs::FileExt as _},
    path::{Path, PathBuf},
};

use crate::host::{
    fs_view::{Found, Sight},
    process::path_behind,
};

/// The longest path that a call takes (`PATH_MAX`).
const PATH_MAX: usize = 4096;

/// Whether a thread is opening a file for writing, or truncating it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// It is.
    Yes,
    /// It is not: it opens another file, or only to read.
    No,
    /// It was in such a call when the exec failed: it has left that call since, or the file could not be
    /// identified.
    Perhaps,
}

/// What thread `tid` of process `pid`, which slept in a call that opens a file a moment ago, is doing with the file of that device (major << 20 | minor) and
/// inode number. Both are numbers of our pid namespace.
#[must_use]
pub fn look(pid: u32, tid: u32, dev: u32, ino: u64) -> Opening {
    match Call::of(pid, tid).map(|call| call.target(pid)) {
        Some(Target::Read) => Opening::No,
        Some(Target::Written(place)) => match find(pid, &place) {
            Some(found) if (found.kernel_dev(), found.ino) == (dev, ino) => Opening::Yes,
            Some(_) => Opening::No,
            None => Opening::Perhaps,
        },
        Some(Target::Unknown) | None => Opening::Perhaps,
    }
}

/// A system call under way: its number and arguments.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    number: i64,
    arguments: [u64; 6],
}

/// What a call does with a file.
enum Target {
    /// It opens it for reading only.
    Read,
    /// It opens it for writing, or truncates it.
    Written(Place),
    /// It is another call, or gives no path that can be read.
    Unknown,
}

/// Where a call looks for its file: relative to a directory, unless the path is absolute.
struct Place {
    directory: Option<i32>,
    path: PathBuf,
}

impl Call {
    /// The call in which a thread sleeps (proc_pid_syscall(5)); `None` if it is in none.
    fn of(pid: u32, tid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let number = words.next()?.parse().ok()?;
        let mut arguments = [0; 6];
        for argument in &mut arguments {
            *argument = u64::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
        }
        Some(Self { number, arguments })
    }

    fn target(&self, pid: u32) -> Target {
        let [first, second, third, ..] = self.arguments;
        let directory = |fd: u64| Some(fd as i32).filter(|fd| *fd != libc::AT_FDCWD);
        let (directory, path, writes) = match self.number {
            libc::SYS_openat => (directory(first), second, writes(third)),
            libc::SYS_openat2 => {
                // `struct open_how` begins with the flags.
                let how = memory(pid, third, 8).and_then(|how| how.try_into().ok());
                let Some(how) = how else { return Target::Unknown };
                (directory(first), second, writes(u64::from_ne_bytes(how)))
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => (None, first, writes(second)),
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => (None, first, true),
            libc::SYS_truncate | libc::SYS_acct => (None, first, true),
            libc::SYS_open_by_handle_at if !writes(third) => return Target::Read,
            _ => return Target::Unknown,
        };
        if !writes {
            return Target::Read;
        }
        let Some(path) = memory(pid, path, PATH_MAX) else { return Target::Unknown };
        let path = path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        let path = PathBuf::from(std::ffi::OsString::from_vec(path));
        Target::Written(Place { directory, path })
    }
}

/// Whether an open with these flags counts as a writer.
fn writes(flags: u64) -> bool {
    flags as i32 & (libc::O_ACCMODE | libc::O_TRUNC) != libc::O_RDONLY
}

/// Up to `len` bytes of a process's memory.
fn memory(pid: u32, address: u64, len: usize) -> Option<Vec<u8>> {
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = vec![0; len];
    let mut read = 0;
    // Page by page: what comes after the text may not be there.
    while read < len {
        let page = (PATH_MAX - (address as usize + read) % PATH_MAX).min(len - read);
        match memory.read_at(&mut bytes[read..read + page], address + read as u64) {
            Ok(0) | Err(_) => break,
            Ok(some) => read += some,
        }
    }
    bytes.truncate(read);
    (read > 0).then_some(bytes)
}

fn find(pid: u32, place: &Place) -> Option<Found> {
    let whole = if place.path.is_absolute() {
        place.path.clone()
    } else {
        let directory = match place.directory {
            Some(fd) => path_behind(&format!("/proc/{pid}/fd/{fd}"))?,
            None => path_behind(&format!("/proc/{pid}/cwd"))?,
        };
        Path::new(&std::ffi::OsString::from_vec(directory)).join(&place.path)
    };
    Sight::of(pid)?.find(&whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read() {
        let call =
            Call::parse("257 0xffffff9c 0x7f00 0x241 0x1ff 0x0 0x0 0x7ffe 0x7f11\n").unwrap();
        assert_eq!((call.number, call.arguments[2]), (257, 0x241));
        assert_eq!(Call::parse("running\n"), None);
        assert_eq!(Call::parse("-1 0x7ffe 0x7f11\n"), None);
    }

    #[test]
    fn reading_is_no_writing() {
        assert!(!writes(libc::O_CLOEXEC as u64));
        assert!(
            [libc::O_WRONLY, libc::O_RDWR, libc::O_TRUNC].iter().all(|flag| writes(*flag as u64))
        );
    }

    #[test]
    fn a_thread_that_has_left_the_call_may_have_opened_the_file() {
        let pid = std::process::id();
        assert_eq!(look(pid, pid, 0, 0), Opening::Perhaps);
    }

    #[test]
    fn memory_is_read_up_to_its_end() {
        let text = b"text\0";
        let read = memory(std::process::id(), text.as_ptr() as u64, 4096).unwrap();
        assert!(read.starts_with(text));
    }
}
