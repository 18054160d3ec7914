//! A mapping keeps the open file description after its fd was closed.

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
    // SAFETY: nobody refers to it.
    let (outcome, span) = timed(|| unsafe { munmap(mapping, SCRIPT.len()) });
    outcome?;
    let holder = Holder { released: How::Unmap, ..holder(Task::current()) };
    let holder = Holder { released_after: Some(span), ..holder };
    Ok(victim.scene(VerdictKind::SharedMapping, vec![holder]))
}

fn until_exit() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let actor = Actor::start(|cue| {
        map(&busy.path, ProtFlags::PROT_READ, MapFlags::MAP_SHARED)?;
        cue.tell([0]);
        cue.wait().map(drop)
    })?;
    let [_] = actor.hear()?;
    victim.exec()?;
    let holder = Holder { released: How::Exit, ..holder(actor.task()) };
    let holder = Holder { released_after: Some(actor.end()?), ..holder };
    Ok(victim.scene(VerdictKind::SharedMapping, vec![holder]))
}

/// Maps a file that is open for reading and writing, and closes it.
fn map(path: &Path, protection: ProtFlags, flags: MapFlags) -> nix::Result<NonNull<c_void>> {
    let length = NonZero::new(SCRIPT.len()).unwrap_or(NonZero::<usize>::MIN);
    let file = open(path, OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    // SAFETY: a new mapping at a place of the kernel's choice, of which no reference is made.
    unsafe { mmap(None, length, protection, flags, &file, 0) }
}

fn holder(task: Task) -> Holder {
    Holder { via: Via::Mapping, cloexec: false, ..Holder::opener(task, []) }
}
