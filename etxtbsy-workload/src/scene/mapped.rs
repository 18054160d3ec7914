//! A mapping keeps the open file description open after its fd was closed.

use super::{Busy, Named};
use crate::child::{Actor, timed};
use crate::report::{Holder, Scene, Task};
use crate::stage::SCRIPT;
use anyhow::Result;
use etxtbsy_trace_event::{How, VerdictKind, Via};
use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::Mode;
use std::ffi::c_void;
use std::num::NonZero;
use std::path::Path;
use std::ptr::NonNull;

pub(super) const SCENES: &[Named] = &[
    ("shared-mapping", || {
        unmapped(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)
    }),
    ("private-mapping", || unmapped(ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE)),
    ("mapping-until-exit", until_exit),
];

fn unmapped(protection: ProtFlags, flags: MapFlags) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let mapping = map(&busy.path, protection, flags)?;
    victim.exec()?;
    // SAFETY: no reference points into the mapping.
    let (outcome, span) = timed(|| unsafe { munmap(mapping, SCRIPT.len()) });
    outcome?;
    let holder = Holder { released: How::Unmap, ..holder(Task::current()) };
    let holder = Holder { released_after: Some(span), ..holder };
    Ok(victim.scene(VerdictKind::SharedMapping, vec![holder]))
}

fn until_exit() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let actor = Actor::start(|control| {
        map(&busy.path, ProtFlags::PROT_READ, MapFlags::MAP_SHARED)?;
        control.send([0]);
        control.wait().map(drop)
    })?;
    let [_] = actor.receive()?;
    victim.exec()?;
    let holder = Holder { released: How::Exit, ..holder(actor.task()) };
    let holder = Holder { released_after: Some(actor.end()?), ..holder };
    Ok(victim.scene(VerdictKind::SharedMapping, vec![holder]))
}

/// Opens a file for reading and writing, maps it, and closes the fd.
fn map(path: &Path, protection: ProtFlags, flags: MapFlags) -> nix::Result<NonNull<c_void>> {
    let length = NonZero::new(SCRIPT.len()).unwrap_or(NonZero::<usize>::MIN);
    let file = open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    // SAFETY: a new mapping at an address that the kernel chooses; no reference is made into it.
    unsafe { mmap(None, length, protection, flags, &file, 0) }
}

fn holder(task: Task) -> Holder {
    Holder { via: Via::Mapping, cloexec: false, ..Holder::opener(task, []) }
}
