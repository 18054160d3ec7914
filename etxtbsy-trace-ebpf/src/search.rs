//! The search for holders that no event told of: at a failure that the known ones do not account
//! for, all tasks' fd tables are read, and all mappings of the inode.
//!
//! Fds come unseen by SCM_RIGHTS, `pidfd_getfd`, io_uring, 32-bit system calls, or by an open of
//! a file system that opens another's file (overlayfs). Following those would cost every message
//! that is received; reading the tables costs nothing until an exec fails.

use core::ffi::c_void;

use aya_ebpf::{macros::tracepoint, programs::TracePointContext};
use etxtbsy_trace_common::{
    Candidate, FailureEnd, Hold, HoldKey, Keeper, KeptBy, Kind, Lost, NO_FD, ORPHANS, Via,
};

use crate::{
    copied::lowest,
    fail::{LOST, tell_candidate},
    hold::{self, repeat},
    keeper,
    kernel::{self, offset, word},
    linger,
    maps::{self, ANY, HOLDS, SEARCHES, Sought, WATCHED, lost},
    tell::{self, QUIET, WAKE},
};

/// How many steps the walk through all tables takes at the most: a step is an fd, 64 fds none of
/// which is open, or a thread.
const STEPS: u32 = 1 << 18;
/// How many mappings of one inode are looked at.
const MAPPINGS: u32 = 1 << 14;
/// `TASK_RUNNING`, include/linux/sched.h.
const TASK_RUNNING: u32 = 0;
/// `PF_KTHREAD`, include/linux/sched.h.
const PF_KTHREAD: u32 = 0x0020_0000;

/// Continues `exec_returns`, which has told what is known already; a program of its own for the
/// verifier's sake. It is still the exit of the failing call.
#[tracepoint]
pub fn search(_ctx: TracePointContext) -> u32 {
    let current = kernel::current();
    let Some(sought) = SEARCHES.get_ptr(current) else { return 0 };
    // SAFETY: a map value.
    let Sought { inode, seq, lost, .. } = unsafe { *sought };
    let first = word(current, offset!(task_group_leader));
    let signal = word(first, offset!(task_signal));
    let mut tables = Tables {
        inode,
        seq,
        first,
        process: first,
        thread: first,
        threads: signal + offset!(signal_thread_head) as u64,
        table: 0,
        fds: 0,
        open: 0,
        bits: 0,
        // SAFETY: a map value, 0. Read from there so that the verifier takes it for any number.
        index: unsafe { (*sought).zero },
        words: 0,
        told: 0,
        orphan: 0,
        orphan_tgid: 0,
        orphan_fd: 0,
        // The registers are at the same place of every task's stack.
        registers: kernel::registers() - word(current, offset!(task_stack)),
    };
    // Those that lie in a queue, or are kept by a call under way or the kernel itself.
    for slot in 0..ORPHANS {
        tables.told |= tell_candidate(inode, slot, 2, seq, 0) as u64;
        if let Some(orphan) = maps::ORPHANS.get_ptr(HoldKey { inode, slot, pad: 0 })
            // SAFETY: a map value.
            && kernel::is_open(unsafe { (*orphan).file }, inode)
        {
            // SAFETY: as above.
            unsafe {
                tables.orphan = (*orphan).file;
                tables.orphan_tgid = (*orphan).tgid;
                tables.orphan_fd = (*orphan).fd;
            }
        }
    }
    enter(&mut tables);
    if repeat(STEPS, table_step, &mut tables) >= STEPS as i64 {
        maps::lost(Lost::WalkTruncated);
    }
    let i_mmap = word(inode, offset!(inode_i_mapping)) + offset!(mapping_i_mmap) as u64;
    let mut mappings = Mappings {
        inode,
        seq,
        node: word(i_mmap, offset!(rb_leftmost)),
        from: 0,
        told: tables.told,
    };
    if repeat(MAPPINGS, mapping_step, &mut mappings) >= MAPPINGS as i64 {
        maps::lost(Lost::WalkTruncated);
    }
    let _ = SEARCHES.remove(current);
    let lost = lost | (mappings.told as i32 & LOST != 0) as u32;
    let end = FailureEnd { kind: Kind::FailureEnd as u32, lost, seq };
    tell::record(&end, WAKE);
    0
}

/// The walk through all tables: of `current`'s process first, then of those that are in the list
/// after it, round to where it began.
#[repr(C)]
struct Tables {
    inode: u64,
    seq: u64,
    first: u64,
    /// The group leader of the process.
    process: u64,
    thread: u64,
    /// `&signal->thread_head` of the process.
    threads: u64,
    table: u64,
    /// `fdtable.fd`.
    fds: u64,
    /// `fdtable.open_fds`.
    open: u64,
    /// What is left of the current word of `open`.
    bits: u64,
    index: u64,
    words: u64,
    /// What was told, as bits of [`tell_candidate`].
    told: u64,
    /// A description that is open while its opener's fd is closed, if there is one.
    orphan: u64,
    orphan_tgid: u32,
    orphan_fd: u32,
    /// From `task_struct.stack` to a task's saved registers.
    registers: u64,
}

/// Begins with the table of the current thread, unless it is the one that was read last; tells if
/// the thread sleeps in a call on the orphan.
#[inline(always)]
fn enter(tables: &mut Tables) {
    let table = kernel::table_of(tables.thread);
    let user = kernel::int(tables.thread, offset!(task_flags)) & PF_KTHREAD == 0;
    tables.words = 0;
    tables.index = 0;
    tables.bits = 0;
    if user && table != 0 && table != tables.table {
        let fdt = word(table, offset!(files_fdt));
        tables.table = table;
        tables.fds = word(fdt, offset!(fdtable_fd));
        tables.open = word(fdt, offset!(fdtable_open_fds));
        tables.words = kernel::int(fdt, offset!(fdtable_max_fds)) as u64 / 64;
        tables.bits = word(tables.open, 0);
    }
    let thread = tables.thread;
    if tables.orphan != 0
        && tables.orphan_tgid == kernel::tgid_of(thread)
        && kernel::file_at(table, tables.orphan_fd) == 0
        && kernel::int(thread, offset!(task_state)) != TASK_RUNNING
    {
        let regs = word(thread, offset!(task_stack)) + tables.registers;
        if word(regs, offset!(regs_first)) as u32 == tables.orphan_fd {
            let syscall = kernel::int(regs, offset!(regs_syscall)) as i32;
            tell_keeper(tables, KeptBy::Call as u32, syscall);
        }
    }
}

/// Tells that the current process keeps the orphan.
#[inline(always)]
fn tell_keeper(tables: &Tables, by: u32, syscall: i32) {
    let tgid = kernel::tgid_of(tables.thread);
    let (seq, file) = (tables.seq, tables.orphan);
    if by != KeptBy::Queue as u32 {
        linger::until_exit(tgid, file, tables.inode);
    }
    let kind = Kind::Keeper as u32;
    tell::record(&Keeper { kind, by, seq, file, tgid, syscall }, QUIET);
}

/// One step: the next fd, the next word of the bitmap, or the next thread.
unsafe extern "C" fn table_step(_index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `search` gives this its own state.
    let tables = unsafe { &mut *context.cast::<Tables>() };
    let bits = tables.bits;
    if bits != 0 {
        tables.bits = bits & (bits - 1);
        let fd = tables.index * 64 + lowest(bits);
        let file = word(tables.fds + fd * 8, 0);
        if kernel::is_writer(file)
            && (kernel::inode_of(file) == tables.inode || kernel::is_backed_by(file, tables.inode))
        {
            let told = found(tables.thread, tables.table, fd as u32, file, tables.seq);
            tables.told |= told as u64;
        }
        if tables.orphan != 0 {
            let by = keeper::keeps(file, tables.orphan);
            if by > 0 {
                tell_keeper(tables, by as u32, 0);
            }
        }
        return 0;
    }
    tables.index += 1;
    if tables.index < tables.words {
        tables.bits = word(tables.open + tables.index * 8, 0);
        return 0;
    }
    let mut next = word(tables.thread, offset!(task_thread_node));
    if next == tables.threads || next == 0 {
        let process = word(tables.process, offset!(task_tasks)) - offset!(task_tasks) as u64;
        if process == tables.first {
            return 1;
        }
        tables.process = process;
        tables.threads = word(process, offset!(task_signal)) + offset!(signal_thread_head) as u64;
        next = word(tables.threads, 0);
    }
    tables.thread = next - offset!(task_thread_node) as u64;
    enter(tables);
    0
}

/// An fd that refers to the busy inode: notes it if no event told of it, and tells it unless
/// that is done. Gives what [`tell_candidate`] gives.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn found(task: u64, table: u64, fd: u32, file: u64, seq: u64) -> i32 {
    let known = match hold::key_at(table, fd) {
        Some(key) => match HOLDS.get_ptr(key) {
            // SAFETY: a map value.
            Some(hold) if unsafe { (*hold).file } == file => {
                // SAFETY: as above.
                unsafe { (*hold).tgid }
            }
            _ => 0,
        },
        None => 0,
    };
    if known == 0 {
        let mut hold = hold::begin(task, table, fd, file, Via::Unknown, 0);
        hold::find_origin(&mut hold);
        hold::acquire(&hold);
    }
    let Some(HoldKey { inode, slot, .. }) = hold::key_at(table, fd) else { return 0 };
    if WATCHED.insert(inode, seq, ANY).is_err() {
        lost(Lost::WatchFull);
    }
    let other = if known == 0 || known == kernel::tgid_of(task) { 0 } else { task };
    tell_candidate(inode, slot, 0, seq, other)
}

/// The walk through the mappings of an inode: its interval tree, in order.
#[repr(C)]
struct Mappings {
    inode: u64,
    seq: u64,
    /// `struct rb_node *`, within a `vm_area_struct`.
    node: u64,
    /// How it came to the node: 0 from the left, or at the start; 1 from above, so that those below
    /// on the left come first; 2 from the right, so that this one has been visited.
    from: u64,
    /// As above.
    told: u64,
}

unsafe extern "C" fn mapping_step(_index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `search` gives this its own state.
    let mappings = unsafe { &mut *context.cast::<Mappings>() };
    let node = mappings.node;
    if node == 0 {
        return 1;
    }
    if mappings.from == 1 {
        let left = word(node, offset!(rb_left));
        if left != 0 {
            mappings.node = left;
            return 0;
        }
    }
    if mappings.from != 2 {
        let vma = node - offset!(vma_rb) as u64;
        let file = word(vma, offset!(vma_vm_file));
        if kernel::is_writer(file) && kernel::inode_of(file) == mappings.inode {
            mappings.told |= mapped(word(vma, offset!(vma_vm_mm)), file, mappings.seq) as u64;
        }
        let right = word(node, offset!(rb_right));
        if right != 0 {
            mappings.node = right;
            mappings.from = 1;
            return 0;
        }
    }
    // The lowest two bits are the colour.
    let parent = word(node, offset!(rb_parent)) & !3;
    mappings.node = parent;
    mappings.from = if word(parent, offset!(rb_right)) == node { 2 } else { 0 };
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
    let mut hold = hold::begin(task, mm, NO_FD, file, Via::Mapping, 0);
    hold::find_origin(&mut hold);
    let hold: *const Hold = &hold;
    // SAFETY: `told` is the reserved record, `hold` is ours; every field is written before the
    // record is submitted.
    unsafe {
        (*told).kind = Kind::Candidate as u32;
        (*told).in_table = 0;
        (*told).in_works = 0;
        (*told).cloexec = 0;
        (*told).open = kernel::is_open(file, (*hold).inode) as u32;
        (*told).users = 0;
        (*told).seq = seq;
        (*told).inode = (*hold).inode;
        (*told).hold = *hold;
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
