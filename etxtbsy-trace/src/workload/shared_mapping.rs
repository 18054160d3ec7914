//! A shared mapping keeps the open file description after its fd was closed.

use super::child::{Program, fork, wait_busy};
use super::report::{Holder, Scene, Task};
use super::stage::{self, SCRIPT};
use crate::lines::{How, Role, State, VerdictKind, Via};
use anyhow::Result;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::fs::OpenOptions;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub(super) fn run() -> Result<Scene> {
    let dir = stage::directory(Path::new(stage::PLACE))?;
    let path = dir.path().join("busy");
    drop(stage::script(&path)?);
    let program = Program::new(&path)?;

    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let ino = file.metadata()?.ino();
    let length = NonZero::new(SCRIPT.len()).unwrap_or(NonZero::<usize>::MIN);
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice, of which no reference is made.
    let mapping = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, &file, 0) }?;
    drop(file);
    let victim = fork(|| {
        // The copy that the fork made.
        // SAFETY: nobody refers to it.
        match unsafe { munmap(mapping, length.get()) } {
            Ok(()) => program.exec(),
            Err(errno) => errno as i32,
        }
    })?;
    let failure = wait_busy(victim);
    // SAFETY: as above.
    unsafe { munmap(mapping, length.get()) }?;
    failure?;

    let opener = Task::current();
    Ok(Scene {
        scenario: "shared-mapping".into(),
        syscall: "execve".into(),
        path: path.clone(),
        busy: path,
        ino,
        role: Some(Role::Target),
        writers: 1,
        victim: Task::main_of(victim.as_raw()),
        holders: vec![Holder {
            pid: opener.pid,
            fds: Vec::new(),
            cloexec: false,
            via: Via::Mapping,
            state: State::Running,
            opened: Some(opener),
            forked: None,
            ancestors: Vec::new(),
            released: How::Unmap,
            exec: None,
        }],
        unheld: Vec::new(),
        verdict: VerdictKind::SharedMapping,
    })
}
