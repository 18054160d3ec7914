//! The listener of the filter, and the calls that wait for an answer.

use libc::{Ioctl, c_ulong, seccomp_notif, seccomp_notif_resp};
use nix::errno::Errno;
use std::{
    ffi::c_void,
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    ptr::{self, NonNull},
};

/// How many calls can wait at once.
pub(super) const SLOTS: usize = 512;

/// linux/seccomp.h, Linux 6.6: SECCOMP_IOCTL_NOTIF_SET_FLAGS.
const SET_FLAGS: Ioctl = 0x4008_2104;
/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP: an answer wakes its thread up on this CPU, with less delay.
const SYNC_WAKE_UP: c_ulong = 1;

/// The listener of a filter.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

impl Listener {
    pub(super) fn new(fd: OwnedFd) -> Self {
        // Before 6.6 this fails, and answers take a little longer.
        // SAFETY: this ioctl gets a number.
        unsafe { libc::ioctl(fd.as_raw_fd(), SET_FLAGS, SYNC_WAKE_UP) };
        Self(fd)
    }

    /// Takes the next call that waits into a slot; returns `None` if its thread has been killed meanwhile.
    pub(super) fn receive(&self, slots: &Slots, slot: usize) -> Option<Call> {
        let notification = slots.at(slot);
        // SAFETY: `notification` points into the mapping of `slots`, where only this process writes. The
        // kernel wants zeroes there.
        unsafe { notification.write_bytes(0, 1) };
        // SAFETY: the kernel writes one notification to that place.
        let done = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, notification.as_ptr())
        };
        // SAFETY: the place holds the zeroes above or what the kernel wrote; all bytes are valid for these
        // numbers.
        let notification = unsafe { notification.read() };
        (done == 0).then_some(Call {
            id: notification.id,
            tid: notification.pid,
            number: notification.data.nr,
            arguments: notification.data.args,
        })
    }

    /// Lets the call in a slot continue, and frees the slot.
    pub(super) fn let_continue(&self, slots: &Slots, slot: usize) {
        let place = slots.at(slot);
        // SAFETY: as in `receive`.
        let id = unsafe { place.read() }.id;
        let mut response = seccomp_notif_resp {
            id,
            val: 0,
            error: 0,
            flags: libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
        };
        loop {
            // SAFETY: the kernel reads one response.
            let done = unsafe {
                libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response)
            };
            // ENOENT: the thread was killed.
            if done == 0 || Errno::last() != Errno::EINTR {
                break;
            }
        }
        // SAFETY: as in `receive`.
        unsafe { place.write_bytes(0, 1) };
    }

    /// Whether the call still waits. If so, its thread cannot have ended, so its tid has not been reused.
    pub(super) fn waits(&self, call: &Call) -> bool {
        let id = call.id;
        // SAFETY: the kernel reads the number.
        let done = unsafe {
            libc::ioctl(self.0.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id)
        };
        done == 0
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A system call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    id: u64,
    /// The thread, in this process's pid namespace; 0 if it is outside.
    pub(super) tid: u32,
    /// The number of the system call.
    pub(super) number: i32,
    /// Its arguments.
    pub(super) arguments: [u64; 6],
}

/// Memory that the two processes of a supervisor share, with the calls that wait.
///
/// The kernel itself writes each call there. So when one process is killed, the other knows all calls that
/// have not been answered.
#[derive(Debug)]
pub(super) struct Slots(NonNull<seccomp_notif>);

impl Slots {
    const BYTES: usize = SLOTS * size_of::<seccomp_notif>();

    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                Self::BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(start.cast()).map(Self).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    fn at(&self, slot: usize) -> NonNull<seccomp_notif> {
        assert!(slot < SLOTS);
        // SAFETY: the mapping has that many.
        unsafe { self.0.add(slot) }
    }

    /// The slots with a call that may not have been answered.
    pub(super) fn taken(&self) -> impl Iterator<Item = usize> {
        // SAFETY: the place is in the mapping, and all bytes are valid.
        (0..SLOTS).filter(|slot| unsafe { self.at(*slot).read() }.id != 0)
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`, and nothing refers to it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast::<c_void>(), Self::BYTES) };
    }
}
