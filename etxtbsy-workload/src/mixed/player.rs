//! A thread of `mixed`, which makes random calls.

use super::call::{Caller, Child, Held, Mapping};
use super::part::ChildPlan;
use super::{Random, Resources, nap};
use nix::sys::mman::MapFlags;
use std::time::{Duration, Instant};

/// How long phases with many holders and with few last.
const PHASE: Duration = Duration::from_millis(50);

/// What a thread may have at once, besides one mapping.
struct Limits {
    fds: usize,
    children: usize,
    /// One in this many steps releases everything.
    release_one_in: usize,
}

const MANY: Limits = Limits { fds: 3, children: 4, release_one_in: 20 };
const FEW: Limits = Limits { fds: 1, children: 2, release_one_in: 2 };
/// The size of the stack for children of vfork(2).
const STACK_SIZE: usize = 64 * 1024;

/// A thread, and what it holds.
pub(super) struct Worker<'a> {
    caller: Caller<'a>,
    resources: &'a Resources<'a>,
    random: Random,
    held: Vec<Held>,
    mappings: Vec<Mapping>,
    /// The children, and when to kill each.
    children: Vec<(Child, Option<Instant>)>,
    stack: Vec<u8>,
    limits: &'static Limits,
}

impl<'a> Worker<'a> {
    pub(super) fn new(caller: Caller<'a>, resources: &'a Resources<'a>, seed: u64) -> Self {
        Self {
            caller,
            resources,
            random: Random(seed),
            held: Vec::new(),
            mappings: Vec::new(),
            children: Vec::new(),
            stack: vec![0; STACK_SIZE],
            limits: &MANY,
        }
    }

    /// Makes calls until all processes are to stop; an error stops all processes.
    pub(super) fn run(mut self) {
        let start = Instant::now();
        while !self.caller.log.is_stopped() {
            let phases = start.elapsed().as_micros() / PHASE.as_micros();
            self.limits = if phases.is_multiple_of(4) { &MANY } else { &FEW };
            if let Err(errno) = self.step() {
                self.caller.log.fail(errno);
            }
            if self.resources.pause > 0 {
                nap(self.random.below(2 * self.resources.pause as usize) as u64);
            }
        }
        if let Err(errno) = self.end() {
            self.caller.log.fail(errno);
        }
    }

    fn step(&mut self) -> nix::Result<()> {
        self.reap(self.limits.children - 1)?;
        if self.random.one_in(self.limits.release_one_in) {
            return self.release();
        }
        match self.random.below(100) {
            0..16 => self.open(),
            16..30 => self.close(),
            30..34 => self.dup(),
            34..37 => self.dup_over(),
            37..44 => self.send(),
            44..52 => self.receive(),
            52..54 => self.map(),
            54..57 => self.unmap(),
            57..58 => self.lease(),
            58..62 => {
                self.caller.truncate(self.resources, self.random.below(self.resources.files.len()))
            }
            62..86 => self.fork(),
            86..92 => self.vfork(),
            92..94 => self.spawn(),
            _ => {
                nap(self.random.below(100) as u64);
                Ok(())
            }
        }
    }

    fn open(&mut self) -> nix::Result<()> {
        if self.held.len() >= self.limits.fds {
            return self.close();
        }
        let access = if self.random.one_in(2) { libc::O_WRONLY } else { libc::O_RDWR };
        let file = self.random.below(self.resources.files.len());
        let kept = self.random.one_in(3);
        let held = self.caller.open(self.resources, file, access, kept)?;
        self.held.extend(held);
        self.resources.limits.pause_while_open();
        Ok(())
    }

    fn take_any(&mut self) -> Option<Held> {
        let count = self.held.len();
        (count > 0).then(|| self.held.swap_remove(self.random.below(count)))
    }

    fn close(&mut self) -> nix::Result<()> {
        let Some(held) = self.take_any() else { return Ok(()) };
        match self.random.below(4) {
            0 => self.caller.close_as_range(held),
            _ => self.caller.close(held),
        }
    }

    fn dup(&mut self) -> nix::Result<()> {
        if self.held.len() >= self.limits.fds {
            return self.close();
        }
        let Some(held) = self.take_any() else { return Ok(()) };
        let copy = if held.survives_exec() {
            self.caller.dup_close_on_exec(held)?
        } else {
            self.caller.dup(held)?
        };
        self.held.extend([held, copy]);
        Ok(())
    }

    fn dup_over(&mut self) -> nix::Result<()> {
        if self.held.len() < 2 {
            return Ok(());
        }
        let (Some(held), Some(over)) = (self.take_any(), self.take_any()) else { return Ok(()) };
        let copy = self.caller.dup_over(held, over, self.random.one_in(3))?;
        self.held.extend([held, copy]);
        Ok(())
    }

    /// Half of the time, only the queue holds the file afterwards.
    fn send(&mut self) -> nix::Result<()> {
        let Some(held) = self.take_any() else { return Ok(()) };
        self.caller.send(self.resources, held)?;
        if self.random.one_in(2) {
            return self.caller.close(held);
        }
        self.held.push(held);
        Ok(())
    }

    fn receive(&mut self) -> nix::Result<()> {
        if self.held.len() >= self.limits.fds {
            return self.close();
        }
        let held = self.caller.receive(self.resources, self.random.one_in(3))?;
        self.held.extend(held);
        Ok(())
    }

    fn map(&mut self) -> nix::Result<()> {
        if !self.mappings.is_empty() {
            return self.unmap();
        }
        let file = self.random.below(self.resources.files.len());
        let shared = self.random.one_in(2);
        let flags = if shared { MapFlags::MAP_SHARED } else { MapFlags::MAP_PRIVATE };
        if let Some(held) = self.caller.open(self.resources, file, libc::O_RDWR, false)? {
            self.mappings.push(self.caller.map(self.resources, held, flags)?);
            self.caller.close(held)?;
        }
        Ok(())
    }

    fn unmap(&mut self) -> nix::Result<()> {
        let Some(mapping) = self.mappings.pop() else { return Ok(()) };
        self.caller.unmap(self.resources, &mapping)
    }

    fn lease(&mut self) -> nix::Result<()> {
        let file = self.random.below(self.resources.files.len());
        let lasts = 200 + self.random.below(1000) as u64;
        Caller::lease(self.resources, file, || nap(lasts))
    }

    fn fork(&mut self) -> nix::Result<()> {
        let plan = ChildPlan::choose(&mut self.random, self.resources.files.len());
        let kill_after = plan.kill_after_us().map(Duration::from_micros);
        let child = self.caller.fork(|caller| plan.run(caller, self.resources, &self.held))?;
        self.children.push((child, kill_after.map(|after| Instant::now() + after)));
        Ok(())
    }

    fn vfork(&mut self) -> nix::Result<()> {
        let plan = ChildPlan::choose_vforked(&mut self.random, self.resources.files.len());
        let (held, resources) = (&self.held, self.resources);
        let play = |caller: Caller<'_>| {
            plan.run(caller, resources, held);
        };
        let child = self.caller.vfork(&mut self.stack, play)?;
        self.children.push((child, None));
        Ok(())
    }

    fn spawn(&mut self) -> nix::Result<()> {
        self.children.push((self.caller.spawn(self.resources)?, None));
        Ok(())
    }

    /// Reaps the children that have ended, and waits until at most `most` are left.
    fn reap(&mut self, most: usize) -> nix::Result<()> {
        loop {
            let mut left = Vec::with_capacity(self.children.len());
            for (child, mut kill_at) in self.children.drain(..) {
                if kill_at.is_some_and(|at| at <= Instant::now()) {
                    self.caller.kill(&child)?;
                    kill_at = None;
                }
                if !self.caller.reap(&child, false)? {
                    left.push((child, kill_at));
                }
            }
            self.children = left;
            if self.children.len() <= most {
                return Ok(());
            }
            nap(20);
        }
    }

    /// Closes and unmaps everything, and receives one message from the queue.
    fn release(&mut self) -> nix::Result<()> {
        self.unmap()?;
        while let Some(held) = self.held.pop() {
            self.caller.close(held)?;
        }
        let held = self.caller.receive(self.resources, false)?;
        held.map_or(Ok(()), |held| self.caller.close(held))
    }

    fn end(&mut self) -> nix::Result<()> {
        self.release()?;
        self.reap(0)
    }
}
