//! The opener still has the file open, in other namespaces, on other file systems, or by other names.

use super::named::victim_by_fd;
use super::{Busy, Named, Supported, number_or_errno};
use crate::child::{Actor, close, fork, wait};
use crate::report::{Holder, Scene, Task};
use crate::stage::{self, SCRIPT};
use anyhow::{Context, Result};
use etxtbsy_trace_event::{VerdictKind, Via};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::Mode;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) const SCENES: &[Named] = &[
    ("other-namespaces", other_namespaces),
    ("tmpfs", tmpfs),
    ("overlay", overlay),
    ("overlay-upper", overlay_upper),
    ("unlinked", unlinked),
    ("hard-link", hard_link),
    ("memfd", memfd),
];

/// The opener is the first process of a pid namespace, and has its own mount namespace.
fn other_namespaces() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let outside = Actor::start(|control| {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS) {
            control.send([-i64::from(errno as i32)]);
            return Ok(());
        }
        let inside = fork(|| {
            let open_and_close = || {
                control.wait()?;
                let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
                let fd = open(&busy.path, flags, Mode::empty())?.into_raw_fd();
                control.send([fd.into()]);
                control.release(|| close(fd))
            };
            open_and_close().map_or_else(|errno: Errno| errno as i32, |()| 0)
        });
        let inside = inside.map_err(|_| Errno::EAGAIN)?;
        control.send([inside.as_raw().into()]);
        match wait(inside) {
            Ok(0) => Ok(()),
            _ => Err(Errno::ECHILD),
        }
    })?;
    let inside = number_or_errno(outside.receive()?, "unshare")?;
    outside.resume(0)?;
    let [fd] = outside.receive()?;
    victim.exec()?;

    let holder = Holder {
        ns_pid: Some(1),
        ancestors: vec![outside.task().pid, Task::current().pid],
        ..Holder::opener(Task::main_of(inside), [fd as i32])
    };
    let released_after = Some(outside.release()?);
    Ok(victim.scene(VerdictKind::StillOpen, vec![Holder { released_after, ..holder }]))
}

fn tmpfs() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let _mounted = mount_tmpfs(dir.path())?;
    let busy = Busy::at(dir.path().join("busy"))?;
    busy.victim()?.held_by(busy.open()?, Via::Open)
}

/// Writer and exec both use the merged directory.
fn overlay() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let mounted = Overlay::new(dir.path())?;
    let busy = Busy::at(mounted.merged.join("busy"))?;
    busy.victim()?.held_by(busy.open()?, Via::Open)
}

/// The exec uses the file in the upper directory; the writer uses the merged directory.
fn overlay_upper() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::DEFAULT_DIR))?;
    let mounted = Overlay::new(dir.path())?;
    let merged = Busy::at(mounted.merged.join("busy"))?;
    let upper = Busy::existing(mounted.upper.join("busy"))?;
    let scene = upper.victim()?.held_by(merged.open()?, Via::Open)?;
    Ok(opened_as(scene, &merged.path))
}

fn unlinked() -> Result<Scene> {
    let busy = Busy::new()?;
    let reference = busy.reference()?;
    let victim = victim_by_fd(&busy, &reference)?;
    let file = busy.open()?;
    fs::remove_file(&busy.path)?;
    victim.held_by(file, Via::Open)
}

/// Written by one name, exec'd by another.
fn hard_link() -> Result<Scene> {
    let busy = Busy::new()?;
    let link = busy.beside("link");
    fs::hard_link(&busy.path, &link)?;
    let victim = busy.victim()?;
    let file = OpenOptions::new().write(true).open(&link)?;
    Ok(opened_as(victim.held_by(file, Via::Open)?, &link))
}

/// The memfd's first description does not count as a writer; one that is opened through /proc does.
fn memfd() -> Result<Scene> {
    let mut memory = File::from(memfd_create(c"busy", MFdFlags::MFD_CLOEXEC).supported("memfd")?);
    memory.write_all(SCRIPT)?;
    let path = PathBuf::from("/memfd:busy");
    let busy = Busy { _dir: None, path, ino: memory.metadata()?.ino() };
    let victim = victim_by_fd(&busy, &memory)?;
    let file =
        OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", memory.as_raw_fd()))?;
    victim.held_by(file, Via::Open)
}

/// Sets the path that the holders opened, if it is not the busy file's.
fn opened_as(mut scene: Scene, path: &Path) -> Scene {
    for holder in &mut scene.holders {
        holder.opened_as = Some(path.into());
    }
    scene
}

/// A file system that this process mounted in its own mount namespace.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // The mount would end with the namespace, but its directory would stay.
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// Mounts a tmpfs that no other process sees.
fn mount_tmpfs(target: &Path) -> Result<Mounted> {
    unshare(CloneFlags::CLONE_NEWNS).supported("unshare(CLONE_NEWNS)")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).supported("mount")?;
    mount(Some("none"), target, Some("tmpfs"), MsFlags::empty(), none).supported("mount tmpfs")?;
    Ok(Mounted(target.into()))
}

/// An overlay, all of it on one tmpfs.
struct Overlay {
    upper: PathBuf,
    merged: PathBuf,
    /// In the order of unmounting.
    _mounted: [Mounted; 2],
}

impl Overlay {
    fn new(dir: &Path) -> Result<Self> {
        let tmpfs = mount_tmpfs(dir)?;
        let [lower, upper, work, merged] =
            ["lower", "upper", "work", "merged"].map(|name| dir.join(name));
        for made in [&lower, &upper, &work, &merged] {
            fs::create_dir(made).with_context(|| made.display().to_string())?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            lower.display(),
            upper.display(),
            work.display()
        );
        let flags = MsFlags::empty();
        mount(Some("none"), &merged, Some("overlay"), flags, Some(options.as_str()))
            .supported("mount overlay")?;
        Ok(Self { upper, _mounted: [Mounted(merged.clone()), tmpfs], merged })
    }
}
