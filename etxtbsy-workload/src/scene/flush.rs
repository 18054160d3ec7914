//! close(2) waits until the file system has flushed: the fd is closed, but the file is still open.
//!
//! A process of the scene serves the file system, by the protocol of include/uapi/linux/fuse.h.

use super::{Busy, Named, Supported};
use crate::child::{Actor, Control, close, wait_success};
use crate::report::{Holder, Scene};
use crate::stage;
use anyhow::{Context, Result};
use etxtbsy_trace_event::{Evidence, VerdictKind};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;

pub(super) const SCENES: &[Named] = &[("closing-flushes", closing_flushes)];

const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const BATCH_FORGET: u32 = 42;

const ROOT: u64 = 1;
const FILE: u64 = 2;
/// The only file.
const NAME: &str = "busy";
/// A lookup of this name ends the flush.
const GO: &str = "go";

fn closing_flushes() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let device = open("/dev/fuse", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
    let device = File::from(device.map_err(no_device).supported("/dev/fuse")?);
    // In its own mount namespace: the mount ends with this process, and the server with the mount.
    let server = Actor::start(|control| {
        set_pdeathsig(Signal::SIGKILL)?;
        // Reading the device works only after the mount.
        control.wait()?;
        serve(&device, control)
    })?;
    unshare(CloneFlags::CLONE_NEWNS).supported("unshare(CLONE_NEWNS)")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).supported("mount")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    mount(Some("none"), dir.path(), Some("fuse"), MsFlags::empty(), Some(&*options))
        .supported("mount fuse")?;
    // Otherwise, if the server ended, callers would wait for an answer for ever.
    drop(device);
    server.resume(0)?;

    let busy = Busy::existing(dir.path().join(NAME))?;
    let victim = busy.victim()?;
    let holder = Actor::start(|control| {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let fd = open(&busy.path, flags, Mode::empty())?.into_raw_fd();
        control.send([fd.into()]);
        control.release(|| close(fd))
    })?;
    let [_] = holder.receive()?;
    holder.resume(0)?;
    let [_] = server.receive().context("a flush")?;
    victim.exec()?;
    // The file does not exist: the lookup is the signal.
    let _ = busy.beside(GO).metadata();
    let [before, _] = holder.receive()?.map(i64::cast_unsigned);
    wait_success(holder.pid())?;
    umount2(dir.path(), MntFlags::MNT_DETACH)?;
    wait_success(server.pid())?;

    let holder = Holder {
        cloexec: false,
        evidence: Some(Evidence::KernelObject),
        call: Some("close".into()),
        // If the call returns before the tracer follows the returns of all calls, the tracer sees the release
        // later, by a query.
        released_after: Some((before, u64::MAX)),
        ..Holder::opener(holder.task(), [])
    };
    Ok(victim.scene(VerdictKind::StillOpen, vec![holder]))
}

/// ENOENT means that the driver is missing.
fn no_device(errno: Errno) -> Errno {
    if errno == Errno::ENOENT { Errno::ENODEV } else { errno }
}

/// Answers requests until the unmount. Reports the first flush, and answers it after the lookup of `GO`.
fn serve(device: &File, control: &Control) -> nix::Result<()> {
    let mut bytes = vec![0; 1 << 20];
    let mut flush = None;
    loop {
        let read = match nix::unistd::read(device, &mut bytes) {
            Ok(read) => read,
            Err(Errno::ENODEV) => return Ok(()),
            Err(Errno::ENOENT | Errno::EINTR) => continue,
            Err(errno) => return Err(errno),
        };
        let request = Request::parse(bytes.get(..read).ok_or(Errno::EIO)?).ok_or(Errno::EIO)?;
        let answer = match request.opcode {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            FLUSH if flush.is_none() => {
                flush = Some(request.unique);
                control.send([0]);
                continue;
            }
            _ => request.answer(),
        };
        if let (Some(unique), true) = (flush, request.is_lookup_of(GO)) {
            send(device, unique, Ok(&[]))?;
        }
        send(device, request.unique, answer.as_deref().map_err(|errno| *errno))?;
    }
}

/// A request: `struct fuse_in_header`, and what follows it.
struct Request<'a> {
    opcode: u32,
    unique: u64,
    node: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, body) = bytes.split_at_checked(40)?;
        let long = |at: usize| Some(u64::from_ne_bytes(header.get(at..at + 8)?.try_into().ok()?));
        let opcode = u32::from_ne_bytes(header.get(4..8)?.try_into().ok()?);
        Some(Self { opcode, unique: long(8)?, node: long(16)?, body })
    }

    fn is_lookup_of(&self, name: &str) -> bool {
        self.opcode == LOOKUP && self.body.strip_suffix(b"\0") == Some(name.as_bytes())
    }

    fn answer(&self) -> nix::Result<Vec<u8>> {
        match self.opcode {
            // Protocol 7.31; `struct fuse_init_out`.
            INIT => Ok([words(&[7, 31, 0, 0, 0, 4096, 1]), vec![0; 36]].concat()),
            // `struct fuse_entry_out`, which may not be cached.
            LOOKUP if self.is_lookup_of(NAME) => {
                Ok([longs(&[FILE, 0, 0, 0]), words(&[0, 0]), attributes(FILE)].concat())
            }
            LOOKUP => Err(Errno::ENOENT),
            GETATTR => Ok([longs(&[0]), words(&[0, 0]), attributes(self.node)].concat()),
            // `struct fuse_open_out`.
            OPEN => Ok(longs(&[0, 0])),
            RELEASE | FLUSH => Ok(Vec::new()),
            _ => Err(Errno::ENOSYS),
        }
    }
}

/// Writes an answer, which begins with `struct fuse_out_header`.
fn send(device: &File, unique: u64, answer: nix::Result<&[u8]>) -> nix::Result<()> {
    let error = answer.err().map_or(0, |errno| -(errno as i32)).cast_unsigned();
    let body = answer.unwrap_or_default();
    let answer = [&*words(&[16 + body.len() as u32, error]), &*longs(&[unique]), body].concat();
    match nix::unistd::write(device, &answer) {
        // The caller no longer waits.
        Err(Errno::ENOENT) => Ok(()),
        written => written.map(drop),
    }
}

/// `struct fuse_attr`.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size) = if node == ROOT { (0o040_755, 0) } else { (0o100_755, 16) };
    [longs(&[node, size, 0, 0, 0, 0]), words(&[0, 0, 0, mode, 1, 0, 0, 0, 4096, 0])].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}
