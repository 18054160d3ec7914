//! What the processes of the mixed load record of their own calls, in memory that they share.
//!
//! Every process appends to one list: a record stays even if its process is killed right after.

use super::super::child::Span;
use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Room for the records of some 500,000 failures. The kernel allocates a page when it is written.
const RECORDS: usize = 1 << 24;

/// What a record is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum What {
    /// Nothing: memory that was not written.
    #[default]
    Nothing,
    /// `hold` of `file` begins, at `fd`; `kept` unless it is close-on-exec.
    Acquired,
    /// The same, by an open(2) that may have waited.
    Opened,
    /// The same, by a memory mapping.
    Mapped,
    /// `hold` ends.
    Released,
    /// All holds end at the fds from `fd` to `last`.
    ReleasedRange,
    /// An exec. If it passed: the new program keeps its fds for at least `other` nanoseconds. If it
    /// failed: `error` says why, `file` what was exec'd.
    Execed,
    /// The process calls exit(2).
    Exited,
    /// `process`, whose pid is `other`, runs for the first time.
    Born,
    /// `process`, whose pid is `last`, was forked by `other`.
    Forked,
    /// The same; it shares its parent's memory until it execs.
    Vforked,
    /// `process` is about to be killed.
    Killed,
    /// `process` has been waited for.
    Reaped,
    /// `hold` of `file` is put in the queue of a socket.
    Queued,
    /// `hold` is taken from there.
    Taken,
    /// A call that has write access to `file` while it lasts, such as truncate(2).
    Called,
}

/// One call of one process.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Record {
    pub(super) what: What,
    /// Whose: a number from [`Log::new_process`], because pids are used again.
    pub(super) process: u32,
    pub(super) hold: u32,
    pub(super) file: u32,
    pub(super) fd: i32,
    pub(super) last: i32,
    pub(super) other: u32,
    pub(super) error: i32,
    pub(super) kept: bool,
    /// CLOCK_MONOTONIC just before the call and just after it.
    pub(super) span: Span,
}

/// What the processes count together.
#[derive(Default)]
#[repr(C)]
pub(super) struct Counts {
    records: AtomicU64,
    processes: AtomicU32,
    holds: AtomicU32,
    /// Calls of exec on the hot files.
    pub(super) attempts: AtomicU64,
    /// How many of them failed with ETXTBSY.
    pub(super) failures: AtomicU64,
    /// Calls that were refused write access with ETXTBSY.
    pub(super) refused: AtomicU64,
    /// An errno that should not have been.
    error: AtomicU32,
    /// Whether to stop.
    stop: AtomicU32,
}

/// Memory that a process shares with all that it forks.
pub(super) struct Log(NonNull<c_void>);

// SAFETY: the counts are atomic, and each record is written by the one that took its index.
unsafe impl Sync for Log {}

/// The counts come first, in a page of their own.
const HEADER: usize = 4096;
const LENGTH: usize = HEADER + RECORDS * size_of::<Record>();

impl Log {
    pub(super) fn new() -> Result<Self> {
        let length = NonZero::new(LENGTH).context("an empty log")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        Ok(Self(unsafe { mmap_anonymous(None, length, protection, flags) }?))
    }

    pub(super) fn counts(&self) -> &Counts {
        // SAFETY: zeroed memory, which is a `Counts`, at the start of a page; it lives as long.
        unsafe { self.0.cast().as_ref() }
    }

    fn place(&self, index: u64) -> NonNull<Record> {
        // SAFETY: within the mapping, for callers give an index below RECORDS.
        unsafe { self.0.byte_add(HEADER).cast::<Record>().add(index as usize) }
    }

    /// Appends a record and gives its index.
    pub(super) fn add(&self, record: Record) -> u64 {
        let index = self.counts().records.fetch_add(1, Ordering::Relaxed);
        if index >= RECORDS as u64 {
            self.fail(Errno::ENOSPC);
            return index;
        }
        // SAFETY: within the mapping; nobody else has this index.
        unsafe { self.place(index).write(record) };
        index
    }

    /// Writes a record of the caller's anew.
    pub(super) fn amend(&self, index: u64, record: Record) {
        if index < RECORDS as u64 {
            // SAFETY: within the mapping; nobody else has this index.
            unsafe { self.place(index).write(record) };
        }
    }

    /// A number for a process that is about to be forked: above that of its parent.
    pub(super) fn new_process(&self) -> u32 {
        self.counts().processes.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a hold.
    pub(super) fn new_hold(&self) -> u32 {
        self.counts().holds.fetch_add(1, Ordering::Relaxed)
    }

    /// Has everyone stop because of an error.
    pub(super) fn fail(&self, errno: Errno) {
        self.counts().error.store((errno as i32).cast_unsigned(), Ordering::Relaxed);
        self.stop();
    }

    /// Has everyone stop.
    pub(super) fn stop(&self) {
        self.counts().stop.store(1, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.counts().stop.load(Ordering::Relaxed) != 0
    }

    /// The records, once all other processes have ended.
    pub(super) fn records(&self) -> Result<Vec<Record>> {
        let error = self.counts().error.load(Ordering::Relaxed).cast_signed();
        if error != 0 {
            return Err(Errno::from_raw(error)).context("a call of the mixed load failed");
        }
        let count = self.counts().records.load(Ordering::Relaxed).min(RECORDS as u64);
        // SAFETY: within the mapping, and nobody writes any more.
        let records = (0..count).map(|index| unsafe { self.place(index).read() });
        // A process that was killed may have taken an index and not written.
        Ok(records.filter(|record| record.what != What::Nothing).collect())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // SAFETY: no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.0, LENGTH) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
