//! The search for holders that no event showed: at a failure that the known ones do not account for,
//! all tasks' fd tables are read, and all mappings of the inode; then, if some writer or reference
//! is still missing, what keeps descriptions without an fd: queues of sockets, io_uring, system calls
//! under way.
//!
//! Fds come unseen by SCM_RIGHTS, `pidfd_getfd`, io_uring, 32-bit system calls, or by an open of
//! a file system that opens another's file (overlayfs). Following those would cost every message
//! that is received; reading the tables costs nothing until an exec fails.

use aya_ebpf::{
    EbpfContext,
    helpers::bpf_ktime_get_ns,
    macros::{raw_tracepoint, tracepoint},
    maps::ProgramArray,
    programs::{RawTracePointContext, TracePointContext},
};
use etxtbsy_trace_common::{
    Candidate, Hold, HoldKey, KeptBy, Kind, Lost, NO_FD, Next, ORPHANS, Via, Watch,
};

use crate::{
    fail::{self, CURRENT, OUTLIVED, end_failure, found_files, note_found, tell_candidate},
    hold, keeper,
    kernel::{self, CALLS, offset, word},
    linger,
    maps::{self, ANY, COMPAT_NEXT, HOLDS, NEXT, RECEIVED, SEARCHES, WATCHED, lost},
    tell::{self, QUIET},
    walk::in_runs,
};

/// How many fds and threads the walk through all tables looks at, before it begins no more
/// processes.
const STEPS: u32 = 1 << 18;
/// How many threads and words of fd tables one call of [`search_some`] looks at, and how many such calls
/// one run of [`search`] makes: no more, for the verifier follows each.
const TURNS: u32 = 64;
const CALLS_A_RUN: u32 = 256;
/// Of [`maps::Sought::word`]: no fd table is being read.
const NO_WORD: u64 = u64::MAX;
/// How many words of an fd table's bitmap are looked at: those of as many fds as a process may have
/// (`sysctl_nr_open`, fs/file.c), for one that is freed meanwhile may seem to have any number.
const WORDS: u64 = (1 << 20) / 64;
/// How many fds of a word of an fd table's bitmap are looked at.
const FDS: u32 = 64;
/// How many mappings of the inode one call of [`search_mappings`] looks at, how many such calls
/// there are, and how deep their tree is.
const MAPPINGS: u32 = 32;
const ALL_MAPPINGS: u32 = 512;
const LEVELS: u32 = 64;
/// `TASK_RUNNING`, include/linux/sched.h.
const TASK_RUNNING: u32 = 0;
/// `TASK_NEW`, the same: from the beginning of `copy_process` (`sched_fork`) to `wake_up_new_task`.
const TASK_NEW: u32 = 0x800;
/// `PF_KTHREAD` and `PF_IO_WORKER`, the same.
const PF_KTHREAD: u32 = 0x0020_0000;
const PF_IO_WORKER: u32 = 0x10;

/// Continues `exec_returns`, which has reported what is known already; a program of its own for the
/// verifier's sake. It is still the exit of the failing call. All its runs together come to half a million
/// threads and words of fd tables.
#[tracepoint]
pub fn search(ctx: TracePointContext) -> u32 {
    search_all(&ctx, &NEXT);
    0
}

/// The same after a 32-bit call.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn compat_search(ctx: RawTracePointContext) -> i32 {
    search_all(&ctx, &COMPAT_NEXT);
    0
}

#[inline(always)]
fn search_all(ctx: &impl EbpfContext, next: &ProgramArray) {
    let current = kernel::current();
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return };
    // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
    unsafe {
        if (*sought).first == 0 {
            begin_pass(current);
        }
    }
    // The tables of current's process first, then of those that are in the list after it, round to where
    // it began.
    let whole = in_runs(ctx, next, Next::Search, CALLS_A_RUN, || search_some(current) != 0);
    // SAFETY: as above.
    let (pass, inode) = unsafe {
        (*sought).lost |= !whole as u32;
        ((*sought).pass, (*sought).inode)
    };
    // The tree of mappings can change while it is walked without its lock: then the walk misses some. So it
    // is walked in both passes.
    if whole && (pass == 0 || is_missing(current) != 0) {
        walk_mappings(current, inode);
    }
    if pass == 0 && whole && is_missing(current) != 0 {
        // SAFETY: as above.
        unsafe {
            (*sought).pass = 1;
            (*sought).steps = 0;
        }
        begin_pass(current);
        search_orphans(current);
        // SAFETY: the program that user space has put there is this one.
        let _ = unsafe { next.tail_call(ctx, Next::Search as u32) };
        // It does not return, unless that was once too often.
        lost(Lost::WalkTruncated);
        end_failure(current, 1);
        return;
    }
    if pass != 0 {
        keeper::search_keepers(current);
    }
    end_failure(current, 0);
}

/// Counts that not all was looked at.
#[inline(always)]
pub(crate) fn cut(current: u64) {
    lost(Lost::WalkTruncated);
    if let Some(sought) = SEARCHES.get_ptr_mut(current) {
        // SAFETY: a map value, which this task alone uses.
        unsafe { (*sought).lost = 1 };
    }
}

/// Has a walk through all processes begin at current's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_pass(current: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    unsafe {
        (*sought).first = word(current, offset!(task_group_leader));
        (*sought).process = (*sought).first;
        (*sought).thread = 0;
        (*sought).table = 0;
        (*sought).task = 0;
        (*sought).word = NO_WORD;
        if (*sought).pass == 0 {
            // All references are found anew.
            (*sought).found = 0;
            (*sought).references = [0; maps::DESCRIPTIONS];
        }
    }
    0
}

/// Whether writers, or references to descriptions, have not been found so far.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_missing(current: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let writers = unsafe { (*sought).writers } as i32;
    ((found_files(current) < writers) | (fail::unfound(current) > 0)) as i32
}

/// Those whose opener's fd is closed, and which something refers to: who opened them, if nothing is found
/// to keep them.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_orphans(current: u64) -> i32 {
    for slot in 0..ORPHANS {
        tell_candidate(current, slot, OUTLIVED, 0);
    }
    0
}

/// Looks at some threads, and at the words of their fd tables, from what is in `SEARCHES` on; gives 1
/// after the last of the last process.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_some(current: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 1 };
    for _ in 0..TURNS {
        // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
        let (process, last, reading) =
            unsafe { ((*sought).process, (*sought).thread, (*sought).word != NO_WORD) };
        if reading {
            search_word(current);
            continue;
        }
        let signal = word(process, offset!(task_signal));
        let head = signal + offset!(signal_thread_head) as u64;
        let link = if last == 0 { head } else { last };
        // The list of a process that is freed meanwhile may end in zeros.
        let thread = word(link, 0);
        if thread != head && thread != 0 {
            search_thread(current, thread - offset!(task_thread_node) as u64);
            // SAFETY: as above.
            unsafe { (*sought).thread = thread };
            continue;
        }
        let next = word(process, offset!(task_tasks)) - offset!(task_tasks) as u64;
        // SAFETY: as above.
        unsafe {
            if next == (*sought).first {
                return 1;
            }
            if (*sought).steps >= STEPS {
                cut(current);
                return 1;
            }
            (*sought).process = next;
            (*sought).thread = 0;
        }
    }
    0
}

/// Has the fd table of a thread looked at next, unless it is that of its process which was read last; in
/// the second pass, reports what the thread keeps by the call that it is in.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_thread(current: u64, thread: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    let table = kernel::table_of(thread);
    let flags = kernel::int(thread, offset!(task_flags));
    let state = kernel::int(thread, offset!(task_state));
    // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
    let (pass, before, before_task) = unsafe {
        (*sought).steps += 1;
        ((*sought).pass, (*sought).table, (*sought).task)
    };
    // (Up to 5.11 it is a kernel thread, which does not show whose request it is at.)
    if pass != 0 && flags & (PF_IO_WORKER | PF_KTHREAD) == PF_IO_WORKER {
        search_worker(current, thread);
    } else if pass != 0 && state != TASK_RUNNING && flags & PF_KTHREAD == 0 {
        search_call(current, thread, table);
    }
    // Threads of one process share a table as a rule; processes may, and each is a holder then.
    let same = before == table && kernel::tgid_of(before_task) == kernel::tgid_of(thread);
    // One that is being made is reported by its fork, which has not come yet or is being reported just now.
    if flags & PF_KTHREAD != 0 || state & TASK_NEW != 0 || table == 0 || same {
        return 0;
    }
    // SAFETY: as above.
    unsafe {
        (*sought).task = thread;
        (*sought).table = table;
        (*sought).word = 0;
    }
    0
}

/// Looks at the call in which a thread sleeps: whether it keeps a description whose fd is closed, or may
/// be opening the file just now.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_call(current: u64, thread: u64, table: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(current) else { return 0 };
    let regs = kernel::registers(thread);
    if regs == 0 {
        return 0;
    }
    let syscall = kernel::int(regs, offset!(regs_syscall)) as i32;
    let calls = CALLS.load();
    let is_open_call = kernel::is_open_call(syscall);
    if is_open_call | (syscall == calls.truncate) | (syscall == calls.acct) {
        tell_unnoted(current, thread, table, 0, about(KeptBy::Opening as u64, NO_FD));
        return 0;
    }
    let fd = word(regs, offset!(regs_first)) as u32;
    // SAFETY: a map value, which this task alone uses.
    let inode = unsafe { (*sought).inode };
    let tgid = kernel::tgid_of(thread);
    for slot in 0..ORPHANS {
        let key = HoldKey { inode, slot, pad: 0 };
        let Some(file) = maps::ORPHANS_OF.get_ptr(key) else { continue };
        // SAFETY: a map value, see `maps`.
        let file = unsafe { *file };
        let Some(orphan) = maps::ORPHANS.get_ptr(file) else { continue };
        // SAFETY: as above.
        let its = unsafe { ((*orphan).tgid, (*orphan).fd) };
        // Where the fd is another file by now, the call may have begun after that.
        let is_closed = kernel::file_at(table, fd) == 0;
        if its == (tgid, fd) && kernel::is_open(file, inode) && is_closed {
            tell_unnoted(current, thread, table, file, about(KeptBy::Call as u64, NO_FD));
        }
    }
    0
}

/// Looks at the request that a worker thread of an io_uring is at.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_worker(current: u64, thread: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(current) else { return 0 };
    if offset!(worker_cur_work) == u32::MAX || offset!(ring_request_work) == u32::MAX {
        return 0;
    }
    let worker = word(thread, offset!(task_worker_private));
    let work = word(worker, offset!(worker_cur_work));
    if work == 0 {
        return 0;
    }
    let request = work - offset!(ring_request_work) as u64;
    let file = word(request, offset!(ring_request_file));
    // SAFETY: a map value, which this task alone uses.
    if kernel::is_writer(file) && kernel::inode_of(file) == unsafe { (*sought).inode } {
        tell_unnoted(current, thread, 0, file, about(KeptBy::Ring as u64, NO_FD));
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
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
    let (table, index, pass) = unsafe { ((*sought).table, (*sought).word, (*sought).pass) };
    let fdt = word(table, offset!(files_fdt));
    let words = kernel::int(fdt, offset!(fdtable_max_fds)) as u64 / 64;
    if index >= words || index >= WORDS {
        // SAFETY: as above.
        unsafe {
            if index < words {
                cut(current);
            }
            (*sought).word = NO_WORD;
        }
        return 0;
    }
    let fds = word(fdt, offset!(fdtable_fd)) + index * 64 * 8;
    let mut bits = word(word(fdt, offset!(fdtable_open_fds)) + index * 8, 0);
    let mut steps = 0;
    for _ in 0..FDS {
        if bits == 0 {
            break;
        }
        let fd = lowest(bits);
        bits &= bits - 1;
        steps += 1;
        let file = word(fds + fd * 8, 0);
        if pass != 0 {
            keeper::note_keeper(current, file);
        } else if kernel::is_writer(file) {
            search_fd(current, (index * 64 + fd) as u32, file);
        }
    }
    // SAFETY: as above.
    unsafe {
        (*sought).word = index + 1;
        (*sought).steps += steps;
    }
    0
}

/// Looks at an fd of the table that is being read: whether it holds the inode.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_fd(current: u64, fd: u32, file: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses; no reference to it is kept across calls.
    let (task, table, inode) = unsafe { ((*sought).task, (*sought).table, (*sought).inode) };
    let own = kernel::inode_of(file);
    if own != inode && !kernel::is_backed_by(file, inode) {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*sought).other = if own == inode { 0 } else { own } };
    match found(current, task, table, fd) {
        REPORTED => {
            note_found(current, file, 1);
        }
        NOTED => {
            tell_found(current, task, table, fd);
        }
        _ => {
            // SAFETY: as above.
            unsafe { (*sought).unplaced += 1 };
            tell_unnoted(current, task, table, file, about(0, fd));
        }
    }
    // SAFETY: as above.
    unsafe { (*sought).other = 0 };
    0
}

/// Of [`found`]: the hold is known, and was reported before the search as this process's.
const REPORTED: i32 = 0;
/// It is noted.
const NOTED: i32 = 1;
/// There is no place for it.
const UNPLACED: i32 = 2;

/// An fd that refers to the busy inode: notes it if no event brought it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn found(current: u64, task: u64, table: u64, fd: u32) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(current) else { return REPORTED };
    // SAFETY: a map value, which this task alone uses.
    let (exit_ns, other) = unsafe { ((*sought).exit_ns, (*sought).other) };
    let file = kernel::file_at(table, fd);
    if let Some(key) = hold::key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
    {
        // SAFETY: a map value, see `maps`.
        let hold = unsafe { &*hold };
        if hold.file == file {
            let own = hold::is_task_of(hold) & (kernel::table_of(hold.task) == table);
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
    hold::acquire(task, table, fd, file, Via::Unknown, now, |hold| {
        hold.found = 1;
        hold::find_origin(hold, file);
    });
    let Some(_) = hold::key_at(table, fd) else { return UNPLACED };
    if kernel::file_at(table, fd) != file {
        // It was closed just now, and nobody may have seen that this hold ended.
        hold::release(table, fd, etxtbsy_trace_common::How::None, 0);
        return REPORTED;
    }
    NOTED
}

/// Reports the hold of an fd as that of a task's process.
#[inline(always)]
fn tell_found(current: u64, task: u64, table: u64, fd: u32) {
    let Some(HoldKey { inode, slot, .. }) = hold::key_at(table, fd) else { return };
    let Some(sought) = SEARCHES.get_ptr(current) else { return };
    // SAFETY: a map value, which this task alone uses.
    let (exit_ns, other) = unsafe { ((*sought).exit_ns, (*sought).other) };
    if other != 0 {
        // What happens to the description of overlayfs is of interest too.
        let watch = Watch { failed_ns: exit_ns, wanted: 0, lost: 0 };
        if WATCHED.insert(inode, watch, ANY).is_err() {
            lost(Lost::WatchFull);
        }
    }
    tell_candidate(current, slot, CURRENT, task);
}

/// The walk through the mappings of an inode: its interval tree, in order. They are counted anew.
#[inline(always)]
fn walk_mappings(current: u64, inode: u64) {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return };
    // SAFETY: a map value, which this task alone uses.
    unsafe {
        (*sought).found -= (*sought).mapped;
        (*sought).mapped = 0;
    }
    let i_mmap = word(inode, offset!(inode_i_mapping)) + offset!(mapping_i_mmap) as u64;
    let mut node = word(i_mmap, offset!(rb_leftmost));
    for _ in 0..ALL_MAPPINGS {
        node = search_mappings(current, node);
        if node == 0 {
            return;
        }
    }
    cut(current);
}

/// Looks at some mappings, by `struct rb_node *` within a `vm_area_struct`; gives the next, or 0
/// after the last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_mappings(current: u64, from: u64) -> u64 {
    let Some(sought) = SEARCHES.get_ptr(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let inode = unsafe { (*sought).inode };
    let mut node = from;
    for _ in 0..MAPPINGS {
        if node == 0 {
            return 0;
        }
        let vma = node - offset!(vma_rb) as u64;
        let file = word(vma, offset!(vma_vm_file));
        if kernel::is_writer(file) && kernel::inode_of(file) == inode && is_linked(node) {
            mapped(current, word(vma, offset!(vma_vm_mm)), file);
        }
        node = next_node(node);
    }
    node
}

/// Whether a node is in its tree still: the walk, which takes no lock, can come by one that `rb_erase` has
/// taken out, and that has all its own links yet.
#[inline(always)]
fn is_linked(node: u64) -> bool {
    let parent = word(node, offset!(rb_parent)) & !3;
    (parent == 0)
        | (word(parent, offset!(rb_left)) == node)
        | (word(parent, offset!(rb_right)) == node)
}

/// `rb_next` (lib/rbtree.c): the next node of a tree, in order; 0 after the last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn next_node(node: u64) -> u64 {
    let mut next = word(node, offset!(rb_right));
    if next != 0 {
        for _ in 0..LEVELS {
            let left = word(next, offset!(rb_left));
            if left == 0 {
                break;
            }
            next = left;
        }
        return next;
    }
    let mut child = node;
    for _ in 0..LEVELS {
        // The lowest two bits are the colour.
        let parent = word(child, offset!(rb_parent)) & !3;
        if word(parent, offset!(rb_right)) != child {
            return parent;
        }
        child = parent;
    }
    0
}

/// A mapping of the busy inode through a description with write access: private and read-only
/// ones keep it as well.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mapped(current: u64, mm: u64, file: u64) -> i32 {
    // Reading at 0 gives zeros, which are no process.
    let task = if offset!(mm_owner) == u32::MAX { 0 } else { word(mm, offset!(mm_owner)) };
    // A process that has left this memory does not hold it.
    if word(task, offset!(task_mm)) == mm {
        tell_unnoted(current, task, mm, file, about(MAPPED, NO_FD));
    } else {
        note_found(current, file, 1);
    }
    if let Some(sought) = SEARCHES.get_ptr_mut(current) {
        // SAFETY: a map value, which this task alone uses.
        unsafe { (*sought).mapped += 1 };
    }
    0
}

/// Of [`about`], beside the numbers of [`KeptBy`], and 0 for an fd: a mapping.
const MAPPED: u64 = 8;

/// What [`tell_unnoted`] is about: what keeps the description, and the fd.
#[inline(always)]
pub(crate) fn about(by: u64, fd: u32) -> u64 {
    by << 32 | fd as u64
}

/// Reports a process that has a description, though no hold of it is noted: how is said by `about`;
/// `table` is its fd table, or its memory. `file` is 0 if it is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell_unnoted(
    current: u64,
    task: u64,
    table: u64,
    file: u64,
    about: u64,
) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    let (by, fd) = ((about >> 32) as u32, about as u32);
    let is_mapped = by == MAPPED as u32;
    let Some(mut entry) = tell::reserve::<Candidate>() else {
        // SAFETY: a map value, which this task alone uses.
        unsafe { (*sought).lost = 1 };
        return 0;
    };
    let told = entry.as_mut_ptr();
    let via = if is_mapped { Via::Mapping } else { Via::Unknown };
    // SAFETY: `told` is the reserved record; every field is written before it is submitted.
    unsafe {
        let hold: *mut Hold = &raw mut (*told).hold;
        zero(hold.cast());
        // SAFETY: no arguments.
        hold::begin(hold, task, table, fd, file, via, bpf_ktime_get_ns());
        (*hold).found = 1;
        if file == 0 {
            (*hold).inode = (*sought).inode;
        } else {
            hold::find_origin(&mut *hold, file);
        }
        (*hold).file = file;
        if (by == 0) & ((*hold).opened.tgid != (*hold).tgid) {
            fail::came_by_fork(hold, task);
        }
        (*told).kind = Kind::Candidate as u32;
        (*told).in_table = (by == 0) as u32;
        (*told).in_works = 0;
        (*told).cloexec = if by == 0 { kernel::cloexec_at(table, fd) } else { 0 };
        (*told).open = (file == 0 || kernel::is_open(file, (*hold).inode)) as u32;
        (*told).drain = 0;
        (*told).kept_by = if is_mapped { 0 } else { by };
        (*told).syscall = kernel::last_call(task);
        (*told).tid = kernel::int(task, offset!(task_pid));
        (*told).ending = kernel::is_ending(task) as u32;
        (*told).quiet = kernel::quiet_since(task, (*sought).arrival);
        (*told).pad = 0;
        (*told).received_ns = match RECEIVED.get_ptr(table) {
            Some(at) => *at,
            None => 0,
        };
        (*told).closed_ns = hold::closed_ns((*hold).inode, file, (*hold).opened.time_ns);
        (*told).seq = (*sought).seq;
        (*told).inode = (*hold).inode;
        tell::look(hold, &raw mut (*told).holder);
    }
    // SAFETY: the record, which is filled.
    let opened_ns = unsafe { (*told).hold.opened.time_ns };
    // SAFETY: a map value, which this task alone uses.
    if file != 0 && opened_ns < unsafe { (*sought).exit_ns } {
        note_found(current, file, 1);
    }
    if is_mapped || by == KeptBy::Call as u32 || by == KeptBy::Ring as u32 {
        linger::until_exit(kernel::tgid_of(task), file, kernel::inode_of(file));
    }
    entry.submit(QUIET);
    0
}

/// Makes a hold zeros, word by word: no call that takes a frame.
///
/// # Safety
///
/// `words` are those of a hold.
#[inline(always)]
unsafe fn zero(words: *mut u64) {
    for at in 0..size_of::<Hold>() / 8 {
        // SAFETY: the caller's promise.
        unsafe { words.add(at).write_volatile(0) };
    }
}
