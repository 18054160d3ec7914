//! An exec begins, or succeeds. (One that fails: [`crate::fail`].)

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_ktime_get_ns, generated::bpf_probe_read_kernel_str},
    macros::{raw_tracepoint, tracepoint},
    programs::{RawTracePointContext, TracePointContext},
};
use etxtbsy_trace_common::{EXEC_NAME_LEN, ExecCall, ExecName, Lost};

use crate::{
    compat, copied,
    hold::{self, Event},
    kernel::{self, offset},
    maps::{ANY, EXEC_NAMES, EXECS, ZERO, lost},
    run,
};

/// `syscalls:sys_enter_execve`: keeps when the call began and what it was asked for.
///
/// The exit has neither; and a holder that let go before the call began cannot have made it fail.
#[tracepoint]
pub fn enter_execve(ctx: TracePointContext) -> u32 {
    begin(&ctx, 0)
}

/// `syscalls:sys_enter_execveat`: as above, the path being the second argument.
#[tracepoint]
pub fn enter_execveat(ctx: TracePointContext) -> u32 {
    begin(&ctx, 1)
}

#[inline(always)]
fn begin(ctx: &TracePointContext, path: usize) -> u32 {
    let path = kernel::argument(ctx, path);
    let task = kernel::current();
    // SAFETY: no arguments.
    let enter_ns = unsafe { bpf_ktime_get_ns() };
    let call =
        ExecCall { enter_ns, path, table: kernel::current_table(), arrival: kernel::arrival(task) };
    if EXECS.insert(task, call, ANY).is_err() {
        lost(Lost::ExecsFull);
    }
    0
}

/// `sched:sched_process_exec`, raw: the close-on-exec fds have left the table.
///
/// `do_close_on_exec` (in `begin_new_exec`) has emptied their places, while a file whose last
/// reference went with it is still open: `fput` has put it into the task's work, where it waits
/// until the execve returns to user mode. Here, the first point after it, both can be told apart.
#[raw_tracepoint(tracepoint = "sched_process_exec")]
pub fn execed(ctx: RawTracePointContext) -> i32 {
    let task: u64 = ctx.arg(0);
    let table = kernel::table_of(task);
    let tgid = kernel::tgid_of(task);
    run::note_exec(task, ctx.arg(2));
    if compat::is_new(task) {
        compat::ran(tgid);
    }
    if let Some(call) = EXECS.get_ptr_mut(task) {
        // SAFETY: a map value, which this task alone writes.
        let left = unsafe { core::mem::take(&mut (*call).table) };
        if left != table {
            // `begin_new_exec` unshares the table: what is left in it is what the program inherits.
            copied::left_shared(task);
            return 0;
        }
    }
    if !hold::walk(table, task, tgid, Event::Closing) {
        return 0;
    }
    let Some(zero) = ZERO.get_ptr(0) else { return 0 };
    // SAFETY: a map value of zeros, larger than a name.
    let _ = EXEC_NAMES.insert(task, unsafe { &*zero.cast::<ExecName>() }, ANY);
    if let Some(kept) = EXEC_NAMES.get_ptr_mut(task) {
        let from = kernel::word(ctx.arg(2), offset!(binprm_filename)) as *const c_void;
        // SAFETY: the helper checks `from`; the map value has as many bytes as it is told.
        unsafe {
            (*kept).tgid = tgid;
            let to = (&raw mut (*kept).name).cast();
            bpf_probe_read_kernel_str(to, EXEC_NAME_LEN as u32, from);
        }
    }
    0
}
