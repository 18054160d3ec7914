//! Who runs the file that a call was refused.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext,
    helpers::generated::{bpf_probe_read_kernel, bpf_probe_read_user},
    macros::{raw_tracepoint, tracepoint},
    maps::ProgramArray,
    programs::{RawTracePointContext, TracePointContext},
};
use etxtbsy_trace_common::{Kind, Next, Runner, TextOf};

use crate::{
    fail::end_failure,
    kernel::{self, offset, word},
    maps::{ANY, COMPAT_NEXT, LAST_EXECS, NEXT, RUNNING, SEARCHES},
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

/// Continues [`crate::refused::refused`], at the exit of the refused call: tells of the processes
/// whose program has the name that the path ends with, before they or the file are gone.
#[tracepoint]
pub fn runners(ctx: TracePointContext) -> u32 {
    tell_all(&ctx, &NEXT);
    0
}

/// The same after a 32-bit call.
#[raw_tracepoint(tracepoint = "sys_exit")]
pub fn compat_runners(ctx: RawTracePointContext) -> i32 {
    tell_all(&ctx, &COMPAT_NEXT);
    0
}

#[inline(always)]
fn tell_all(ctx: &impl EbpfContext, next: &ProgramArray) {
    let current = kernel::current();
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    if sought.first == 0 && sought.path != 0 {
        sought.first = word(current, offset!(task_group_leader));
        sought.process = sought.first;
        sought.len = text::user_len(current, sought.path);
    }
    if sought.path != 0 {
        // All processes, from that of current on.
        let whole = in_runs(ctx, next, Next::Runners, CALLS, || tell_runners(current) != 0);
        sought.lost |= !whole as u32;
    }
    end_failure(current, 0);
}

/// Looks at some processes, from the group leader on that is in `SEARCHES`; gives 1 after the last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_runners(current: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 1 };
    // SAFETY: a map value, of this task alone.
    let sought = unsafe { &mut *sought };
    for _ in 0..SOME {
        let process = sought.process;
        // A leader that has ended has no memory any more; the youngest thread has.
        let threads = word(process, offset!(task_signal)) + offset!(signal_thread_head) as u64;
        // `list_head.prev`.
        let thread = word(threads, 8) - offset!(task_thread_node) as u64;
        let exe = word(word(thread, offset!(task_mm)), offset!(mm_exe_file));
        if is_named(exe, sought.path, sought.len) != 0 {
            sought.lost |= tell_runner(thread, exe, sought.seq) as u32;
        }
        sought.process = word(process, offset!(task_tasks)) - offset!(task_tasks) as u64;
        if sought.process == sought.first {
            return 1;
        }
    }
    0
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

/// Tells of a process that runs a file; gives 1 if that found no room.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_runner(thread: u64, exe: u64, seq: u64) -> i32 {
    let inode = kernel::inode_of(exe);
    let denials = if offset!(mm_mmap) == u32::MAX { 1 } else { denials(thread, inode) };
    let Some(mut entry) = tell::reserve::<Runner>() else { return 1 };
    let told = entry.as_mut_ptr();
    let tgid = kernel::tgid_of(thread);
    let leader = word(thread, offset!(task_group_leader));
    let start_ns = word(leader, offset!(task_start_time));
    // SAFETY: `told` is the reserved record; every field is written before it is submitted.
    unsafe {
        (*told).kind = Kind::Runner as u32;
        (*told).tgid = tgid;
        (*told).seq = seq;
        (*told).start_ns = start_ns;
        (*told).exec_ns = match LAST_EXECS.get_ptr(tgid) {
            Some(exec) if (*exec).start_ns == start_ns => (*exec).time_ns,
            _ => 0,
        };
        (*told).ino = word(inode, offset!(inode_i_ino));
        (*told).dev = kernel::int(word(inode, offset!(inode_i_sb)), offset!(super_block_s_dev));
        (*told).count = kernel::int(inode, offset!(inode_i_writecount)) as i32;
        (*told).ppid = kernel::ppid_of(leader);
        (*told).denials = denials;
        tell::see(leader, &raw mut (*told).holder);
    }
    entry.submit(QUIET);
    // If there is no room, its end is not told.
    let _ = RUNNING.insert(tgid, 1, ANY);
    text::file_path(kernel::current(), TextOf::HolderExe, Subject { seq, tgid }, exe);
    0
}
