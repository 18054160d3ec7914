//! What a forked process of `mixed` does.

use super::call::{Caller, Held};
use super::{Random, Resources, nap};
use nix::unistd::pause;
use std::ffi::c_int;

/// How many files a victim execs.
const TRIES: usize = 3;

/// What the child does, chosen before the fork.
pub(super) struct ChildPlan {
    action: Action,
    /// How long it holds its inherited fds, in microseconds.
    hold_us: u64,
    files: [usize; TRIES],
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    /// Execs hot files until an exec succeeds.
    Exec,
    /// Closes all inherited fds, then does the same.
    CloseAndExec,
    /// Closes the fds of its parent's thread one by one, and ends later.
    Close,
    /// Replaces each of these fds with stdin.
    ReplaceWithStdin,
    /// Closes all fds with one close_range(2).
    CloseRange,
    /// Exits with its fds open.
    Exit,
    /// Execs the sleeping program.
    Run,
    /// Opens a hot file.
    Open,
    /// Forks a child, and closes its own fds.
    Fork,
    /// Waits to be killed.
    Pause,
}

/// The actions by their frequency; those of victims first.
const ACTIONS: [Action; 24] = [
    Action::Exec,
    Action::Exec,
    Action::Exec,
    Action::Exec,
    Action::Exec,
    Action::Exec,
    Action::CloseAndExec,
    Action::CloseAndExec,
    Action::CloseAndExec,
    Action::CloseAndExec,
    Action::CloseAndExec,
    Action::CloseAndExec,
    Action::Close,
    Action::Close,
    Action::ReplaceWithStdin,
    Action::CloseRange,
    Action::Exit,
    Action::Run,
    Action::Run,
    Action::Run,
    Action::Open,
    Action::Fork,
    Action::Fork,
    Action::Pause,
];

impl ChildPlan {
    pub(super) fn choose(random: &mut Random, files: usize) -> Self {
        Self {
            action: ACTIONS[random.below(ACTIONS.len())],
            hold_us: if random.one_in(4) { 0 } else { random.below(400) as u64 },
            files: [(); TRIES].map(|()| random.below(files)),
        }
    }

    /// Chooses for a child of vfork(2), which may only exec.
    pub(super) fn choose_vforked(random: &mut Random, files: usize) -> Self {
        let action = if random.one_in(4) { Action::Run } else { Action::Exec };
        Self { action, hold_us: 0, ..Self::choose(random, files) }
    }

    /// When to kill the child, in microseconds.
    pub(super) fn kill_after_us(&self) -> Option<u64> {
        (self.action == Action::Pause).then_some(self.hold_us)
    }

    /// Runs in the forked process; returns its exit status.
    pub(super) fn run(
        &self,
        caller: Caller<'_>,
        resources: &Resources<'_>,
        held: &[Held],
    ) -> c_int {
        match self.try_run(caller, resources, held) {
            Ok(()) => 0,
            Err(errno) => {
                caller.log.fail(errno);
                errno as c_int
            }
        }
    }

    fn try_run(
        &self,
        caller: Caller<'_>,
        resources: &Resources<'_>,
        held: &[Held],
    ) -> nix::Result<()> {
        if !matches!(self.action, Action::Exec | Action::CloseAndExec | Action::Pause) {
            nap(self.hold_us);
        }
        match self.action {
            Action::Exec | Action::CloseAndExec => {
                if self.action == Action::CloseAndExec {
                    caller.close_all()?;
                }
                self.files.iter().for_each(|file| caller.exec_hot(resources, *file));
            }
            Action::Close => {
                held.iter().try_for_each(|held| caller.close(*held))?;
                nap(self.hold_us);
            }
            Action::ReplaceWithStdin => {
                held.iter().try_for_each(|held| caller.replace_with_stdin(*held))?;
                nap(self.hold_us);
            }
            Action::CloseRange => {
                caller.close_all()?;
                nap(self.hold_us);
            }
            Action::Exit => {}
            Action::Run => caller.exec_nap(resources),
            Action::Open => {
                if let Some(held) = caller.open(resources, self.files[0], libc::O_WRONLY, false)? {
                    let copy = caller.dup(held)?;
                    caller.close(held)?;
                    nap(self.hold_us);
                    caller.close(copy)?;
                }
            }
            Action::Fork => {
                let child = caller.fork(|_| {
                    nap(self.hold_us);
                    0
                })?;
                held.iter().try_for_each(|held| caller.close(*held))?;
                caller.reap(&child, true)?;
            }
            Action::Pause => pause(),
        }
        Ok(())
    }
}
