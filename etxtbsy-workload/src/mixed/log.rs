//! The calls that the processes of `mixed` record in shared memory.
//!
//! All processes append to one list, so a record stays even if its process is killed right after.

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

/// The kind of a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum RecordKind {
    /// Memory that was not written.
    #[default]
    Unwritten,
    /// `hold` of `file` begins at `fd`; `kept` is false if the fd is close-on-exec.
    Acquired,
    /// The same, by an open(2), which may have waited.
    Opened,
    /// The same, by a memory mapping.
    Mapped,
    /// `hold` ends.
    Released,
    /// All holds at the fds from `fd` to `last` end.
    ReleasedRange,
    /// An exec. If it succeeded, the new program keeps its fds for at least `other` nanoseconds. If it
    /// failed, `error` is the errno and `file` the file.
    Execed,
    /// The process calls exit(2).
    Exited,
    /// `process`, whose pid is `other`, runs for the first time.
    Born,
    /// `process`, whose pid is `last`, was forked by `other`.
    Forked,
    /// The same; the child shares its parent's memory until it execs.
    Vforked,
    /// `process` is about to be killed.
    Killed,
    /// `process` has been waited for.
    Reaped,
    /// `hold` of `file` enters the queue of a socket.
    Queued,
    /// `hold` leaves the queue.
    Taken,
    /// A call that has write access to `file` until it returns, such as truncate(2).
    Called,
}

/// One call of one process.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Record {
    pub(super) kind: RecordKind,
    /// The process, by its number from [`Log::new_process`], because pids are reused.
    pub(super) process: u32,
    pub(super) hold: u32,
    pub(super) file: u32,
    pub(super) fd: i32,
    pub(super) last: i32,
    pub(super) other: u32,
    pub(super) error: i32,
    pub(super) kept: bool,
    /// The times just before and just after the call.
    pub(super) span: Span,
}

/// RecordKind the processes count together.
#[derive(Default)]
#[repr(C)]
pub(super) struct Counts {
    records: AtomicU64,
    processes: AtomicU32,
    holds: AtomicU32,
    /// Execs of the hot files.
    pub(super) attempts: AtomicU64,
    /// How many of them failed with ETXTBSY.
    pub(super) failures: AtomicU64,
    /// Calls for write access that failed with ETXTBSY.
    pub(super) refused: AtomicU64,
    /// An unexpected errno.
    error: AtomicU32,
    /// Whether to stop.
    stop: AtomicU32,
}

/// Memory that a process shares with all its descendants.
pub(super) struct Log(NonNull<c_void>);

// SAFETY: the counts are atomic, and only the thread that took an index writes that record.
unsafe impl Sync for Log {}

/// The size of the counts, which come first, in their own page.
const HEADER: usize = 4096;
const LENGTH: usize = HEADER + RECORDS * size_of::<Record>();

impl Log {
    pub(super) fn new() -> Result<Self> {
        let length = NonZero::new(LENGTH).context("the log has no length")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address that the kernel chooses replaces no other.
        Ok(Self(unsafe { mmap_anonymous(None, length, protection, flags) }?))
    }

    pub(super) fn counts(&self) -> &Counts {
        // SAFETY: the mapping begins with zeroed memory, which is a valid `Counts`, and lives as long as
        // `self`.
        unsafe { self.0.cast().as_ref() }
    }

    fn record_at(&self, index: u64) -> NonNull<Record> {
        // SAFETY: callers pass an index below RECORDS, so the pointer is within the mapping.
        unsafe { self.0.byte_add(HEADER).cast::<Record>().add(index as usize) }
    }

    /// Appends a record and returns its index.
    pub(super) fn add(&self, record: Record) -> u64 {
        let index = self.counts().records.fetch_add(1, Ordering::Relaxed);
        if index >= RECORDS as u64 {
            self.fail(Errno::ENOSPC);
            return index;
        }
        // SAFETY: the index is below RECORDS, and no other thread has it.
        unsafe { self.record_at(index).write(record) };
        index
    }

    /// Overwrites a record of the caller.
    pub(super) fn amend(&self, index: u64, record: Record) {
        if index < RECORDS as u64 {
            // SAFETY: the index is below RECORDS, and no other thread has it.
            unsafe { self.record_at(index).write(record) };
        }
    }

    /// A number for a process that is about to be forked, higher than its parent's.
    pub(super) fn new_process(&self) -> u32 {
        self.counts().processes.fetch_add(1, Ordering::Relaxed)
    }

    /// A number for a hold.
    pub(super) fn new_hold(&self) -> u32 {
        self.counts().holds.fetch_add(1, Ordering::Relaxed)
    }

    /// Stops all processes because of an error.
    pub(super) fn fail(&self, errno: Errno) {
        self.counts().error.store((errno as i32).cast_unsigned(), Ordering::Relaxed);
        self.stop();
    }

    /// Stops all processes.
    pub(super) fn stop(&self) {
        self.counts().stop.store(1, Ordering::Relaxed);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.counts().stop.load(Ordering::Relaxed) != 0
    }

    /// The records. Call this after all other processes have ended.
    pub(super) fn records(&self) -> Result<Vec<Record>> {
        let error = self.counts().error.load(Ordering::Relaxed).cast_signed();
        if error != 0 {
            return Err(Errno::from_raw(error)).context("a call of the workload failed");
        }
        let count = self.counts().records.load(Ordering::Relaxed).min(RECORDS as u64);
        // SAFETY: the indices are below RECORDS, and the writers have ended.
        let records = (0..count).map(|index| unsafe { self.record_at(index).read() });
        // A killed process may have taken an index without writing the record.
        Ok(records.filter(|record| record.kind != RecordKind::Unwritten).collect())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        // SAFETY: references into the mapping borrow `self`, so none is left.
        let unmapped = unsafe { munmap(self.0, LENGTH) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
