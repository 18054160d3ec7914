//! Execs: the path that each was given, the holds that it ends, and how far it has come.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str};
use etxtbsy_trace_common::{EXEC_NAME_LEN, ExecCall, ExecName, Lost};

use crate::{
    emit::compat_request,
    holds::{
        fd_table_copy, runs,
        table_walk::{self, Event},
    },
    kernel::{self, PF_FORKNOEXEC, offset, syscall, word},
    maps::{ANY, EXEC_NAMES, EXECS, ZERO, lost},
};

/// Notes that current begins an exec; `path` is a user pointer.
#[inline(always)]
pub(crate) fn begin(path: u64) {
    let task = kernel::current();
    // SAFETY: no arguments.
    let enter_ns = unsafe { bpf_ktime_get_ns() };
    let call = ExecCall {
        enter_ns,
        path,
        table: kernel::current_table(),
        arrival: kernel::arrival(task),
        exe: word(word(task, offset!(task_mm)), offset!(mm_exe_file)),
    };
    if EXECS.insert(task, call, ANY).is_err() {
        lost(Lost::ExecsFull);
    }
}

/// Whether an exec of a task is noted.
#[inline(always)]
pub(crate) fn is_noted(task: u64) -> bool {
    EXECS.get_ptr(task).is_some()
}

/// Forgets the exec of a task.
#[inline(always)]
pub(crate) fn forget(task: u64) {
    let _ = EXECS.remove(task);
}

/// Ends or marks the holds whose fds an exec of `task` has closed; `bprm` is its `struct linux_binprm *`.
#[inline(always)]
pub(crate) fn execed(task: u64, bprm: u64) {
    let table = kernel::table_of(task);
    let tgid = kernel::tgid_of(task);
    runs::note_exec(task, bprm);
    if kernel::is_unfollowed_program(task) {
        compat_request::began(tgid);
    }
    if let Some(call) = EXECS.get_ptr_mut(task) {
        // SAFETY: a map value, which this task alone writes.
        let left = unsafe { core::mem::take(&mut (*call).table) };
        if left != table {
            // `begin_new_exec` unshares the table: the program inherits what is left in it.
            fd_table_copy::left_shared(task);
            return;
        }
    }
    if !table_walk::walk(table, task, tgid, Event::Closing) {
        return;
    }
    let Some(zero) = ZERO.get_ptr(0) else { return };
    // SAFETY: a map value of zeros, larger than a name.
    let _ = EXEC_NAMES.insert(task, unsafe { &*zero.cast::<ExecName>() }, ANY);
    if let Some(kept) = EXEC_NAMES.get_ptr_mut(task) {
        let from = word(bprm, offset!(binprm_filename)) as *const c_void;
        // SAFETY: the helper checks `from`, and writes no more than the size of the name, which is in a map
        // value.
        unsafe {
            (*kept).tgid = tgid;
            let to = (&raw mut (*kept).name).cast();
            bpf_probe_read_kernel_str(to, EXEC_NAME_LEN as u32, from);
        }
    }
}

/// Ends the marked holds of a task whose exec has succeeded: the kernel drops their files next.
#[inline(always)]
pub(crate) fn succeeded(task: u64) {
    // SAFETY: a map value, see `maps`.
    let passed_over = EXECS.get_ptr(task).is_some_and(|call| unsafe { (*call).table } != 0);
    if passed_over || EXEC_NAMES.get_ptr(task).is_some() {
        let (table, tgid) = (kernel::table_of(task), kernel::tgid_of(task));
        if passed_over {
            // As at `sched_process_exec`, where the kernel can have skipped the program.
            runs::note_exec(task, 0);
            table_walk::walk(table, task, tgid, Event::Closing);
        }
        table_walk::walk(table, task, tgid, Event::Closed);
    }
}

/// [`exec_progress`] returns: the task has exec'd since its fork.
pub(crate) const DONE: i32 = 1;
/// The task is in an exec, perhaps in `do_close_on_exec`, which clears the marks of fds before it takes the
/// fds.
pub(crate) const UNDER_WAY: i32 = 2;

/// How far a task has come with an exec since its fork: [`DONE`], [`UNDER_WAY`], or 0 for not at all, or no
/// task. A global function, because its caller needs the stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn exec_progress(task: u64) -> i32 {
    if task == 0 || kernel::int(task, offset!(task_flags)) & PF_FORKNOEXEC != 0 {
        return 0;
    }
    if task == kernel::current() {
        return DONE;
    }
    // The program at `sched_process_exec` takes the table. The kernel may have skipped the one at the entry
    // (7.2 on). SAFETY: a map value, see `maps`.
    let begun = EXECS.get_ptr(task).is_some_and(|call| unsafe { (*call).table } != 0);
    let last = kernel::last_call(task);
    let execs = begun | (last == syscall!(execve)) | (last == syscall!(execveat));
    if execs { UNDER_WAY } else { DONE }
}

/// When the exec that a task is in began, and whether the task has its new memory already; 0 if it is in
/// none.
///
/// The note of an exec that was killed stays, and the task's address may be in use again.
#[inline(always)]
pub(crate) fn under_way(task: u64) -> (u64, bool) {
    match EXECS.get_ptr(task) {
        Some(call)
            if kernel::in_call(task, syscall!(execve))
                || kernel::in_call(task, syscall!(execveat)) =>
        {
            // SAFETY: a map value, see `maps`.
            unsafe { ((*call).enter_ns, (*call).table == 0) }
        }
        _ => (0, false),
    }
}
