//! The search for holders that no event told of: at a failure that the known ones do not account
//! for, all tasks' fd tables are read, and all mappings of the inode.
//!
//! Fds come unseen by SCM_RIGHTS, `pidfd_getfd`, io_uring, 32-bit system calls, or by an open of
//! a file system that opens another's file (overlayfs). Following those would cost every message
//! that is received; reading the tables costs nothing until an exec fails.

use aya_ebpf::{
    EbpfContext,
    macros::{raw_tracepoint, tracepoint},
    maps::ProgramArray,
    programs::{RawTracePointContext, TracePointContext},
};
use etxtbsy_trace_common::{
    Candidate, Hold, HoldKey, Keeper, KeptBy, Kind, Lost, NO_FD, Next, ORPHANS, Via,
};

use crate::{
    fail::{self, LOST, tell_candidate},
    hold, keeper,
    kernel::{self, offset, word},
    linger,
    maps::{self, ANY, COMPAT_NEXT, HOLDS, NEXT, SEARCHES, Sought, WATCHED, lost},
    tell::{self, QUIET},
    walk::in_runs,
};

/// How many fds and threads the walk through all tables looks at, before it begins no more
/// processes.
const STEPS: u32 = 1 << 18;
/// How many threads and words of fd tables one call of [`search_some`] looks at, and how many such calls
/// one run of [`search`] makes: no more, for the verifier follows each.
const TURNS: u32 = 64;
const CALLS: u32 = 256;
/// Of [`Sought::word`]: no fd table is being read.
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
/// `PF_KTHREAD`, include/linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Continues `exec_returns`, which has told what is known already; a program of its own for the
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
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    if sought.first == 0 {
        sought.first = word(current, offset!(task_group_leader));
        sought.process = sought.first;
        sought.word = NO_WORD;
        search_orphans(current);
    }
    // The tables of current's process first, then of those that are in the list after it, round to where
    // it began.
    in_runs(ctx, next, Next::Search, CALLS, || search_some(current) != 0);
    walk_mappings(current, sought.inode);
    let Sought { seq, lost, .. } = *sought;
    let _ = SEARCHES.remove(current);
    fail::tell_end(seq, lost);
}

/// Those that lie in a queue, or are kept by a call under way or the kernel itself.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_orphans(current: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    for slot in 0..ORPHANS {
        let told = tell_candidate(sought.inode, slot, 2, sought.seq, 0);
        sought.lost |= (told & LOST != 0) as u32;
        if let Some(orphan) = maps::ORPHANS.get_ptr(HoldKey { inode: sought.inode, slot, pad: 0 })
            // SAFETY: a map value.
            && kernel::is_open(unsafe { (*orphan).file }, sought.inode)
        {
            // SAFETY: as above.
            unsafe {
                sought.orphan = (*orphan).file;
                sought.orphan_tgid = (*orphan).tgid;
                sought.orphan_fd = (*orphan).fd;
            }
        }
    }
    0
}

/// Looks at some threads, and at the words of their fd tables, from what is in `SEARCHES` on; gives 1
/// after the last of the last process.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_some(current: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 1 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    for _ in 0..TURNS {
        if sought.word != NO_WORD {
            search_word(current);
            continue;
        }
        let signal = word(sought.process, offset!(task_signal));
        let head = signal + offset!(signal_thread_head) as u64;
        let link = if sought.thread == 0 { head } else { sought.thread };
        // The list of a process that is freed meanwhile may end in zeros.
        let thread = word(link, 0);
        if thread != head && thread != 0 {
            search_thread(current, thread - offset!(task_thread_node) as u64);
            sought.thread = thread;
            continue;
        }
        let next = word(sought.process, offset!(task_tasks)) - offset!(task_tasks) as u64;
        if next == sought.first {
            return 1;
        }
        if sought.steps >= STEPS {
            lost(Lost::WalkTruncated);
            return 1;
        }
        sought.process = next;
        sought.thread = 0;
    }
    0
}

/// Has the fd table of a thread looked at next, unless it is the one that was read last; tells if the
/// thread sleeps in a call on the orphan.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_thread(current: u64, thread: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    sought.steps += 1;
    let table = kernel::table_of(thread);
    let is_user = kernel::int(thread, offset!(task_flags)) & PF_KTHREAD == 0;
    let state = kernel::int(thread, offset!(task_state));
    if sought.orphan != 0
        && sought.orphan_tgid == kernel::tgid_of(thread)
        && kernel::file_at(table, sought.orphan_fd) == 0
        && state != TASK_RUNNING
    {
        let regs = kernel::registers(thread);
        if word(regs, offset!(regs_first)) as u32 == sought.orphan_fd {
            let syscall = kernel::int(regs, offset!(regs_syscall)) as i32;
            tell_keeper(current, thread, KeptBy::Call as u32, syscall);
        }
    }
    // One that is being made is told by its fork, which has not come yet or is being told just now.
    if !is_user || state & TASK_NEW != 0 || table == 0 || table == sought.table {
        return 0;
    }
    (sought.task, sought.table, sought.word) = (thread, table, 0);
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
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    let fdt = word(sought.table, offset!(files_fdt));
    let index = sought.word;
    let words = kernel::int(fdt, offset!(fdtable_max_fds)) as u64 / 64;
    if index >= words || index >= WORDS {
        if index < words {
            lost(Lost::WalkTruncated);
        }
        sought.word = NO_WORD;
        return 0;
    }
    sought.word = index + 1;
    let fds = word(fdt, offset!(fdtable_fd)) + index * 64 * 8;
    let mut bits = word(word(fdt, offset!(fdtable_open_fds)) + index * 8, 0);
    for _ in 0..FDS {
        if bits == 0 {
            break;
        }
        let fd = lowest(bits);
        bits &= bits - 1;
        sought.steps += 1;
        let file = word(fds + fd * 8, 0);
        if kernel::is_writer(file) | (sought.orphan != 0) {
            search_fd(current, (index * 64 + fd) as u32, file);
        }
    }
    0
}

/// Looks at an fd of the table that is being read: whether it holds the inode, or keeps the orphan.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_fd(current: u64, fd: u32, file: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    if kernel::is_writer(file)
        && (kernel::inode_of(file) == sought.inode || kernel::is_backed_by(file, sought.inode))
    {
        let sharer = if found(sought.task, sought.table, fd, file) != 0 { sought.task } else { 0 };
        let told = tell_found(sought.table, fd, sought.seq, sharer);
        sought.lost |= (told & LOST != 0) as u32;
    }
    if sought.orphan != 0 {
        let by = keeper::keeps(file, sought.orphan);
        if by > 0 {
            tell_keeper(current, sought.task, by as u32, 0);
        }
    }
    0
}

/// Tells that a thread's process keeps the orphan.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_keeper(current: u64, thread: u64, by: u32, syscall: i32) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let Sought { inode, seq, orphan: file, .. } = unsafe { *sought };
    let tgid = kernel::tgid_of(thread);
    if by != KeptBy::Queue as u32 {
        linger::until_exit(tgid, file, inode);
    }
    let kind = Kind::Keeper as u32;
    tell::record(&Keeper { kind, by, seq, file, tgid, syscall }, QUIET);
    0
}

/// An fd that refers to the busy inode: notes it if no event told of it. 1 if it is noted as
/// another process's, with whom this one shares the table.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn found(task: u64, table: u64, fd: u32, file: u64) -> i32 {
    if let Some(key) = hold::key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
    {
        // SAFETY: a map value.
        let (known, tgid) = unsafe { ((*hold).file, (*hold).tgid) };
        if known == file {
            return (tgid != kernel::tgid_of(task)) as i32;
        }
    }
    hold::acquire(task, table, fd, file, Via::Unknown, 0, |hold| {
        hold::find_origin(hold, file);
    });
    0
}

/// Tells of the hold of an fd; gives what [`tell_candidate`] gives.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_found(table: u64, fd: u32, seq: u64, sharer: u64) -> i32 {
    let Some(HoldKey { inode, slot, .. }) = hold::key_at(table, fd) else { return 0 };
    if WATCHED.insert(inode, seq, ANY).is_err() {
        lost(Lost::WatchFull);
    }
    tell_candidate(inode, slot, 0, seq, sharer)
}

/// The walk through the mappings of an inode: its interval tree, in order.
#[inline(always)]
fn walk_mappings(current: u64, inode: u64) {
    let i_mmap = word(inode, offset!(inode_i_mapping)) + offset!(mapping_i_mmap) as u64;
    let mut node = word(i_mmap, offset!(rb_leftmost));
    for _ in 0..ALL_MAPPINGS {
        node = search_mappings(current, node);
        if node == 0 {
            return;
        }
    }
    lost(Lost::WalkTruncated);
}

/// Looks at some mappings, by `struct rb_node *` within a `vm_area_struct`; gives the next, or 0
/// after the last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_mappings(current: u64, from: u64) -> u64 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    let mut node = from;
    for _ in 0..MAPPINGS {
        if node == 0 {
            return 0;
        }
        let vma = node - offset!(vma_rb) as u64;
        let file = word(vma, offset!(vma_vm_file));
        if kernel::is_writer(file) && kernel::inode_of(file) == sought.inode {
            let told = mapped(word(vma, offset!(vma_vm_mm)), file, sought.seq);
            sought.lost |= (told & LOST != 0) as u32;
        }
        node = next_node(node);
    }
    node
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
/// ones keep it as well. Gives [`LOST`] if it found no room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mapped(mm: u64, file: u64, seq: u64) -> i32 {
    let Some(mut entry) = tell::reserve::<Candidate>() else { return LOST };
    let told = entry.as_mut_ptr();
    // Reading at 0 gives zeros, which are no process.
    let task = if offset!(mm_owner) == u32::MAX { 0 } else { word(mm, offset!(mm_owner)) };
    // SAFETY: `told` is the reserved record; every field is written before it is submitted.
    unsafe {
        let hold: *mut Hold = &raw mut (*told).hold;
        zero(hold.cast());
        hold::begin(hold, task, mm, NO_FD, file, Via::Mapping, 0);
        hold::find_origin(&mut *hold, file);
        (*hold).file = file;
        (*told).kind = Kind::Candidate as u32;
        (*told).in_table = 0;
        (*told).in_works = 0;
        (*told).cloexec = 0;
        (*told).open = kernel::is_open(file, (*hold).inode) as u32;
        (*told).users = 0;
        (*told).seq = seq;
        (*told).inode = (*hold).inode;
        // A process that has left this memory does not hold it.
        let mapped = word(task, offset!(task_mm)) == mm;
        tell::look(hold, &raw mut (*told).holder);
        if !mapped {
            (*told).open = 0;
        }
    }
    // SAFETY: as above.
    if unsafe { (*told).open } != 0 {
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
