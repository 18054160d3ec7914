//! What each process runs, since when. When a running program's file refuses a call, this shows who ran it at
//! the refusal, even during an exec, fork or exit, or just after one.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str};
use etxtbsy_trace_common::{EXEC_NAME_LEN, ExecName, HoldKey, How, Run, SLOTS};

use crate::{
    emit::report,
    kernel::{self, offset, word},
    maps::{ANY, ENDED_RUNS, EXECS, RUNS, SCRIPTS, ZERO},
};

/// The noted run of a process with that start time; `None` if the note is another process's.
#[inline(always)]
pub(crate) fn of(tgid: u32, start_ns: u64) -> Option<*mut Run> {
    let run = RUNS.get_ptr_mut(tgid)?;
    // SAFETY: a map value, which numbers are read from.
    (unsafe { (*run).start_ns } == start_ns).then_some(run)
}

/// Whether the last exec of a process was one of a script, or of another file that an interpreter runs.
#[inline(always)]
pub(crate) fn is_script(tgid: u32, start_ns: u64) -> bool {
    // SAFETY: a map value, see `maps`.
    of(tgid, start_ns).is_some_and(|run| unsafe { (*run).script } != 0)
}

/// The inode of the program of a memory, `struct mm_struct *`.
#[inline(always)]
pub(crate) fn program(mm: u64) -> u64 {
    kernel::inode_of(word(mm, offset!(mm_exe_file)))
}

/// Notes that a process runs another program from now on: at `sched_process_exec`, where its memory
/// is the new program's. `bprm` is the `struct linux_binprm *`, 0 if it is not known. A global
/// function, because its callers need the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_exec(task: u64, bprm: u64) -> i32 {
    let tgid = kernel::tgid_of(task);
    let mm = word(task, offset!(task_mm));
    let inode = program(mm);
    let start_ns = word(task, offset!(task_start_time));
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    if let Some(run) = of(tgid, start_ns) {
        over(run, now, How::Exec);
    }
    let interpreted = word(bprm, offset!(binprm_filename)) != word(bprm, offset!(binprm_interp));
    let run = Run {
        start_ns,
        exec_ns: now,
        // SAFETY: a map value, see `maps`.
        began_ns: EXECS.get_ptr(task).map_or(0, |call| unsafe { (*call).enter_ns }),
        ended_ns: 0,
        inode,
        mm,
        task,
        tgid,
        ppid: kernel::ppid_of(task),
        script: if interpreted { tgid } else { 0 },
        forked: 0,
        how: 0,
        pad: 0,
        comm: kernel::comm(task),
    };
    let _ = RUNS.insert(tgid, run, ANY);
    if interpreted {
        note_script(tgid, bprm);
    }
    report::program_exited(tgid, 0, inode);
    0
}

/// Notes which script the process has exec'd.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_script(tgid: u32, bprm: u64) -> i32 {
    let Some(zero) = ZERO.get_ptr(0) else { return 0 };
    // SAFETY: a map value of zeros, larger than a name.
    let _ = SCRIPTS.insert(tgid, unsafe { &*zero.cast::<ExecName>() }, ANY);
    if let Some(kept) = SCRIPTS.get_ptr_mut(tgid) {
        let from = word(bprm, offset!(binprm_filename)) as *const c_void;
        // SAFETY: the helper checks `from`, and writes no more than the size of the name, which is in a map
        // value.
        unsafe {
            (*kept).tgid = tgid;
            let to = (&raw mut (*kept).name).cast();
            bpf_probe_read_kernel_str(to, EXEC_NAME_LEN as u32, from);
        }
    }
    0
}

/// Notes what a new process runs: at `sched_process_fork`, the child's memory being complete.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_fork(parent: u64, child: u64, now: u64) -> i32 {
    let mm = word(child, offset!(task_mm));
    // A kernel thread has no memory.
    if mm == 0 {
        return 0;
    }
    let (above, inode) = (kernel::tgid_of(parent), program(mm));
    let leader = word(parent, offset!(task_group_leader));
    let mut script = 0;
    if let Some(origin) = of(above, word(leader, offset!(task_start_time))) {
        // SAFETY: a map value, see `maps`.
        unsafe {
            if (*origin).inode == inode {
                script = (*origin).script;
            }
        }
    }
    let tgid = kernel::tgid_of(child);
    let run = Run {
        start_ns: word(child, offset!(task_start_time)),
        exec_ns: 0,
        began_ns: now,
        ended_ns: 0,
        inode,
        mm,
        task: child,
        tgid,
        ppid: kernel::ppid_of(child),
        script,
        forked: 1,
        how: 0,
        pad: 0,
        comm: kernel::comm(child),
    };
    let _ = RUNS.insert(tgid, run, ANY);
    0
}

/// Notes that the last thread of a process is in `do_exit`.
#[inline(always)]
pub(crate) fn exiting(task: u64, tgid: u32) {
    let leader = word(task, offset!(task_group_leader));
    if let Some(run) = of(tgid, word(leader, offset!(task_start_time))) {
        // SAFETY: no arguments; a map value, see `maps`.
        unsafe { (*run).ended_ns = bpf_ktime_get_ns() };
    }
}

/// Notes that a process has ended: it has dropped its memory, at `now`; 0 if that was earlier, and
/// when is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_exit(task: u64, now: u64) -> i32 {
    let tgid = kernel::tgid_of(task);
    let leader = word(task, offset!(task_group_leader));
    let Some(run) = of(tgid, word(leader, offset!(task_start_time))) else { return 0 };
    over(run, now, How::Exit);
    let _ = RUNS.remove(tgid);
    0
}

/// Puts a copy of a run among those that are over.
#[inline(always)]
fn over(run: *mut Run, now: u64, how: How) {
    // SAFETY: a map value, from [`of`].
    unsafe {
        if now != 0 {
            (*run).ended_ns = now;
        }
        (*run).how = how as u32;
        let key = HoldKey { inode: (*run).inode, slot: (*run).tgid % SLOTS, pad: 0 };
        let _ = ENDED_RUNS.insert(key, &*run, ANY);
    }
}
