//! The search for holders that no event showed, at a failure that the known ones do not account for. It reads
//! the fd tables of all tasks and all mappings of the inode. If some writer or reference is still missing, it
//! reads what pins descriptions without an fd: queues of sockets, io_uring, system calls in progress.
//!
//! Fds arrive unseen by SCM_RIGHTS, `pidfd_getfd`, io_uring, 32-bit system calls, or by an open of a file
//! system that opens another's file (overlayfs). Following those would cost every message that is received;
//! reading the tables costs nothing until an exec fails.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{
    HoldKey, How, Lost, NO_FD, ORPHAN_SLOTS, PinnedBy, TailCall, Via, Watch,
};

use crate::{
    bounded_loop::in_runs,
    failure::{
        candidates::{self, CURRENT, OUTLIVED},
        mappings, outcome, pinned, references, unnoted,
    },
    holds::{origin, table},
    kernel::{self, offset, syscall, word},
    maps::{ANY, DESCRIPTIONS, HOLDS, ORPHANS, ORPHANS_OF, SEARCHES, WATCHED, lost},
};

/// How many fds and threads the walk through all tables looks at. After that it begins no other process.
const STEPS: u32 = 1 << 18;
/// How many threads and words of fd tables one call of [`search_some`] looks at, and how many such calls
/// one run of the program makes: no more, because the verifier follows each.
const TURNS: u32 = 64;
const CALLS_A_RUN: u32 = 256;
/// [`crate::maps::SearchState::word`] while no fd table is being read.
const NO_WORD: u64 = u64::MAX;
/// How many words of an fd table's bitmap are looked at: those of as many fds as a process may have
/// (`sysctl_nr_open`, fs/file.c). A table that is being freed may seem to have any number.
const WORDS: u64 = (1 << 20) / 64;
/// How many fds of a word of an fd table's bitmap are looked at.
const FDS: u32 = 64;
/// `TASK_RUNNING`, include/linux/sched.h.
const TASK_RUNNING: u32 = 0;
/// `TASK_NEW`, the same: from the beginning of `copy_process` (`sched_fork`) to `wake_up_new_task`.
const TASK_NEW: u32 = 0x800;
/// `PF_KTHREAD` and `PF_IO_WORKER`, the same.
const PF_KTHREAD: u32 = 0x0020_0000;
const PF_IO_WORKER: u32 = 0x10;

/// Searches, in two passes, until no holder is missing or all was looked at.
#[inline(always)]
pub(crate) fn run(tail_call: impl Fn(TailCall)) {
    let current = kernel::current();
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return };
    // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
    unsafe {
        if (*search).first == 0 {
            begin_pass(current);
        }
    }
    // The tables of current's process first, then those of the processes after it in the list, which is a
    // circle.
    let whole = in_runs(CALLS_A_RUN, || search_some(current) != 0, || tail_call(TailCall::Search));
    // SAFETY: as above.
    let inode = unsafe {
        (*search).lost |= !whole as u32;
        (*search).inode
    };
    // SAFETY: as above. Read again each time: the verifier would follow the walk for each value that is known.
    let pass = || unsafe { (&raw const (*search).pass).read_volatile() };
    // The tree of mappings can change, because the walk does not take its lock: then the walk misses some. So
    // both passes walk it.
    if whole && (pass() == 0 || is_missing(current) != 0) {
        mappings::walk_mappings(current, inode);
    }
    if pass() == 0 && whole && is_missing(current) != 0 {
        // SAFETY: as above.
        unsafe {
            (*search).pass = 1;
            (*search).steps = 0;
        }
        begin_pass(current);
        search_orphans(current);
        tail_call(TailCall::Search);
        // It returns only if that was once too often.
        lost(Lost::WalkTruncated);
        outcome::end_failure(current, 1);
        return;
    }
    if pass() != 0 {
        pinned::search_pinners(current);
    }
    outcome::end_failure(current, 0);
}

/// Starts a walk through all processes at current's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_pass(current: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    unsafe {
        (*search).first = word(current, offset!(task_group_leader));
        (*search).process = (*search).first;
        (*search).thread = 0;
        (*search).table = 0;
        (*search).task = 0;
        (*search).word = NO_WORD;
        if (*search).pass == 0 {
            // The search counts all references again.
            (*search).found = 0;
            (*search).references = [0; DESCRIPTIONS];
        }
    }
    0
}

/// Whether writers, or references to descriptions, have not been found so far.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_missing(current: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let writers = unsafe { (*search).writers } as i32;
    ((references::found_files(current) < writers) | (references::unfound(current) > 0)) as i32
}

/// Reports who opened the descriptions whose opener's fd is closed, and which something still refers to.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_orphans(current: u64) -> i32 {
    for slot in 0..ORPHAN_SLOTS {
        candidates::report_candidate(current, slot, OUTLIVED, 0);
    }
    0
}

/// Looks at some threads, and at the words of their fd tables, from what is in `SEARCHES` on; gives 1
/// after the last of the last process.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_some(current: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 1 };
    for _ in 0..TURNS {
        // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
        let (process, last, reading) =
            unsafe { ((*search).process, (*search).thread, (*search).word != NO_WORD) };
        if reading {
            search_word(current);
            continue;
        }
        let signal = word(process, offset!(task_signal));
        let head = signal + offset!(signal_thread_head) as u64;
        let link = if last == 0 { head } else { last };
        // The list of a process that is being freed may end in zeros.
        let thread = word(link, 0);
        if thread != head && thread != 0 {
            search_thread(current, thread - offset!(task_thread_node) as u64);
            // SAFETY: as above.
            unsafe { (*search).thread = thread };
            continue;
        }
        let next = word(process, offset!(task_tasks)) - offset!(task_tasks) as u64;
        // SAFETY: as above.
        unsafe {
            if next == (*search).first {
                return 1;
            }
            if (*search).steps >= STEPS {
                outcome::cut(current);
                return 1;
            }
            (*search).process = next;
            (*search).thread = 0;
        }
    }
    0
}

/// Makes the fd table of a thread the next to be read, unless the search has just read it for the same
/// process. In the second pass, reports what the thread pins by the call that it is in.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_thread(current: u64, thread: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    let table = kernel::table_of(thread);
    let flags = kernel::int(thread, offset!(task_flags));
    let state = kernel::int(thread, offset!(task_state));
    // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
    let (pass, before, before_task) = unsafe {
        (*search).steps += 1;
        ((*search).pass, (*search).table, (*search).task)
    };
    // (Up to 5.11 it is a kernel thread, which does not show whose request it processes.)
    if pass != 0 && flags & (PF_IO_WORKER | PF_KTHREAD) == PF_IO_WORKER {
        search_worker(current, thread);
    } else if pass != 0 && state != TASK_RUNNING && flags & PF_KTHREAD == 0 {
        search_call(current, thread, table);
    }
    // As a rule, threads of one process share a table. Processes may share one too; then each is a holder.
    let same = before == table && kernel::tgid_of(before_task) == kernel::tgid_of(thread);
    // The fork of a task that is being made will report it, or is reporting it just now.
    if flags & PF_KTHREAD != 0 || state & TASK_NEW != 0 || table == 0 || same {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        (*search).task = thread;
        (*search).table = table;
        (*search).word = 0;
    }
    0
}

/// Looks at the call in which a thread sleeps: whether it pins a description whose fd is closed, or may be
/// opening the file just now.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_call(current: u64, thread: u64, table: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr(current) else { return 0 };
    let regs = kernel::registers(thread);
    if regs == 0 {
        return 0;
    }
    let syscall = kernel::int(regs, offset!(regs_syscall)) as i32;
    let is_open_call = kernel::is_open_call(syscall);
    if is_open_call | (syscall == syscall!(truncate)) | (syscall == syscall!(acct)) {
        unnoted::report_unnoted(
            current,
            thread,
            table,
            0,
            unnoted::about(PinnedBy::Opening as u64, NO_FD),
        );
        return 0;
    }
    let fd = word(regs, offset!(regs_first)) as u32;
    // SAFETY: a map value, which this task alone uses.
    let inode = unsafe { (*search).inode };
    let tgid = kernel::tgid_of(thread);
    for slot in 0..ORPHAN_SLOTS {
        let key = HoldKey { inode, slot, pad: 0 };
        let Some(file) = ORPHANS_OF.get_ptr(key) else { continue };
        // SAFETY: a map value, see `maps`.
        let file = unsafe { *file };
        let Some(orphan) = ORPHANS.get_ptr(file) else { continue };
        // SAFETY: as above.
        let its = unsafe { ((*orphan).tgid, (*orphan).fd) };
        // If the fd is another file by now, the call may have begun after that change.
        let is_closed = kernel::file_at(table, fd) == 0;
        if its == (tgid, fd) && kernel::is_open(file, inode) && is_closed {
            unnoted::report_unnoted(
                current,
                thread,
                table,
                file,
                unnoted::about(PinnedBy::Call as u64, NO_FD),
            );
        }
    }
    0
}

/// Looks at the request that a worker thread of an io_uring processes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_worker(current: u64, thread: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr(current) else { return 0 };
    if offset!(worker_cur_work) == u32::MAX || offset!(io_uring_request_work) == u32::MAX {
        return 0;
    }
    let worker = word(thread, offset!(task_worker_private));
    let work = word(worker, offset!(worker_cur_work));
    if work == 0 {
        return 0;
    }
    let request = work - offset!(io_uring_request_work) as u64;
    let file = word(request, offset!(io_uring_request_file));
    // SAFETY: a map value, which this task alone uses.
    if kernel::is_writer(file) && kernel::inode_of(file) == unsafe { (*search).inode } {
        unnoted::report_unnoted(
            current,
            thread,
            0,
            file,
            unnoted::about(PinnedBy::IoUring as u64, NO_FD),
        );
    }
    0
}

/// The number of the lowest bit that is set. No branches: the verifier would follow each.
#[inline(always)]
fn lowest(bits: u64) -> u64 {
    let below = (bits & bits.wrapping_neg()).wrapping_sub(1);
    let pairs = below - ((below >> 1) & 0x5555_5555_5555_5555);
    let nibbles = (pairs & 0x3333_3333_3333_3333) + ((pairs >> 2) & 0x3333_3333_3333_3333);
    let bytes = (nibbles + (nibbles >> 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    bytes.wrapping_mul(0x0101_0101_0101_0101) >> 56
}

/// Looks at the fds of the next word of the bitmap of the table that is being read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_word(current: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
    let (table, index) = unsafe { ((*search).table, (*search).word) };
    let fdt = word(table, offset!(files_fdt));
    let words = kernel::int(fdt, offset!(fdtable_max_fds)) as u64 / 64;
    if index >= words || index >= WORDS {
        // SAFETY: as above.
        unsafe {
            if index < words {
                outcome::cut(current);
            }
            (*search).word = NO_WORD;
        }
        return 0;
    }
    let fds = word(fdt, offset!(fdtable_fd)) + index * 64 * 8;
    let mut bits = word(word(fdt, offset!(fdtable_open_fds)) + index * 8, 0);
    // SAFETY: as above.
    unsafe { (*search).word = index + 1 };
    for _ in 0..FDS {
        if bits == 0 {
            break;
        }
        let fd = lowest(bits);
        bits &= bits - 1;
        let file = word(fds + fd * 8, 0);
        // Read and written in place, because those who are called need the stack.
        // SAFETY: as above.
        let (pass, first) = unsafe {
            (*search).steps += 1;
            ((*search).pass, ((*search).word - 1) * 64)
        };
        if pass != 0 {
            pinned::note_pinner(current, file);
        } else if kernel::is_writer(file) {
            search_fd(current, (first + fd) as u32, file);
        }
    }
    0
}

/// Looks at an fd of the table that is being read: whether it holds the inode.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_fd(current: u64, fd: u32, file: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
    let inode = unsafe { (*search).inode };
    let own = kernel::inode_of(file);
    if own != inode && !kernel::is_backed_by(file, inode) {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*search).other = if own == inode { 0 } else { own } };
    // Read again after each call, because those who are called need the stack.
    // SAFETY: as above.
    let place = || unsafe { ((*search).task, (*search).table) };
    let (task, table) = place();
    let known = found(current, task, table, fd);
    let (task, table) = place();
    match known {
        REPORTED => {
            references::note_found(current, file, 1);
        }
        NOTED => {
            report_found(current, task, table, fd);
        }
        _ => {
            // SAFETY: as above.
            unsafe { (*search).unplaced += 1 };
            unnoted::report_unnoted(current, task, table, file, unnoted::about(0, fd));
        }
    }
    // SAFETY: as above.
    unsafe { (*search).other = 0 };
    0
}

/// [`found`] returns: the hold is known, and was reported before the search as this process's.
const REPORTED: i32 = 0;
/// It is noted.
const NOTED: i32 = 1;
/// There is no place for it.
const UNPLACED: i32 = 2;

/// Looks at an fd that refers to the busy inode: notes it if it is not noted.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn found(current: u64, task: u64, table: u64, fd: u32) -> i32 {
    let Some(search) = SEARCHES.get_ptr(current) else { return REPORTED };
    // SAFETY: a map value, which this task alone uses.
    let (exit_ns, other) = unsafe { ((*search).exit_ns, (*search).other) };
    let file = kernel::file_at(table, fd);
    if let Some(key) = table::key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
    {
        // SAFETY: a map value, see `maps`.
        let hold = unsafe { &*hold };
        if hold.file == file {
            let own = kernel::is_task_of(hold) & (kernel::table_of(hold.task) == table);
            let own = own & (hold.tgid == kernel::tgid_of(task));
            let reported = own & (hold.acquired_ns <= exit_ns) & (other == 0);
            return if reported { REPORTED } else { NOTED };
        }
    }
    if !kernel::is_writer(file) {
        return REPORTED;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    table::acquire(task, table, fd, file, Via::Unknown, now, |hold| {
        hold.found = 1;
        origin::find_origin(hold, file);
    });
    let Some(_) = table::key_at(table, fd) else { return UNPLACED };
    if kernel::file_at(table, fd) != file {
        // It was closed just now, and perhaps no program has ended this hold.
        table::release(table, fd, How::None, 0);
        return REPORTED;
    }
    NOTED
}

/// Reports the hold of an fd as that of a task's process.
#[inline(always)]
fn report_found(current: u64, task: u64, table: u64, fd: u32) {
    let Some(HoldKey { inode, slot, .. }) = table::key_at(table, fd) else { return };
    let Some(search) = SEARCHES.get_ptr(current) else { return };
    // SAFETY: a map value, which this task alone uses.
    let (exit_ns, other) = unsafe { ((*search).exit_ns, (*search).other) };
    if other != 0 {
        // What happens to the description of overlayfs is of interest too.
        let watch = Watch { failed_ns: exit_ns, wanted: 0, lost: 0 };
        if WATCHED.insert(inode, watch, ANY).is_err() {
            lost(Lost::WatchFull);
        }
    }
    candidates::report_candidate(current, slot, CURRENT, task);
}
