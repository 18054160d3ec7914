//! A FUSE file system with a symbolic link, a program that is always busy, and a file that cannot be
//! written. It can answer only one process. The protocol is in include/uapi/linux/fuse.h.

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::thread::{JoinHandle, spawn};

/// The name of the link.
pub(crate) const LINK: &str = "link";
/// The name of a file that answers ETXTBSY to open, setattr, unlink and rename.
pub(crate) const FILE: &str = "file";

/// The name of a file that can be opened, but whose writes fail with EIO.
pub(crate) const BROKEN: &str = "broken";

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const SETATTR: u32 = 4;
const READLINK: u32 = 5;
const UNLINK: u32 = 10;
const RENAME: u32 = 12;
const OPEN: u32 = 14;
const WRITE: u32 = 16;
const INIT: u32 = 26;
const RENAME2: u32 = 45;
const ROOT: u64 = 1;
const LINK_NODE: u64 = 2;
const FILE_NODE: u64 = 3;
const BROKEN_NODE: u64 = 4;
/// Writes are not delayed: `FOPEN_DIRECT_IO`.
const DIRECT: u32 = 1;

/// A request: `struct fuse_in_header`.
struct Request {
    opcode: u32,
    unique: u64,
    node: u64,
    pid: u32,
    /// What follows the header.
    body: Vec<u8>,
}

impl Request {
    fn read(mut device: &File) -> io::Result<Self> {
        let mut bytes = vec![0; 1 << 20];
        let read = device.read(&mut bytes)?;
        assert!(read >= 40);
        let u32_at = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        let u64_at = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let (opcode, pid, body) = (u32_at(4), u32_at(32), bytes[40..read].to_vec());
        Ok(Self { opcode, unique: u64_at(8), node: u64_at(16), pid, body })
    }

    /// The answer, which begins with `struct fuse_out_header`; FORGET has no answer.
    fn answer(&self, target: &Path) -> Option<Vec<u8>> {
        let (error, body) = match self.opcode {
            FORGET => return None,
            // Protocol 7.31; `struct fuse_init_out`.
            INIT => (0, [words(&[7, 31, 0, 0, 0, 4096, 1]), vec![0; 36]].concat()),
            LOOKUP => match self.body.strip_suffix(b"\0") {
                Some(name) if name == LINK.as_bytes() => (0, entry(LINK_NODE)),
                Some(name) if name == FILE.as_bytes() => (0, entry(FILE_NODE)),
                Some(name) if name == BROKEN.as_bytes() => (0, entry(BROKEN_NODE)),
                _ => (-(Errno::ENOENT as i32), Vec::new()),
            },
            // `struct fuse_open_out`.
            OPEN if self.node == BROKEN_NODE => (0, [long(&[0]), words(&[DIRECT, 0])].concat()),
            SETATTR if self.node == BROKEN_NODE => (0, self.attributes()),
            WRITE => (-(Errno::EIO as i32), Vec::new()),
            OPEN | SETATTR | UNLINK | RENAME | RENAME2 => (-(Errno::ETXTBSY as i32), Vec::new()),
            GETATTR => (0, self.attributes()),
            READLINK => (0, target.as_os_str().as_encoded_bytes().to_vec()),
            _ => (-(Errno::ENOSYS as i32), Vec::new()),
        };
        let length = (16 + body.len()) as u32;
        Some([words(&[length, error.cast_unsigned()]), long(&[self.unique]), body].concat())
    }

    /// `struct fuse_attr_out`.
    fn attributes(&self) -> Vec<u8> {
        [long(&[0]), words(&[0, 0]), attributes(self.node)].concat()
    }
}

/// `struct fuse_entry_out`, which must not be cached.
fn entry(node: u64) -> Vec<u8> {
    [long(&[node, 0, 0, 0]), words(&[0, 0]), attributes(node)].concat()
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let mode = match node {
        ROOT => 0o040_755,
        FILE_NODE | BROKEN_NODE => 0o100_755,
        _ => 0o120_777,
    };
    [long(&[node, 0, 0, 0, 0, 0]), words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn long(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A mounted file system with its server.
pub(crate) struct Server(JoinHandle<Vec<(u32, u32)>>);

impl Server {
    /// Mounts it at `at`, for this thread and what it starts alone, with a link to `target`; `None`
    /// if this kernel has none.
    ///
    /// `is_served` says of a pid whether it is answered. At the first request of another one, and
    /// once the mount has gone, it ends; whoever waits for an answer then gets an error.
    pub(crate) fn start(
        at: &Path,
        target: &Path,
        is_served: impl Fn(u32) -> bool + Send + 'static,
    ) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let nothing = None::<&str>;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        let options =
            format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        mount(Some("test"), at, Some("fuse"), MsFlags::empty(), Some(&*options)).ok()?;
        let target = target.to_owned();
        Some(Self(spawn(move || {
            // The end is ENODEV.
            while let Ok(request) = Request::read(&device) {
                if request.opcode != INIT && request.opcode != FORGET && !is_served(request.pid) {
                    return vec![(request.pid, request.opcode)];
                }
                if let Some(answer) = request.answer(&target) {
                    (&device).write_all(&answer).unwrap();
                }
            }
            Vec::new()
        })))
    }

    /// The requests of others: pid and opcode. The mount must have gone.
    pub(crate) fn end(self) -> Vec<(u32, u32)> {
        self.0.join().unwrap()
    }
}
