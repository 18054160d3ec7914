//! The holder dumps core, which takes long.

use super::{Busy, Named, until};
use crate::Unsupported;
use crate::child::{Actor, timed};
use crate::report::{Holder, Scene};
use anyhow::{Result, ensure};
use etxtbsy_trace_event::{How, State, VerdictKind};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, kill, raise, signal};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::chdir;
use std::fs;
use std::num::NonZero;
use std::os::fd::IntoRawFd;

pub(super) const SCENES: &[Named] = &[("dumping-core", dumping_core)];

/// The size of a hole in the dump; the kernel looks up each of its pages.
const HOLE: usize = 1 << 40;

fn dumping_core() -> Result<Scene> {
    const PATTERN: &str = "/proc/sys/kernel/core_pattern";
    let pattern = fs::read_to_string(PATTERN)?;
    if pattern.starts_with(['|', '@', '/']) || pattern.trim().is_empty() {
        let what =
            format!("{PATTERN} is {:?}, not a name in the working directory", pattern.trim());
        return Err(Unsupported(what).into());
    }
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let dir = busy.beside("");
    let holder = Actor::start(|control| {
        chdir(&dir)?;
        setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY)?;
        let length = NonZero::new(HOLE).ok_or(Errno::EINVAL)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: the write is within the new mapping. (The kernel does not dump a mapping that was never
        // written.)
        unsafe {
            let hole = mmap_anonymous(None, length, protection, flags)?;
            hole.cast::<u8>().write_volatile(1);
            // Rust's handler would not end this process.
            signal(Signal::SIGSEGV, SigHandler::SigDfl)?;
        }
        // Leaked: the end of the process closes it.
        let fd = open(&busy.path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        control.send([fd.into_raw_fd().into()]);
        raise(Signal::SIGSEGV)?;
        Err(Errno::ECANCELED)
    })?;
    let [fd] = holder.receive()?;
    let status = format!("/proc/{}/status", holder.pid());
    until("a process dumps core", || {
        Ok(fs::read_to_string(&status)?.lines().any(|line| line == "CoreDumping:\t1"))
    })?;
    let outcome = victim.exec();
    let (ended, span) = timed(|| {
        kill(holder.pid(), Signal::SIGKILL)?;
        waitpid(holder.pid(), None)
    });
    let ended = ended?;
    outcome?;
    ensure!(matches!(ended, WaitStatus::Signaled(..)), "the holder was not killed: {ended:?}");

    let holder = Holder {
        state: State::Exiting,
        released: How::Exit,
        released_after: Some(span),
        ..Holder::opener(holder.task(), [fd as i32])
    };
    Ok(victim.scene(VerdictKind::StillOpen, vec![holder]))
}
