//! A mapping keeps the open file description open after its fd was closed.

use super::{Busy, Named, Supported as _};
use crate::child::{Actor, timed, wait_success};
use crate::clock::now_ns;
use crate::report::{Holder, Scene, Task};
use crate::stage::SCRIPT;
use anyhow::{Result, anyhow, bail};
use etxtbsy_trace_event::{How, VerdictKind, Via};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::ffi::c_void;
use std::num::NonZero;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

pub(super) const SCENES: &[Named] = &[
    ("shared-mapping", || {
        unmapped(ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED)
    }),
    ("private-mapping", || unmapped(ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE)),
    ("mapping-until-exit", until_exit),
    ("mapped-by-child-in-making", in_making),
];

/// How often a failure is tried for while a child is being made.
const TRIES: u32 = 50;
/// How long a fork takes at most to copy the memory of this small process, and its least time for a new network
/// namespace thereafter.
const COPY: Duration = Duration::from_micros(300);

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

/// A child that is being made has a copy of the mapping, and its parent has not: the parent unmaps the file while
/// the kernel makes a network namespace for the child (`copy_process`: `copy_mm`, then `copy_namespaces`). Until the
/// end of that, the child's task has its parent's pid.
fn in_making() -> Result<Scene> {
    for _ in 0..TRIES {
        let busy = Busy::new()?;
        let victim = busy.victim()?;
        let mapping = map(&busy.path, ProtFlags::PROT_READ, MapFlags::MAP_SHARED)?;
        let (forks, made_ns) = (AtomicBool::new(false), AtomicU64::new(0));
        let (child, failed_ns) = thread::scope(|scope| {
            let forker = scope.spawn(|| {
                forks.store(true, SeqCst);
                let flags = libc::CLONE_NEWNET | libc::SIGCHLD;
                // SAFETY: as fork(2); the child only ends.
                let child = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
                if child == 0 {
                    // SAFETY: it ends the child.
                    unsafe { libc::_exit(0) }
                }
                made_ns.store(now_ns(), SeqCst);
                Errno::result(child as i32)
            });
            while !forks.load(SeqCst) {
                std::hint::spin_loop();
            }
            let copied = Instant::now() + COPY;
            while Instant::now() < copied {
                std::hint::spin_loop();
            }
            // SAFETY: no reference points into the mapping.
            unsafe { munmap(mapping, SCRIPT.len()) }?;
            // If the child is gone already, the exec does not fail.
            let failed = victim.exec().is_ok();
            let failed_ns = failed.then(now_ns);
            let child = forker.join().map_err(|_| anyhow!("the forker panicked"))?;
            Ok::<_, anyhow::Error>((child.supported("a network namespace")?, failed_ns))
        })?;
        wait_success(Pid::from_raw(child))?;
        if failed_ns.is_some_and(|failed_ns| failed_ns < made_ns.load(SeqCst)) {
            let child = Holder { released: How::Exit, ..holder(Task::main_of(child)) };
            return Ok(victim.scene(VerdictKind::Unexplained, vec![child]));
        }
    }
    bail!("no exec failed while a child was being made, in {TRIES} tries")
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
