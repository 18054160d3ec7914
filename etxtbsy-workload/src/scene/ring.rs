//! Files that an io_uring opened, or keeps open.

use super::running::{self, Runner};
use super::{Busy, Named, Supported, owned, until};
use crate::report::{Holder, Scene, Task};
use anyhow::{Context, Result, ensure};
use etxtbsy_trace_event::{Evidence, VerdictKind, Via};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::unistd::gettid;
use rustix::fs::OFlags;
use rustix::io_uring::{
    IORING_OFF_CQ_RING, IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringOp,
    IoringRegisterOp, IoringSqeFlags, addr_or_splice_off_in_union, io_uring_cqe, io_uring_enter,
    io_uring_params, io_uring_ptr, io_uring_register, io_uring_setup, io_uring_sqe, len_union,
    off_or_addr2_union, op_flags_union, splice_fd_in_or_file_index_or_addr_len_union,
};
use std::ffi::CString;
use std::fs;
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

pub(super) const SCENES: &[Named] = &[
    ("io-uring-open", || opened(IoringSqeFlags::empty())),
    ("io-uring-open-worker", || opened(IoringSqeFlags::ASYNC)),
    ("io-uring-registered", registered),
    ("io-uring-direct", direct),
    ("io-uring-request", request),
    ("io-uring-open-running", open_running),
];

/// The io_uring opens the file: at once in this thread, or in a worker of the kernel.
fn opened(flags: IoringSqeFlags) -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let path = CString::new(busy.path.as_os_str().as_bytes())?;
    let sqe = io_uring_sqe {
        opcode: IoringOp::Openat,
        flags,
        fd: libc::AT_FDCWD,
        addr_or_splice_off_in: addr_or_splice_off_in_union {
            addr: io_uring_ptr::new(path.as_ptr().cast_mut().cast()),
        },
        op_flags: op_flags_union { open_flags: OFlags::WRONLY | OFlags::CLOEXEC },
        ..io_uring_sqe::default()
    };
    // SAFETY: the path outlives the call.
    let fd = unsafe { IoUring::new()?.perform(sqe) }?;
    let fd = Errno::result(fd).map_err(|_| Errno::from_raw(-fd)).supported("IORING_OP_OPENAT")?;
    let worker = worker()?;
    let mut scene = victim.held_by(owned(fd), Via::Open)?;
    for holder in &mut scene.holders {
        holder.opened = holder.opened.map(|by| Task { tid: worker.unwrap_or(by.tid), ..by });
    }
    Ok(scene)
}

/// An open by the io_uring fails because the program is running.
fn open_running() -> Result<Scene> {
    let busy = running::program("/bin/cat")?;
    let path = CString::new(busy.path.as_os_str().as_bytes())?;
    let runner = Runner::start(&busy.path, &[])?;
    let sqe = io_uring_sqe {
        opcode: IoringOp::Openat,
        fd: libc::AT_FDCWD,
        addr_or_splice_off_in: addr_or_splice_off_in_union {
            addr: io_uring_ptr::new(path.as_ptr().cast_mut().cast()),
        },
        op_flags: op_flags_union { open_flags: OFlags::WRONLY | OFlags::CLOEXEC },
        ..io_uring_sqe::default()
    };
    // SAFETY: the path outlives the call.
    let result = unsafe { IoUring::new()?.perform(sqe) }?;
    if result != -libc::ETXTBSY {
        Errno::result(result)
            .map_err(|_| Errno::from_raw(-result))
            .supported("IORING_OP_OPENAT")?;
    }
    ensure!(result == -libc::ETXTBSY, "the open of a running program succeeded");
    Ok(running::scene(&busy, "io_uring_enter", vec![runner.end()?]))
}

/// The kernel's worker thread for the io_uring, if any; it stays for some seconds.
fn worker() -> Result<Option<u32>> {
    let own = gettid().to_string();
    for task in fs::read_dir("/proc/self/task")? {
        let tid = task?.file_name().into_string().unwrap_or_default();
        if tid != own {
            return Ok(Some(tid.parse().context("/proc/self/task")?));
        }
    }
    Ok(None)
}

/// The file is registered with an io_uring, then its fd is closed.
fn registered() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let ring = IoUring::new()?;
    let file = busy.open()?;
    let fds = [file.as_raw_fd()];
    let operation = IoringRegisterOp::RegisterFiles;
    // SAFETY: the pointer refers to a list of one fd.
    unsafe { io_uring_register(&ring.fd, operation, fds.as_ptr().cast(), 1) }
        .map_err(to_nix)
        .supported("IORING_REGISTER_FILES")?;
    drop(file);
    victim.exec()?;
    // SAFETY: this operation takes no arguments.
    unsafe { io_uring_register(&ring.fd, IoringRegisterOp::UnregisterFiles, ptr::null(), 0) }
        .map_err(to_nix)
        .supported("IORING_UNREGISTER_FILES")?;

    // No release time: older kernels drop the files some time after that call.
    let holder = Holder { cloexec: false, ..Holder::opener(Task::current(), []) };
    Ok(victim.scene(VerdictKind::StillOpen, vec![holder]))
}

/// The file is opened straight into the io_uring's table, so it never has an fd.
fn direct() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let path = CString::new(busy.path.as_os_str().as_bytes())?;
    let ring = IoUring::new()?;
    // A table with one empty slot.
    let empty = [-1];
    let operation = IoringRegisterOp::RegisterFiles;
    // SAFETY: the pointer refers to a list of one fd.
    unsafe { io_uring_register(&ring.fd, operation, empty.as_ptr().cast(), 1) }
        .map_err(to_nix)
        .supported("IORING_REGISTER_FILES")?;
    let sqe = io_uring_sqe {
        opcode: IoringOp::Openat,
        fd: libc::AT_FDCWD,
        addr_or_splice_off_in: addr_or_splice_off_in_union {
            addr: io_uring_ptr::new(path.as_ptr().cast_mut().cast()),
        },
        op_flags: op_flags_union { open_flags: OFlags::WRONLY },
        // The first slot, counted from 1.
        splice_fd_in_or_file_index_or_addr_len: splice_fd_in_or_file_index_or_addr_len_union {
            file_index: 1,
        },
        ..io_uring_sqe::default()
    };
    // SAFETY: the path outlives the call.
    let result = unsafe { ring.perform(sqe) }?;
    if result != 0 {
        // Before 5.15 the kernel ignores the slot and returns an fd.
        let errno = if result > 0 { Errno::ENOSYS } else { Errno::from_raw(-result) };
        let errno = if errno == Errno::EINVAL { Errno::ENOSYS } else { errno };
        return Err(errno).supported("a direct descriptor");
    }
    victim.exec()?;
    // SAFETY: this operation takes no arguments.
    unsafe { io_uring_register(&ring.fd, IoringRegisterOp::UnregisterFiles, ptr::null(), 0) }
        .map_err(to_nix)
        .supported("IORING_UNREGISTER_FILES")?;

    Ok(victim.scene(VerdictKind::StillOpen, vec![io_uring_holder()]))
}

/// This process, whose io_uring keeps a file open without an fd.
fn io_uring_holder() -> Holder {
    Holder {
        cloexec: false,
        evidence: Some(Evidence::KernelObject),
        names: Some(("etxtbsy-trace".into(), "etxtbsy-trace".into())),
        ..Holder::opener(Task::current(), [])
    }
}

/// A request waits in the io_uring, and its fd was closed: a splice from an empty pipe.
fn request() -> Result<Scene> {
    let busy = Busy::new()?;
    let victim = busy.victim()?;
    let ring = IoUring::new()?;
    let (reader, writer) = std::io::pipe()?;
    let file = busy.open()?;
    let sqe = io_uring_sqe {
        opcode: IoringOp::Splice,
        fd: file.as_raw_fd(),
        off_or_addr2: off_or_addr2_union { off: u64::MAX },
        addr_or_splice_off_in: addr_or_splice_off_in_union { splice_off_in: u64::MAX },
        len: len_union { len: 1 },
        splice_fd_in_or_file_index_or_addr_len: splice_fd_in_or_file_index_or_addr_len_union {
            splice_fd_in: reader.as_raw_fd(),
        },
        ..io_uring_sqe::default()
    };
    // SAFETY: the entry has no pointers.
    let results = unsafe { ring.submit(sqe, 0) }?;
    // A worker must have the file and wait for the pipe.
    until("a worker has the request", has_waiting_worker)?;
    drop(file);
    victim.exec()?;
    drop(writer);
    io_uring_wait(&ring, results)?;

    Ok(victim.scene(VerdictKind::StillOpen, vec![io_uring_holder()]))
}

/// Whether a worker thread of this process's io_urings sleeps in `splice` until the pipe is written.
fn has_waiting_worker() -> Result<bool> {
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?.path();
        let name = fs::read_to_string(task.join("comm"))?;
        // Not `wchan`, which is empty on 5.10.
        let stack = fs::read_to_string(task.join("stack")).unwrap_or_default();
        if name.starts_with("iou-wrk") && stack.contains("pipe") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Waits until the operation is done.
fn io_uring_wait(ring: &IoUring, results: NonNull<u8>) -> Result<()> {
    // SAFETY: the call submits no entry.
    unsafe { io_uring_enter(&ring.fd, 0, 1, IoringEnterFlags::GETEVENTS) }
        .map_err(to_nix)
        .context("io_uring_enter")?;
    let result = ring.result(results);
    ensure!(result >= 0, "the request failed: {}", Errno::from_raw(-result));
    Ok(())
}

/// An io_uring for one operation. Its mappings stay until the process ends.
struct IoUring {
    fd: OwnedFd,
    params: io_uring_params,
}

impl IoUring {
    fn new() -> Result<Self> {
        let mut params = io_uring_params::default();
        // SAFETY: no entry is submitted yet.
        let fd = unsafe { io_uring_setup(1, &mut params) }.map_err(to_nix);
        Ok(Self { fd: fd.supported("io_uring_setup")?, params })
    }

    /// Performs the first operation and returns its result.
    ///
    /// # Safety
    ///
    /// The entry's pointers must be valid until this returns.
    unsafe fn perform(&self, entry: io_uring_sqe) -> Result<i32> {
        // SAFETY: the caller guarantees valid pointers until the operation is done.
        let results = unsafe { self.submit(entry, 1) }?;
        Ok(self.result(results))
    }

    /// The result of the operation, which must be done.
    fn result(&self, results: NonNull<u8>) -> i32 {
        let completion = &self.params.cq_off;
        // SAFETY: io_uring_setup returned this offset, which is within the mapping; the kernel has written
        // the entry.
        unsafe {
            let result = results.byte_add(completion.cqes as usize).cast::<io_uring_cqe>();
            (*result.as_ptr()).res
        }
    }

    /// Submits the first operation, waits until `done` operations are done, and returns the address of the
    /// results.
    ///
    /// # Safety
    ///
    /// The entry's pointers must be valid until the operation is done.
    unsafe fn submit(&self, entry: io_uring_sqe, done: u32) -> Result<NonNull<u8>> {
        let (submission, completion) = (&self.params.sq_off, &self.params.cq_off);
        let queue = self.map(submission.array as usize + size_of::<u32>(), IORING_OFF_SQ_RING)?;
        let results = completion.cqes as usize + size_of::<io_uring_cqe>();
        let results = self.map(results, IORING_OFF_CQ_RING)?;
        let entries = self.map(size_of::<io_uring_sqe>(), IORING_OFF_SQES)?;
        // SAFETY: io_uring_setup returned these offsets, which are within the mappings. The kernel does not
        // read the entry before the tail is set.
        unsafe {
            entries.cast().write(entry);
            queue.byte_add(submission.array as usize).cast().write(0_u32);
            let tail = queue.byte_add(submission.tail as usize).cast::<AtomicU32>();
            tail.as_ref().store(1, Ordering::Release);
            io_uring_enter(&self.fd, 1, done, IoringEnterFlags::GETEVENTS)
                .map_err(to_nix)
                .context("io_uring_enter")?;
        }
        Ok(results)
    }

    fn map(&self, length: usize, offset: u64) -> Result<NonNull<u8>> {
        let length = NonZero::new(length).context("an io_uring mapping has no length")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_POPULATE;
        let offset = offset.cast_signed();
        // SAFETY: a new mapping at an address that the kernel chooses replaces no other.
        let mapping = unsafe { mmap(None, length, protection, flags, &self.fd, offset) };
        Ok(mapping.context("cannot map the io_uring")?.cast())
    }
}

fn to_nix(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}
