//! What a forked process does until it ends.

use super::call::{Caller, Held};
use super::{Props, Random, nap};
use nix::unistd::pause;
use std::ffi::c_int;

/// How many files a victim tries.
const TRIES: usize = 3;

/// All of it is chosen before the fork.
pub(super) struct Part {
    deed: Deed,
    /// How long it holds what it inherited, in microseconds.
    lasts: u64,
    files: [usize; TRIES],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// Execs hot files, until that passes.
    Exec,
    /// The same after it closed all it inherited.
    CloseAndExec,
    /// Closes what its parent's thread had open, one by one, and ends a while after.
    Close,
    /// Puts stdin over each of those.
    Cover,
    /// Closes all by one close_range(2).
    CloseRange,
    /// Ends with what it has.
    Exit,
    /// Execs a program that naps.
    Run,
    /// Opens a hot file itself.
    Open,
    /// Forks a child, and closes its own.
    Fork,
    /// Waits to be killed.
    Pause,
}

/// How often which is chosen; those of the victims first.
const DEEDS: [Deed; 24] = [
    Deed::Exec,
    Deed::Exec,
    Deed::Exec,
    Deed::Exec,
    Deed::Exec,
    Deed::Exec,
    Deed::CloseAndExec,
    Deed::CloseAndExec,
    Deed::CloseAndExec,
    Deed::CloseAndExec,
    Deed::CloseAndExec,
    Deed::CloseAndExec,
    Deed::Close,
    Deed::Close,
    Deed::Cover,
    Deed::CloseRange,
    Deed::Exit,
    Deed::Run,
    Deed::Run,
    Deed::Run,
    Deed::Open,
    Deed::Fork,
    Deed::Fork,
    Deed::Pause,
];

impl Part {
    pub(super) fn choose(random: &mut Random, files: usize) -> Self {
        Self {
            deed: DEEDS[random.below(DEEDS.len())],
            lasts: if random.one_in(4) { 0 } else { random.below(400) as u64 },
            files: [(); TRIES].map(|()| random.below(files)),
        }
    }

    /// That of a process made by vfork(2), which only execs.
    pub(super) fn choose_vforked(random: &mut Random, files: usize) -> Self {
        let deed = if random.one_in(4) { Deed::Run } else { Deed::Exec };
        Self { deed, lasts: 0, ..Self::choose(random, files) }
    }

    /// How long until it is to be killed, in microseconds.
    pub(super) fn killed_after(&self) -> Option<u64> {
        (self.deed == Deed::Pause).then_some(self.lasts)
    }

    /// In the forked process.
    pub(super) fn play(&self, caller: Caller<'_>, props: &Props<'_>, held: &[Held]) -> c_int {
        match self.try_play(caller, props, held) {
            Ok(()) => 0,
            Err(errno) => {
                caller.log.fail(errno);
                errno as c_int
            }
        }
    }

    fn try_play(&self, caller: Caller<'_>, props: &Props<'_>, held: &[Held]) -> nix::Result<()> {
        if !matches!(self.deed, Deed::Exec | Deed::CloseAndExec | Deed::Pause) {
            nap(self.lasts);
        }
        match self.deed {
            Deed::Exec | Deed::CloseAndExec => {
                if self.deed == Deed::CloseAndExec {
                    caller.close_all()?;
                }
                self.files.iter().for_each(|file| caller.exec_hot(props, *file));
            }
            Deed::Close => {
                held.iter().try_for_each(|held| caller.close(*held))?;
                nap(self.lasts);
            }
            Deed::Cover => {
                held.iter().try_for_each(|held| caller.cover(*held))?;
                nap(self.lasts);
            }
            Deed::CloseRange => {
                caller.close_all()?;
                nap(self.lasts);
            }
            Deed::Exit => {}
            Deed::Run => caller.exec_nap(props),
            Deed::Open => {
                if let Some(held) = caller.open(props, self.files[0], libc::O_WRONLY, false)? {
                    let copy = caller.dup(held)?;
                    caller.close(held)?;
                    nap(self.lasts);
                    caller.close(copy)?;
                }
            }
            Deed::Fork => {
                let child = caller.fork(|_| {
                    nap(self.lasts);
                    0
                })?;
                held.iter().try_for_each(|held| caller.close(*held))?;
                caller.reap(&child, true)?;
            }
            Deed::Pause => pause(),
        }
        Ok(())
    }
}
