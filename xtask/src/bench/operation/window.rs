//! How long a file is open for writing, for a process that forks meanwhile.
//!
//! This cannot be timed from within: the reading of a clock takes a good part of it, and the tracer's programs
//! run before `open` returns and after `close` begins. So forks sample it, as they do in the race itself. One
//! thread opens a file, writes a few bytes and closes it, again and again. Another thread, on another CPU,
//! forks all the time, without regard to the first. A child has a copy of the write fd if the fork copied
//! the table of fds while the file was open. Forks come at a rate of so many a second. If they hit a share of
//! the openings, the file is open for that share of the time between two forks.
//!
//! A lease for reading shows whether a child has the file: the kernel refuses it while anybody has the file
//! open for writing. Unlike an exec it leaves nothing to report, so the tracer's incidents cost nothing here.

use std::{
    fs::File,
    io::Write as _,
    os::fd::{AsRawFd as _, RawFd},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::{
    errno::Errno,
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use super::{
    process::{self, exit},
    scratch::Scratch,
    timing::Measured,
};

/// How many slices a measurement takes: hits are rare.
const SLICES: u32 = 5;
/// A measurement without a hit ends with an error after so many times its time.
const PATIENCE: u32 = 20;
/// How long a child lives, so that the lease finds it. The lease is asked for a microsecond after the close.
const CHILD: Duration = Duration::from_micros(30);
/// How long to wait until a child that has the file has ended.
const PAUSE: Duration = Duration::from_millis(1);

/// Measures the window for some slices, with a new file in `dir`.
pub(super) fn measure(slice: Duration, dir: &Path) -> Result<Measured> {
    let [writers, forkers] = two_cpus()?;
    let file = Scratch::empty(dir)?;
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        let forker = scope.spawn(|| fork_until(&ended, forkers));
        let openings = Openings::count(&file, slice * SLICES, writers);
        ended.store(true, Ordering::Relaxed);
        let Ok(forks) = forker.join() else { bail!("the forking thread panicked") };
        let (openings, forks) = (openings?, forks?);
        Ok(Measured { nanoseconds: openings.window(forks), calls: openings.number })
    })
}

/// The openings of a measurement.
struct Openings {
    number: u64,
    /// Those during which a fork copied the fd.
    hit: u64,
    elapsed: Duration,
}

impl Openings {
    fn count(file: &Scratch, time: Duration, cpu: usize) -> Result<Self> {
        pin_to(cpu)?;
        let mut counted = Self { number: 0, hit: 0, elapsed: Duration::ZERO };
        let began = Instant::now();
        while counted.elapsed < time || counted.hit == 0 {
            ensure!(counted.elapsed < time * PATIENCE, "no fork came while the file was open");
            let mut open = file.open()?;
            open.write_all(b"#!/bin/sh\n")?;
            drop(open);
            counted.number += 1;
            if is_open_for_writing(file)? {
                counted.hit += 1;
                while is_open_for_writing(file)? {
                    thread::sleep(PAUSE);
                }
            }
            counted.elapsed = began.elapsed();
        }
        Ok(counted)
    }

    /// How long the file was open each time, in nanoseconds, if there were so many forks meanwhile.
    fn window(&self, forks: u64) -> f64 {
        let share = self.hit as f64 / self.number as f64;
        let between_forks = self.elapsed.as_secs_f64() * 1e9 / forks as f64;
        share * between_forks
    }
}

/// Forks children that soon end, until `ended` is set; returns their number.
fn fork_until(ended: &AtomicBool, cpu: usize) -> Result<u64> {
    pin_to(cpu)?;
    let mut forks = 0;
    while !ended.load(Ordering::Relaxed) {
        let life = libc::timespec { tv_sec: 0, tv_nsec: i64::from(CHILD.subsec_nanos()) };
        // SAFETY: the child only makes system calls. `life` outlives the call.
        unsafe {
            process::fork(|| {
                libc::nanosleep(&raw const life, std::ptr::null_mut());
                exit(0);
            })
        }?;
        forks += 1;
        while !matches!(reap(WaitPidFlag::WNOHANG)?, None | Some(WaitStatus::StillAlive)) {}
    }
    while reap(WaitPidFlag::empty())?.is_some() {}
    Ok(forks)
}

/// Waits for any child; `None` if there is none.
fn reap(flags: WaitPidFlag) -> Result<Option<WaitStatus>> {
    match waitpid(None::<Pid>, Some(flags)) {
        Ok(status) => Ok(Some(status)),
        Err(Errno::ECHILD) => Ok(None),
        Err(e) => Err(e).context("cannot wait for a child"),
    }
}

fn is_open_for_writing(file: &Scratch) -> Result<bool> {
    let reader = File::open(file.as_path())?;
    match lease(reader.as_raw_fd(), libc::F_RDLCK) {
        Ok(()) => {
            lease(reader.as_raw_fd(), libc::F_UNLCK)?;
            Ok(false)
        }
        Err(Errno::EAGAIN) => Ok(true),
        Err(e) => Err(e).context("this file system has no leases: choose another --dir"),
    }
}

fn lease(fd: RawFd, kind: i32) -> Result<(), Errno> {
    // SAFETY: this command takes a number.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETLEASE, kind) }).map(drop)
}

/// Two CPUs that this process may use.
fn two_cpus() -> Result<[usize; 2]> {
    let allowed = sched_getaffinity(Pid::from_raw(0))?;
    let mut cpus = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false));
    let two = (|| Some([cpus.next()?, cpus.next()?]))();
    two.context("the threads that race need two CPUs")
}

/// Pins this thread to a CPU.
fn pin_to(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &only).context("cannot choose a CPU")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_is_the_share_of_hits_of_the_time_between_two_forks() {
        let openings = Openings { number: 1000, hit: 20, elapsed: Duration::from_secs(2) };
        // A fork each 100 µs hits one opening in 50, so an opening takes 2 µs.
        assert!((openings.window(20_000) - 2000.0).abs() < 1e-6);
    }
}
