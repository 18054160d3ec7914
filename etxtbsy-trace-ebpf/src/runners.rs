//! Who runs the file that a call was refused.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::{raw_tracepoint, tracepoint},
    maps::ProgramArray,
    programs::{RawTracePointContext, TracePointContext},
};
use etxtbsy_trace_common::{HoldKey, Kind, Next, Refused, Runner, SLOTS, Stance, TextOf};

use crate::{
    fail::end_failure,
    kernel::{self, CALLS as CALLS_OF, FMODE_EXEC, offset, word},
    maps::{ANY, COMPAT_NEXT, ENDED_RUNS, EXECS, NEXT, RUNNING, SEARCHES},
    run,
    tell::{self, QUIET},
    text::{self, Subject},
    walk::in_runs,
};

/// How many processes one call of [`tell_runners`] looks at, and how many such calls one run of [`runners`] makes.
const SOME: u32 = 32;
const CALLS: u32 = 128;
/// How many mappings of a process are looked at.
const MAPPINGS: u32 = 128;
/// How many bytes of a name are compared: whole files are, by user space.
const NAME: usize = 64;
/// include/linux/mm.h, up to 5.14: the mapping denies writing to its file.
const VM_DENYWRITE: u64 = 0x800;

/// Continues [`crate::resolve`], at the exit of the refused call: reports the processes that run its
/// file, before they are gone; where it is not known, those whose program has the name that the path
/// ends with.
#[tracepoint]
pub fn runners(ctx: TracePointContext) -> u32 {
    tell_all(&ctx, &NEXT);
    0
}

/// The same after a 32-bit call, or a request of an io_uring.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn compat_runners(ctx: RawTracePointContext) -> i32 {
    tell_all(&ctx, &COMPAT_NEXT);
    0
}

#[inline(always)]
fn tell_all(ctx: &impl EbpfContext, next: &ProgramArray) {
    let current = kernel::current();
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return };
    // SAFETY: a map value, of this task alone. No reference to it: the functions below make their own.
    let (seeks, is_known) = unsafe {
        if (*sought).first == 0 {
            (*sought).first = word(current, offset!(task_group_leader));
            (*sought).process = (*sought).first;
            if (*sought).path != 0 {
                (*sought).len = text::user_len(current, (*sought).path);
            }
        }
        (((*sought).refused != 0) | ((*sought).path != 0), (*sought).refused != 0)
    };
    if seeks {
        // All processes, from that of current on.
        let whole = in_runs(ctx, next, Next::Runners, CALLS, || tell_runners(current) != 0);
        // SAFETY: as above.
        unsafe { (*sought).lost |= !whole as u32 };
    }
    if is_known {
        tell_refused(current);
    }
    end_failure(current, 0);
}

/// Looks at some processes, from the group leader on that is in `SEARCHES`; gives 1 after the last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_runners(current: u64) -> i32 {
    for _ in 0..SOME {
        if tell_process(current) != 0 {
            return 1;
        }
    }
    0
}

/// The same with one.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_process(current: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 1 };
    // SAFETY: a map value, of this task alone.
    let (process, refused, path, len) =
        unsafe { ((*sought).process, (*sought).refused, (*sought).path, (*sought).len) };
    // A leader that has ended has no memory any more; the youngest thread has.
    let threads = word(process, offset!(task_signal)) + offset!(signal_thread_head) as u64;
    // `list_head.prev`.
    let thread = word(threads, 8) - offset!(task_thread_node) as u64;
    let mm = word(thread, offset!(task_mm));
    let exe = word(mm, offset!(mm_exe_file));
    let is_it = if refused != 0 {
        // One that is ending has no memory; one in its exec has not got the new one yet.
        (kernel::inode_of(exe) == refused)
            | (mm == 0)
            | EXECS.get_ptr(thread).is_some()
            | EXECS.get_ptr(process).is_some()
    } else {
        is_named(exe, path, len) != 0
    };
    let lost = is_it && tell_runner(current, process, thread) != 0;
    let next = word(process, offset!(task_tasks)) - offset!(task_tasks) as u64;
    // SAFETY: a map value, of this task alone; the reference that `tell_runner` made is gone.
    unsafe {
        (*sought).lost |= lost as u32;
        (*sought).process = next;
        (next == (*sought).first) as i32
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

/// How many mappings of a process deny writing to an inode (`__vma_link_file`, up to 5.14). Those of
/// a program are among the lowest, so not all of a large process are looked at.
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

/// Of [`on_stack`]: a `struct linux_binprm` whose file is of the inode, or an open file of it.
const EXEC: u32 = 0;
/// Of [`on_stack`]: another memory that runs the inode, `own` being the task's.
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
        // Only the kernel's addresses are looked at. Without a branch, which would double what the
        // verifier has to follow.
        let is_kernels = (one >> 47 == 0x1_ffff) as u64;
        found |= refers(one * is_kernels, inode, own, what);
    }
    found
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn refers(one: u64, inode: u64, own: u64, what: u32) -> u32 {
    let is_open = |file: u64| {
        (kernel::inode_of(file) == inode)
            & (kernel::int(file, offset!(file_f_flags)) & FMODE_EXEC != 0)
    };
    if what == EXEC {
        (is_open(word(one, offset!(binprm_file))) | is_open(one)) as u32
    } else {
        ((one != own) & (run::program(one) == inode)) as u32
    }
}

/// Whether a task is in a fork.
#[inline(always)]
fn forks(task: u64) -> bool {
    let calls = CALLS_OF.load();
    let syscall = kernel::last_call(task);
    (syscall == calls.clone)
        | (syscall == calls.clone3)
        | (syscall == calls.fork)
        | (syscall == calls.vfork)
}

/// When the exec of a task began, and whether its new memory is there already; 0 if it is in none.
///
/// What is noted of an exec that was killed stays, and the task's address may be in use again.
#[inline(always)]
fn exec_of(task: u64) -> (u64, bool) {
    let calls = CALLS_OF.load();
    match EXECS.get_ptr(task) {
        Some(call)
            if kernel::in_call(task, calls.execve) || kernel::in_call(task, calls.execveat) =>
        {
            // SAFETY: a map value, see `maps`.
            unsafe { ((*call).enter_ns, (*call).table == 0) }
        }
        _ => (0, false),
    }
}

/// Reports a process if it runs the file, or is in its exec; gives 1 if that found no room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_runner(current: u64, leader: u64, thread: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    let (tgid, start_ns) = (kernel::tgid_of(leader), word(leader, offset!(task_start_time)));
    let mut mm = word(thread, offset!(task_mm));
    let (mut began_ns, mut exec_ns, mut script, mut forked) = (0, 0, 0, 0);
    let (mut noted_mm, mut noted_inode) = (0, 0);
    if let Some(run) = run::of(tgid, start_ns) {
        // SAFETY: a map value, see `maps`.
        unsafe {
            (began_ns, exec_ns) = ((*run).began_ns, (*run).exec_ns);
            (script, forked) = ((*run).script, (*run).forked);
            (noted_mm, noted_inode) = ((*run).mm, (*run).inode);
        }
    }
    let mut stance = if forked != 0 { Stance::Forked as u32 } else { Stance::Runs as u32 };
    if mm == 0 {
        // It has given its memory up; whether that is still there shows in it, unless another program's
        // lies there by now.
        mm = if noted_inode == sought.refused { noted_mm } else { 0 };
        stance = Stance::Exiting as u32;
    } else if kernel::is_ending(thread) {
        stance = Stance::Exiting as u32;
    }
    let exe = word(mm, offset!(mm_exe_file));
    let mut inode = kernel::inode_of(exe);
    let mut count = 1;
    if sought.refused != 0 {
        let own = inode == sought.refused;
        count = own as u32;
        inode = sought.refused;
        // The thread that execs: the first, or the youngest.
        let execs = if exec_of(leader).0 != 0 { leader } else { thread };
        let (enter_ns, has_begun) = exec_of(execs);
        if enter_ns != 0 && stance != Stance::Exiting as u32 {
            let opens = on_stack(execs, inode, mm, EXEC);
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
        if began_ns > sought.exit_ns {
            // It had not begun when the call failed.
            if began_ns < sought.enter_ns {
                sought.later += count as u64;
            }
            return 0;
        }
    }
    if offset!(mm_mmap) != u32::MAX && inode == kernel::inode_of(exe) {
        count = denials(thread, inode);
    }
    sought.found += count;
    let Some(mut entry) = tell::reserve::<Runner>() else { return 1 };
    let told = entry.as_mut_ptr();
    // SAFETY: `told` is the reserved record; every field is written before it is submitted.
    unsafe {
        (*told).kind = Kind::Runner as u32;
        (*told).tgid = tgid;
        (*told).seq = sought.seq;
        (*told).start_ns = start_ns;
        (*told).exec_ns = exec_ns;
        (*told).began_ns = began_ns;
        (*told).ended_ns = 0;
        (*told).inode = inode;
        (*told).ino = word(inode, offset!(inode_i_ino));
        (*told).mm = mm;
        (*told).task = leader;
        (*told).dev = kernel::int(word(inode, offset!(inode_i_sb)), offset!(super_block_s_dev));
        (*told).count = kernel::int(inode, offset!(inode_i_writecount)) as i32;
        (*told).ppid = kernel::ppid_of(leader);
        (*told).denials = count;
        (*told).stance = stance;
        (*told).script = script;
        (*told).how = 0;
        (*told).pad = 0;
        tell::see(leader, &raw mut (*told).holder);
    }
    entry.submit(QUIET);
    // If there is no room, its end is not told.
    let _ = RUNNING.insert(tgid, inode, ANY);
    text::file_path(current, TextOf::HolderExe, Subject { seq: sought.seq, tgid }, exe);
    0
}

/// Reports the file, and, where those that run it do not account for its count, who has run it until
/// now.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_refused(current: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    let inode = sought.refused;
    // Of some that began after the failure, it is not certain that they were in the count.
    let count = sought.writers as i32 + sought.later as i32;
    let record = Refused {
        kind: Kind::Refused as u32,
        count,
        seq: sought.seq,
        inode,
        ino: word(inode, offset!(inode_i_ino)),
        dev: kernel::int(word(inode, offset!(inode_i_sb)), offset!(super_block_s_dev)),
        generation: kernel::int(inode, offset!(inode_i_generation)),
        flags: kernel::int(inode, offset!(inode_i_flags)),
        pad: 0,
    };
    sought.lost |= !tell::record(&record, QUIET) as u32;
    if sought.found != 0 && count + sought.found as i32 >= 0 {
        return 0;
    }
    for slot in 0..SLOTS {
        tell_ended(current, slot);
    }
    0
}

/// How long ago a run can have ended that a call was refused for: longer than a call takes to return
/// on a processor that others want too.
const RECENT_NS: u64 = 100_000_000;

/// Reports a run of the file that was over shortly before the call returned, or since.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_ended(current: u64, slot: u32) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    let inode = sought.refused;
    let Some(run) = ENDED_RUNS.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let run = unsafe { &*run };
    if run.began_ns > sought.exit_ns || run.ended_ns + RECENT_NS < sought.exit_ns {
        return 0;
    }
    let Some(mut entry) = tell::reserve::<Runner>() else {
        sought.lost = 1;
        return 0;
    };
    let told = entry.as_mut_ptr();
    // SAFETY: `told` is the reserved record; every field is written before it is submitted.
    unsafe {
        (*told).kind = Kind::Runner as u32;
        (*told).tgid = run.tgid;
        (*told).seq = sought.seq;
        (*told).start_ns = run.start_ns;
        (*told).exec_ns = run.exec_ns;
        (*told).began_ns = run.began_ns;
        (*told).ended_ns = run.ended_ns;
        (*told).inode = inode;
        (*told).ino = word(inode, offset!(inode_i_ino));
        (*told).mm = run.mm;
        (*told).task = run.task;
        (*told).dev = kernel::int(word(inode, offset!(inode_i_sb)), offset!(super_block_s_dev));
        (*told).count = sought.writers as i32;
        (*told).ppid = run.ppid;
        (*told).denials = 1;
        (*told).stance = if run.forked != 0 { Stance::Forked as u32 } else { Stance::Runs as u32 };
        (*told).script = run.script;
        (*told).how = run.how;
        (*told).pad = 0;
        tell::see(0, &raw mut (*told).holder);
        (*told).holder.comm = run.comm;
    }
    entry.submit(QUIET);
    0
}
