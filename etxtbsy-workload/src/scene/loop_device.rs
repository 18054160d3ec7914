//! The file backs a loop device; its fd was closed.

use super::{Busy, Named, Supported};
use crate::report::{Scene, Task, Unheld};
use anyhow::{Context, Result};
use etxtbsy_trace_event::{Place, VerdictKind};
use nix::errno::Errno;
use std::ffi::c_int;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::thread::sleep;
use std::time::Duration;

pub(super) const SCENES: &[Named] = &[("loop-device", loop_device)];

// linux/loop.h
const LOOP_SET_FD: libc::Ioctl = 0x4C00;
const LOOP_CLR_FD: libc::Ioctl = 0x4C01;
const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;

/// How long the device stays after the failure, so that the tracer can find it.
const KEEP_DEVICE: Duration = Duration::from_secs(2);

fn loop_device() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let file = OpenOptions::new().read(true).write(true).open(&busy.path)?;
    let attached = Attached::new(&file)?;
    drop(file);
    victim.exec()?;
    sleep(KEEP_DEVICE);
    drop(attached);

    let unheld = vec![Unheld { place: Place::LoopDevice, opened: Task::current() }];
    Ok(Scene { unheld, ..victim.scene(VerdictKind::LoopDevice, Vec::new()) })
}

/// A loop device, detached when dropped.
struct Attached(File);

impl Attached {
    fn new(file: &File) -> Result<Self> {
        /// Another process may take the free device first.
        const TRIES: u32 = 10;
        let control = open("/dev/loop-control")?;
        for _ in 0..TRIES {
            let number = ioctl(&control, LOOP_CTL_GET_FREE, 0).supported("LOOP_CTL_GET_FREE")?;
            let device = open(&format!("/dev/loop{number}"))?;
            match ioctl(&device, LOOP_SET_FD, file.as_raw_fd()) {
                Err(Errno::EBUSY) => {}
                outcome => return outcome.map(|_| Self(device)).supported("LOOP_SET_FD"),
            }
        }
        Err(Errno::EBUSY).context("LOOP_SET_FD")
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Cannot fail: the device is attached.
        let _ = ioctl(&self.0, LOOP_CLR_FD, 0);
    }
}

fn open(path: &str) -> Result<File> {
    let opened = OpenOptions::new().read(true).write(true).open(path);
    let errno = |error: io::Error| match error.raw_os_error() {
        // The driver is missing.
        None | Some(libc::ENOENT) => Errno::ENODEV,
        Some(errno) => Errno::from_raw(errno),
    };
    opened.map_err(errno).supported(path)
}

fn ioctl(device: &File, request: libc::Ioctl, argument: c_int) -> nix::Result<c_int> {
    // SAFETY: the requests take a number.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), request, argument) })
}
