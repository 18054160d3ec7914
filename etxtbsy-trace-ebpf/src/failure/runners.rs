//! Who runs the file that a call was refused.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user};
use etxtbsy_trace_common::{
    COMM_LEN, HoldKey, Kind, Run, Runner, SLOTS, Stance, TailCall, TextOf, WriteRefused,
};

use crate::{
    bounded_loop::in_runs,
    emit::{
        holder,
        ringbuf::{self, QUIET},
        text::{self, Subject},
    },
    failure::outcome,
    holds::{exec, runs},
    kernel::{self, FMODE_EXEC, offset, syscall, word},
    maps::{ANY, ENDED_RUNS, EXECS, RUNNING, SEARCHES},
};

/// How many processes one call of [`report_runners`] looks at, and how many such calls one run of the program
/// makes.
const SOME: u32 = 32;
const CALLS_A_RUN: u32 = 128;
/// How many mappings of a process are looked at.
const MAPPINGS: u32 = 128;
/// How many bytes of a name are compared; user space compares the files.
const NAME: usize = 64;
/// include/linux/mm.h, up to 5.14: the mapping denies writing to its file.
const VM_DENYWRITE: u64 = 0x800;

/// Reports the processes that run the file of the refused call, then the end of the failure.
#[inline(always)]
pub(crate) fn run(tail_call: impl Fn(TailCall)) {
    let current = kernel::current();
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return };
    // SAFETY: a map value, of this task alone. No reference to it: the functions below make their own.
    let (seeks, is_known) = unsafe {
        if (*search).first == 0 {
            (*search).first = word(current, offset!(task_group_leader));
            (*search).process = (*search).first;
            if (*search).path != 0 {
                (*search).len = text::user_len(current, (*search).path);
            }
        }
        (((*search).refused != 0) | ((*search).path != 0), (*search).refused != 0)
    };
    if seeks {
        // All processes, beginning with current's.
        let whole =
            in_runs(CALLS_A_RUN, || report_runners(current) != 0, || tail_call(TailCall::Runners));
        // SAFETY: as above.
        unsafe { (*search).lost |= !whole as u32 };
    }
    if is_known {
        report_file(current);
    }
    outcome::end_failure(current, 0);
}

/// Looks at some processes, from the group leader on that is in `SEARCHES`; gives 1 after the last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_runners(current: u64) -> i32 {
    for _ in 0..SOME {
        if report_process(current) != 0 {
            return 1;
        }
    }
    0
}

/// The same with one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_process(current: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 1 };
    // SAFETY: a map value, of this task alone.
    let (process, refused, path, len) =
        unsafe { ((*search).process, (*search).refused, (*search).path, (*search).len) };
    // A leader that has ended no longer has its memory; the youngest thread does.
    let threads = word(process, offset!(task_signal)) + offset!(signal_thread_head) as u64;
    // `list_head.prev`.
    let thread = word(threads, 8) - offset!(task_thread_node) as u64;
    let mm = word(thread, offset!(task_mm));
    let exe = word(mm, offset!(mm_exe_file));
    let is_it = if refused != 0 {
        // A process that is ending has no memory; one in its exec does not have the new one yet.
        (kernel::inode_of(exe) == refused)
            | (mm == 0)
            | EXECS.get_ptr(thread).is_some()
            | EXECS.get_ptr(process).is_some()
    } else {
        is_named(exe, path, len) != 0
    };
    let lost = is_it && report_runner(current, process, thread) != 0;
    let next = word(process, offset!(task_tasks)) - offset!(task_tasks) as u64;
    // SAFETY: a map value, of this task alone; the reference that `report_runner` made is gone.
    unsafe {
        (*search).lost |= lost as u32;
        (*search).process = next;
        (next == (*search).first) as i32
    }
}

/// Whether a path of `whole` bytes in user memory ends with the name of an open file; of a name longer than
/// [`NAME`], with its first part.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_named(file: u64, path: u64, whole: u64) -> i32 {
    let dentry = word(file, offset!(file_f_path_dentry));
    let name = word(dentry, offset!(dentry_d_name_name));
    let len = kernel::int(dentry, offset!(dentry_d_name_len)) as u64;
    if file == 0 || len == 0 || len > whole {
        return 0;
    }
    let (mut ours, mut theirs) = ([0_u64; NAME / 8], [0_u64; NAME / 8]);
    // Compared up to the shorter of the name and what there is room for.
    let size = if len < NAME as u64 { len as u32 & (NAME as u32 - 1) } else { NAME as u32 };
    // SAFETY: both arrays have room for `size` bytes.
    unsafe {
        bpf_probe_read_kernel(ours.as_mut_ptr().cast(), size, name as *const c_void);
        let tail = path + whole - len;
        bpf_probe_read_user(theirs.as_mut_ptr().cast(), size, tail as *const c_void);
    }
    (ours == theirs) as i32
}

/// How many mappings of a process deny writing to an inode (`__vma_link_file`, up to 5.14). The mappings of a
/// program are among the lowest, so the function looks at the first ones only.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn denials(thread: u64, inode: u64) -> u32 {
    let mut vma = word(word(thread, offset!(task_mm)), offset!(mm_mmap));
    let mut found = 0;
    for _ in 0..MAPPINGS {
        if vma == 0 {
            break;
        }
        let denies = word(vma, offset!(vma_vm_flags)) & VM_DENYWRITE != 0;
        let is_it = kernel::inode_of(word(vma, offset!(vma_vm_file))) == inode;
        found += (denies & is_it) as u32;
        vma = word(vma, offset!(vma_vm_next));
    }
    found
}

/// How much of a task's stack, below its saved registers, is looked at, in parts of so many words.
const PARTS: u64 = 128;
const WORDS: usize = 4;

/// For [`on_stack`]: a `struct linux_binprm` whose file is of the inode, or an open file of it, opened with the
/// credentials `own`: those of the task. (Each process has its own, see `copy_creds` in kernel/cred.c. The stack
/// may also have an address that was free when the task took the one beside it, and that another exec has now.)
const EXEC: u32 = 0;
/// For [`on_stack`]: another memory that runs the inode, `own` being the task's.
const COPY: u32 = 1;

/// Whether a task in a system call refers to what `what` says: its local variables and saved
/// registers do. Nothing else leads from a task to the exec or the fork that it is in.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn on_stack(task: u64, inode: u64, own: u64, what: u32) -> u32 {
    let top = kernel::registers(task);
    if top == 0 {
        return 0;
    }
    let mut found = 0;
    for part in 0..PARTS {
        let from = top - (part + 1) * (WORDS as u64 * 8);
        found |= part_of_stack(from, inode, own, what);
        if found != 0 {
            break;
        }
    }
    found
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn part_of_stack(from: u64, inode: u64, own: u64, what: u32) -> u32 {
    let words: [u64; WORDS] = kernel::words(from);
    let mut found = 0;
    for one in words {
        // Only addresses of the kernel count. No branch: each would double what the verifier has to follow.
        let is_kernels = (one >> 47 == 0x1_ffff) as u64;
        found |= refers(one * is_kernels, inode, own, what);
    }
    found
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refers(one: u64, inode: u64, own: u64, what: u32) -> u32 {
    // One without a reference is about to be dropped: an exec that was refused itself.
    let is_executed = |file: u64| {
        (kernel::inode_of(file) == inode)
            & (word(file, offset!(file_f_cred)) == own)
            & (kernel::int(file, offset!(file_f_flags)) & FMODE_EXEC != 0)
            & kernel::is_referenced(file)
    };
    if what == EXEC {
        (is_executed(word(one, offset!(binprm_file))) | is_executed(one)) as u32
    } else {
        ((one != own) & (runs::program(one) == inode)) as u32
    }
}

/// Whether a task is in a fork.
#[inline(always)]
fn forks(task: u64) -> bool {
    let syscall = kernel::last_call(task);
    (syscall == syscall!(clone))
        | (syscall == syscall!(clone3))
        | (syscall == syscall!(fork))
        | (syscall == syscall!(vfork))
}

/// Reports a process if it runs the file, or is in an exec of it; returns 1 if the record found no room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_runner(current: u64, leader: u64, thread: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let search = unsafe { &mut *search };
    let (tgid, start_ns) = (kernel::tgid_of(leader), word(leader, offset!(task_start_time)));
    let mut mm = word(thread, offset!(task_mm));
    let (mut began_ns, mut exec_ns, mut script, mut forked) = (0, 0, 0, 0);
    let (mut noted_mm, mut noted_inode) = (0, 0);
    if let Some(run) = runs::of(tgid, start_ns) {
        // SAFETY: a map value, see `maps`.
        unsafe {
            (began_ns, exec_ns) = ((*run).began_ns, (*run).exec_ns);
            (script, forked) = ((*run).script, (*run).forked);
            (noted_mm, noted_inode) = ((*run).mm, (*run).inode);
        }
    }
    let mut stance = if forked != 0 { Stance::Forked as u32 } else { Stance::Runs as u32 };
    if mm == 0 {
        // It has dropped its memory. The memory's own fields show whether it still exists, unless the
        // address has that of another program by now.
        mm = if noted_inode == search.refused { noted_mm } else { 0 };
        stance = Stance::Exiting as u32;
    } else if kernel::is_ending(thread) {
        stance = Stance::Exiting as u32;
    }
    let exe = word(mm, offset!(mm_exe_file));
    let mut inode = kernel::inode_of(exe);
    let mut count = 1;
    if search.refused != 0 {
        let own = inode == search.refused;
        count = own as u32;
        inode = search.refused;
        // The thread that execs: the first, or the youngest.
        let execs = if exec::under_way(leader).0 != 0 { leader } else { thread };
        let (enter_ns, has_begun) = exec::under_way(execs);
        if enter_ns != 0 && stance != Stance::Exiting as u32 {
            let opens = on_stack(execs, inode, word(execs, offset!(task_real_cred)), EXEC);
            let is_new = own && (has_begun || (noted_mm != 0 && noted_mm != mm));
            if is_new || (opens != 0 && !own) {
                stance = Stance::InExec as u32;
                began_ns = enter_ns;
                if !has_begun {
                    (exec_ns, script) = (0, 0);
                }
            }
            count += opens;
        } else if own && forks(thread) {
            count += on_stack(thread, inode, mm, COPY);
        }
        if count == 0 {
            return 0;
        }
        if began_ns > search.exit_ns {
            // It had not begun when the call failed.
            if began_ns < search.enter_ns {
                search.later += count as u64;
            }
            return 0;
        }
    }
    if offset!(mm_mmap) != u32::MAX && inode == kernel::inode_of(exe) {
        count = denials(thread, inode);
    }
    search.found += count;
    let Some(mut entry) = ringbuf::reserve::<Runner>() else { return 1 };
    let record = entry.as_mut_ptr();
    let run = Run {
        start_ns,
        exec_ns,
        began_ns,
        ended_ns: 0,
        inode,
        mm,
        task: leader,
        tgid,
        ppid: kernel::ppid_of(leader),
        script,
        forked,
        how: 0,
        pad: 0,
        comm: [0; COMM_LEN],
    };
    let writers = kernel::int(inode, offset!(inode_i_writecount)) as i32;
    // SAFETY: `record` is the reserved record; every field is written before it is submitted.
    unsafe {
        fill(record, search.seq, &run, stance, count, writers);
        holder::of_task(leader, &raw mut (*record).holder);
    }
    entry.submit(QUIET);
    // If there is no room, its end is not reported.
    let _ = RUNNING.insert(tgid, inode, ANY);
    text::file_path(current, TextOf::HolderExe, Subject { seq: search.seq, tgid }, exe);
    0
}

/// Fills all of a record but its holder: `run` is what runs the file, `denials` by how many it makes the
/// count smaller, and `count` that count.
///
/// # Safety
///
/// `record` can be written.
#[inline(always)]
unsafe fn fill(record: *mut Runner, seq: u64, run: &Run, stance: u32, denials: u32, count: i32) {
    let sb = word(run.inode, offset!(inode_i_sb));
    // SAFETY: the caller's promise.
    unsafe {
        (*record).kind = Kind::Runner as u32;
        (*record).tgid = run.tgid;
        (*record).seq = seq;
        (*record).start_ns = run.start_ns;
        (*record).exec_ns = run.exec_ns;
        (*record).began_ns = run.began_ns;
        (*record).ended_ns = run.ended_ns;
        (*record).inode = run.inode;
        (*record).ino = word(run.inode, offset!(inode_i_ino));
        (*record).mm = run.mm;
        (*record).task = run.task;
        (*record).dev = kernel::int(sb, offset!(super_block_s_dev));
        (*record).count = count;
        (*record).ppid = run.ppid;
        (*record).denials = denials;
        (*record).stance = stance;
        (*record).script = run.script;
        (*record).how = run.how;
        (*record).pad = 0;
    }
}

/// Reports the file. If the processes that run it do not account for its count, also reports those that
/// have run it until now.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_file(current: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let search = unsafe { &mut *search };
    let inode = search.refused;
    // It is not certain that all runs that began after the failure are in the count.
    let count = search.writers as i32 + search.later as i32;
    let record = WriteRefused {
        kind: Kind::WriteRefused as u32,
        count,
        seq: search.seq,
        inode,
        ino: word(inode, offset!(inode_i_ino)),
        dev: kernel::int(word(inode, offset!(inode_i_sb)), offset!(super_block_s_dev)),
        generation: kernel::int(inode, offset!(inode_i_generation)),
        flags: kernel::int(inode, offset!(inode_i_flags)),
        pad: 0,
    };
    search.lost |= !ringbuf::record(&record, QUIET) as u32;
    if search.found != 0 && count + search.found as i32 >= 0 {
        return 0;
    }
    for slot in 0..SLOTS {
        report_ended(current, slot);
    }
    0
}

/// The longest time between the end of a run that refused a call and the return of that call, in nanoseconds:
/// longer than a call takes to return on a busy CPU.
const RECENT_NS: u64 = 100_000_000;

/// Reports a run of the file that ended shortly before the call returned, or since.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_ended(current: u64, slot: u32) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let search = unsafe { &mut *search };
    let inode = search.refused;
    let Some(run) = ENDED_RUNS.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let run = unsafe { &*run };
    if run.began_ns > search.exit_ns || run.ended_ns + RECENT_NS < search.exit_ns {
        return 0;
    }
    let Some(mut entry) = ringbuf::reserve::<Runner>() else {
        search.lost = 1;
        return 0;
    };
    let record = entry.as_mut_ptr();
    let stance = if run.forked != 0 { Stance::Forked } else { Stance::Runs };
    // SAFETY: `record` is the reserved record; every field is written before it is submitted.
    unsafe {
        fill(record, search.seq, run, stance as u32, 1, search.writers as i32);
        holder::of_task(0, &raw mut (*record).holder);
        (*record).holder.comm = run.comm;
    }
    entry.submit(QUIET);
    0
}
