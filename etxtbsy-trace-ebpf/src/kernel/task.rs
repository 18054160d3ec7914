//! Tasks (`struct task_struct`): who they are, and what they are doing.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_get_current_task};
use etxtbsy_trace_common::{Actor, COMM_LEN, Hold, Quiet};

use crate::kernel::{
    offset,
    offsets::syscall,
    read::{int, word, words},
    regs::{is_open_call, last_call},
};

/// `PF_EXITING`, include/linux/sched.h.
pub(crate) const PF_EXITING: u32 = 0x4;
/// `PF_FORKNOEXEC`, include/linux/sched.h: set by `copy_process`, cleared by `begin_new_exec` before
/// the close-on-exec fds go.
pub(crate) const PF_FORKNOEXEC: u32 = 0x40;

/// `PF_DUMPCORE` and `PF_SIGNALED`, the same: the thread dumps core, or a signal has killed it.
const PF_FATAL: u32 = 0x600;
/// `SIGNAL_GROUP_EXIT`, include/linux/sched/signal.h: the process is ending as a whole.
const SIGNAL_GROUP_EXIT: u32 = 0x4;

/// `current`.
#[inline(always)]
pub(crate) fn current() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task() }
}

/// A task's name: that of a thread.
#[inline(always)]
pub(crate) fn comm(task: u64) -> [u8; COMM_LEN] {
    let [first, second] = words(task + offset!(task_comm) as u64);
    let mut comm = [0; COMM_LEN];
    let (start, end) = comm.split_at_mut(COMM_LEN / 2);
    start.copy_from_slice(&first.to_ne_bytes());
    end.copy_from_slice(&second.to_ne_bytes());
    comm
}

/// The thread that acts at `time_ns`: `task`, which is current.
#[inline(always)]
pub(crate) fn actor(task: u64, time_ns: u64) -> Actor {
    let id = bpf_get_current_pid_tgid();
    Actor { time_ns, tgid: (id >> 32) as u32, tid: id as u32, comm: comm(task) }
}

/// A task's process.
#[inline(always)]
pub(crate) fn tgid_of(task: u64) -> u32 {
    int(task, offset!(task_tgid))
}

/// The process that a task's process was forked by, or given to since.
#[inline(always)]
pub(crate) fn ppid_of(task: u64) -> u32 {
    tgid_of(word(task, offset!(task_real_parent)))
}

/// Whether the task of a hold is still the same one: the kernel frees a `task_struct` and uses it again.
#[inline(always)]
pub(crate) fn is_task_of(hold: &Hold) -> bool {
    (tgid_of(hold.task) == hold.tgid) & (word(hold.task, offset!(task_start_time)) == hold.start_ns)
}

/// A task's user.
#[inline(always)]
pub(crate) fn uid(task: u64) -> u32 {
    int(word(task, offset!(task_real_cred)), offset!(cred_uid))
}

/// The id of a task's cgroup in the v2 hierarchy.
#[inline(always)]
pub(crate) fn cgroup(task: u64) -> u64 {
    let cgroup = word(word(task, offset!(task_cgroups)), offset!(css_set_dfl_cgrp));
    word(word(cgroup, offset!(cgroup_kn)), offset!(kernfs_node_id))
}

/// When a task last got a processor, by the scheduler's clock; 0 if the kernel does not keep it.
#[inline(always)]
pub(crate) fn arrival(task: u64) -> u64 {
    if offset!(task_last_arrival) == u32::MAX { 0 } else { word(task, offset!(task_last_arrival)) }
}

/// How many threads of a process are looked at.
const THREADS: u32 = 32;

/// What the threads of a task's process have been doing since `since`, by the scheduler's clock: a
/// [`Quiet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn quiet_since(task: u64, since: u64) -> u32 {
    let head = word(task, offset!(task_signal)) + offset!(signal_thread_head) as u64;
    let mut link = head;
    let mut quiet = Quiet::Idle as u32;
    for _ in 0..THREADS {
        link = word(link, 0);
        if link == head {
            return quiet;
        }
        // No branch: each would double what the verifier has to follow.
        quiet &= thread_quiet(link - offset!(task_thread_node) as u64, since);
        if quiet == Quiet::No as u32 {
            break;
        }
    }
    Quiet::No as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn thread_quiet(thread: u64, since: u64) -> u32 {
    // A thread that sleeps in such a call has not received anything in it, and the fd that an open gives is
    // in the table before that call returns. One that was preempted there may have run when the other call
    // began.
    let syscall = last_call(thread);
    let receives = (syscall == syscall!(recvmsg)) | (syscall == syscall!(recvmmsg));
    let receives = receives | (syscall == syscall!(pidfd_getfd)) | is_open_call(syscall);
    if receives && int(thread, offset!(task_state)) == 0 {
        return Quiet::No as u32;
    }
    let known = (since != 0) & (offset!(task_on_cpu) != u32::MAX);
    if known && int(thread, offset!(task_on_cpu)) == 0 && arrival(thread) < since {
        return Quiet::Idle as u32;
    }
    Quiet::NotReceiving as u32
}

/// Whether a task's process is ending while it still has its files: by a fatal signal, and perhaps a core
/// dump.
#[inline(always)]
pub(crate) fn is_ending(task: u64) -> bool {
    let flags = int(task, offset!(task_flags)) & (PF_FATAL | PF_EXITING);
    let group = int(word(task, offset!(task_signal)), offset!(signal_flags)) & SIGNAL_GROUP_EXIT;
    flags != 0 || group != 0
}

/// Whether `copy_process` has made a task far enough to tell it from its parent: the task starts as a copy of the
/// parent's, pid and name included, gets its own `signal` (`copy_signal`) and memory (`copy_mm`), and only much
/// later its pid and `group_leader` (5.10 to 7.2).
#[inline(always)]
pub(crate) fn is_made(task: u64) -> bool {
    let leader = word(task, offset!(task_group_leader));
    word(task, offset!(task_signal)) == word(leader, offset!(task_signal))
}
