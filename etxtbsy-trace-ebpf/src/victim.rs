//! What is told of a call that failed, and of the process that made it.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use etxtbsy_trace_common::{Config, Count, Failure, Intake, Kind, Lost, TextOf};

use crate::{
    kernel::{self, offset, word},
    maps::{CONFIG, EVENTS, count, lost},
    tell::{self, WAKE},
    text::{self, Subject},
    tree,
};

/// `BPF_RB_AVAIL_DATA` and `BPF_RB_RING_SIZE`, include/uapi/linux/bpf.h.
const AVAIL_DATA: u64 = 0;
const RING_SIZE: u64 = 1;

/// A failed call.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// Its number.
    pub(crate) syscall: i32,
    /// 0 if its entry was not seen.
    pub(crate) enter_ns: u64,
    pub(crate) exit_ns: u64,
    /// User pointer to the path it was given.
    pub(crate) path: u64,
}

/// Whether tracing has begun and is not over.
#[inline(always)]
pub(crate) fn is_tracing() -> bool {
    // SAFETY: an element of an array map lives as long as the map, and every number is a value.
    CONFIG
        .get_ptr(Config::Intake as u32)
        .is_some_and(|intake| unsafe { intake.read_volatile() } != Intake::Closed as u64)
}

/// Counts a failure; whether it is to be told. Half of the ring buffer is for what is already being
/// told, which has room there: what a single failure comes to, and the releases that follow.
#[inline(always)]
pub(crate) fn is_taken() -> bool {
    let Some(intake) = CONFIG.get_ptr(Config::Intake as u32) else { return false };
    // SAFETY: a map value, see `maps`.
    let intake = unsafe { intake.read_volatile() };
    if intake == Intake::Closed as u64 {
        return false;
    }
    count(Count::Failures, 1);
    if intake == Intake::Full as u64 {
        lost(Lost::FailureUnkept);
        return false;
    }
    if EVENTS.query(AVAIL_DATA) > EVENTS.query(RING_SIZE) / 2 {
        lost(Lost::FailureUntold);
        return false;
    }
    true
}

/// Tells that a call of current's failed; `inode` is the busy one, `opened` what [`Failure::opened`]
/// says, and `writers` its `i_writecount`, all 0 if not known. `None` if that found no room.
#[inline(always)]
pub(crate) fn tell(
    task: u64,
    call: &Call,
    inode: u64,
    opened: u32,
    writers: i32,
) -> Option<Subject> {
    // The time, and the CPU, of which there are up to 8,192 (NR_CPUS_RANGE_END, arch/x86/Kconfig): no
    // CPU sees two failures in one nanosecond. What does not fit of the time are multiples of 26 days.
    // SAFETY: no arguments.
    let seq = call.exit_ns << 13 | (unsafe { bpf_get_smp_processor_id() } as u64 & 8191);
    let Some(mut entry) = tell::reserve::<Failure>() else {
        lost(Lost::FailureUntold);
        return None;
    };
    let told = entry.as_mut_ptr();
    // SAFETY: the reserved record; every field is written before it is submitted. One by one,
    // for want of stack.
    unsafe {
        (*told).kind = Kind::Failure as u32;
        (*told).syscall = call.syscall;
        (*told).seq = seq;
        (*told).enter_ns = call.enter_ns;
        (*told).exit_ns = call.exit_ns;
        (*told).inode = inode;
        (*told).ino = word(inode, offset!(inode_i_ino));
        (*told).writers = writers;
        (*told).dev = kernel::int(word(inode, offset!(inode_i_sb)), offset!(super_block_s_dev));
        (*told).opened = opened;
        (*told).tgid = kernel::tgid_of(task);
        (*told).tid = kernel::int(task, offset!(task_pid));
        (*told).ppid = kernel::ppid_of(task);
        (*told).ns_pid = kernel::ns_pid(task);
        (*told).uid = kernel::uid(task);
        (*told).generation = kernel::int(inode, offset!(inode_i_generation));
        (*told).local_pid = kernel::local_pid(task);
        (*told).cgroup = kernel::cgroup(task);
        (*told).inode_flags = kernel::int(inode, offset!(inode_i_flags));
        (*told).in_tree = tree::has(kernel::tgid_of(task)) as u32;
        (*told).start_ns = word(task, offset!(task_start_time));
        (*told).comm = kernel::comm(task);
    }
    entry.submit(WAKE);
    Some(Subject { seq, tgid: 0 })
}

/// Tells the texts on a victim.
#[inline(always)]
pub(crate) fn describe(task: u64, subject: Subject, path: u64) {
    text::user_string(task, TextOf::Path, subject, path);
    let mm = word(task, offset!(task_mm));
    text::file_path(task, TextOf::VictimExe, subject, word(mm, offset!(mm_exe_file)));
    let fs = word(task, offset!(task_fs));
    let (mnt, dentry) = (word(fs, offset!(fs_pwd_mnt)), word(fs, offset!(fs_pwd_dentry)));
    text::path(task, TextOf::VictimCwd, subject, mnt, dentry);
    let (start, end) = (word(mm, offset!(mm_arg_start)), word(mm, offset!(mm_arg_end)));
    text::user_bytes(task, TextOf::VictimArgv, subject, start, end);
}
