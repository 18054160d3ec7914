//! A call that failed, and the process that made it.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use etxtbsy_trace_common::{Failure, Kind, Lost, TextOf};

use crate::{
    emit::{
        ringbuf::{self, WAKE},
        text::{self, Subject},
    },
    kernel::{self, offset, word},
    maps::lost,
    tree,
};

/// A failed call.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    /// Its number.
    pub(crate) syscall: i32,
    /// 0 if its entry was not seen.
    pub(crate) enter_ns: u64,
    pub(crate) exit_ns: u64,
}

/// Reports that a call of current's failed; `inode` is the busy one, `opened` as in [`Failure::opened`], and
/// `writers` its `i_writecount`, all 0 if not known. `None` if that found no room.
#[inline(always)]
pub(crate) fn report(
    task: u64,
    call: &Call,
    inode: u64,
    opened: u32,
    writers: i32,
) -> Option<Subject> {
    let subject = report_as(Kind::Failure, task, call, inode, opened, writers, 0);
    if subject.is_none() {
        lost(Lost::FailureUnreported);
    }
    subject
}

/// Reports that an exec of current's succeeded, but may have failed.
#[inline(always)]
pub(crate) fn report_near_miss(
    task: u64,
    call: &Call,
    inode: u64,
    opened: u32,
    last_open_ns: u64,
) -> Option<Subject> {
    let subject = report_as(Kind::NearMiss, task, call, inode, opened, 0, last_open_ns);
    if subject.is_none() {
        lost(Lost::NearMissUnreported);
    }
    subject
}

#[inline(always)]
fn report_as(
    kind: Kind,
    task: u64,
    call: &Call,
    inode: u64,
    opened: u32,
    writers: i32,
    last_open_ns: u64,
) -> Option<Subject> {
    // The time, and the CPU, of which there are up to 8,192 (NR_CPUS_RANGE_END, arch/x86/Kconfig): no
    // CPU sees two failures in one nanosecond. The bits of the time that do not fit are multiples of 26 days.
    // SAFETY: no arguments.
    let seq = call.exit_ns << 13 | (unsafe { bpf_get_smp_processor_id() } as u64 & 8191);
    let mut entry = ringbuf::reserve::<Failure>()?;
    let record = entry.as_mut_ptr();
    // SAFETY: the reserved record; every field is written before it is submitted. One by one,
    // because the stack has no room for it.
    unsafe {
        (*record).kind = kind as u32;
        (*record).syscall = call.syscall;
        (*record).seq = seq;
        (*record).enter_ns = call.enter_ns;
        (*record).exit_ns = call.exit_ns;
        (*record).inode = inode;
        (*record).ino = word(inode, offset!(inode_i_ino));
        (*record).writers = writers;
        (*record).dev = kernel::int(word(inode, offset!(inode_i_sb)), offset!(super_block_s_dev));
        (*record).opened = opened;
        (*record).tgid = kernel::tgid_of(task);
        (*record).tid = kernel::int(task, offset!(task_pid));
        (*record).ppid = kernel::ppid_of(task);
        (*record).ns_pid = kernel::ns_pid(task);
        (*record).uid = kernel::uid(task);
        (*record).generation = kernel::int(inode, offset!(inode_i_generation));
        (*record).local_pid = kernel::local_pid(task);
        (*record).cgroup = kernel::cgroup(task);
        (*record).inode_flags = kernel::int(inode, offset!(inode_i_flags));
        (*record).in_tree = tree::has(kernel::tgid_of(task)) as u32;
        (*record).start_ns = word(task, offset!(task_start_time));
        (*record).last_open_ns = last_open_ns;
        (*record).comm = kernel::comm(task);
    }
    entry.submit(WAKE);
    Some(Subject { seq, tgid: 0 })
}

/// Reports the texts on a victim.
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
