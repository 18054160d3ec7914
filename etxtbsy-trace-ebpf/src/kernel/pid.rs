//! Pids, in the namespaces that have them.

use etxtbsy_trace_common::Config;

use crate::{
    kernel::{
        offset,
        read::{int, word},
    },
    maps::CONFIG,
};

/// The `struct pid *` of a task's process; 0 if that has ended.
#[inline(always)]
fn pid_of(task: u64) -> u64 {
    word(word(task, offset!(task_group_leader)), offset!(task_thread_pid))
}

/// One number of a `struct pid`, `struct upid *`: the one `level` namespaces below the machine's
/// first; 0 if it has none there.
#[inline(always)]
fn upid(pid: u64, level: u32) -> u64 {
    // 32: MAX_PID_NS_LEVEL, include/linux/pid_namespace.h.
    if pid == 0 || level > 32 || level > int(pid, offset!(pid_level)) {
        return 0;
    }
    pid + offset!(pid_numbers) as u64 + level as u64 * offset!(upid_size) as u64
}

/// A task's process as its own pid namespace has it; 0 if it has ended.
#[inline(always)]
pub(crate) fn ns_pid(task: u64) -> u32 {
    let pid = pid_of(task);
    int(upid(pid, int(pid, offset!(pid_level))), offset!(upid_nr))
}

/// A task's process as the tracer's pid namespace has it; 0 if that does not have it.
#[inline(always)]
pub(crate) fn local_pid(task: u64) -> u32 {
    let (Some(level), Some(namespace)) =
        (CONFIG.get_ptr(Config::PidLevel as u32), CONFIG.get_ptr(Config::PidNamespace as u32))
    else {
        return 0;
    };
    // SAFETY: map values.
    let (level, namespace) = unsafe { (*level as u32, *namespace) };
    let upid = upid(pid_of(task), level);
    if word(upid, offset!(upid_ns)) != namespace {
        return 0;
    }
    int(upid, offset!(upid_nr))
}

/// A task's process as the pid namespace of another has it; 0 if it does not have it.
#[inline(always)]
pub(crate) fn pid_seen_by(task: u64, other: u64) -> u32 {
    let level = int(pid_of(other), offset!(pid_level));
    int(upid(pid_of(task), level), offset!(upid_nr))
}

/// A task's pid namespace, `struct pid_namespace *`, after how many there are above it.
#[inline(always)]
pub(crate) fn pid_namespace(task: u64) -> (u32, u64) {
    let pid = pid_of(task);
    let level = int(pid, offset!(pid_level));
    (level, word(upid(pid, level), offset!(upid_ns)))
}
