//! An exec returns: told in full if it failed with ETXTBSY.

use core::ffi::c_void;

use aya_ebpf::{
    helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::tracepoint,
    programs::TracePointContext,
};
use aya_log_ebpf::info;
use etxtbsy_trace_common::{
    Candidate, Config, ExecCall, Failure, FailureEnd, HoldKey, Kind, Lost, SLOTS, Stage, TextOf,
};

use crate::{
    hold::{self, Event, repeat},
    kernel::{self, FMODE_EXEC, offset, word},
    maps::{ANY, CONFIG, ENDED, EXEC_NAMES, EXECS, HOLDS, WATCHED, lost},
    tell::{self, QUIET, WAKE},
    text::{self, Subject},
    tree,
};

/// −ETXTBSY, the same number on every architecture that Rust and eBPF share.
const ETXTBSY: i64 = -26;

/// How many files an exec can have opened: BINPRM_BUF and `exec_binprm` allow five levels.
const FILES: u32 = 16;

/// `syscalls:sys_exit_execve` and `sys_exit_execveat`.
///
/// After a failure: the files that the exec opened wait in the task's work, so the busy one can
/// still be told, and every holder that has not let go since the exec was refused is still there.
/// After a success: the files that it closed are dropped next.
#[tracepoint]
pub fn exec_returns(ctx: TracePointContext) -> u32 {
    // SAFETY: `ret` of a system call's exit, at this offset in every version.
    let ret = unsafe { ctx.read_at::<i64>(16) }.unwrap_or(0);
    let task = kernel::current();
    if ret == 0 {
        if EXEC_NAMES.get_ptr(task).is_some() {
            let tgid = kernel::tgid_of(task);
            hold::walk(kernel::table_of(task), task, tgid, Event::Closed);
        }
    } else if ret == ETXTBSY {
        // SAFETY: the number of the system call, at this offset in every version.
        let syscall = unsafe { ctx.read_at::<i32>(8) }.unwrap_or(0);
        failed(&ctx, task, syscall);
    }
    let _ = EXECS.remove(task);
    0
}

/// The `nth` file in the task's work that was opened to be executed, youngest first; 0 if there
/// are fewer. A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn opened_file(task: u64, fput: u64, nth: u32) -> u64 {
    let mut left = nth;
    let mut link = word(task, offset!(task_task_works));
    for _ in 0..FILES {
        if link == 0 {
            break;
        }
        let file = link - offset!(file_task_work) as u64;
        if word(link, offset!(callback_func)) == fput
            && kernel::int(file, offset!(file_f_flags)) & FMODE_EXEC != 0
        {
            if left == 0 {
                return file;
            }
            left -= 1;
        }
        link = word(link, offset!(callback_next));
    }
    0
}

/// Learns the address of `____fput` from a failure that a child of user space has made: the first
/// entry of the task's work is the file it tried to execute.
#[inline(always)]
fn learn(task: u64) {
    let link = word(task, offset!(task_task_works));
    let file = link - offset!(file_task_work) as u64;
    let taught = CONFIG.get_ptr(Config::Teacher as u32);
    // SAFETY: a map value.
    let teacher = taught.is_some_and(|value| unsafe { *value } == kernel::ppid_of(task) as u64);
    if teacher
        && kernel::int(file, offset!(file_f_flags)) & FMODE_EXEC != 0
        && let Some(fput) = CONFIG.get_ptr_mut(Config::Fput as u32)
    {
        // SAFETY: a map value, written once.
        unsafe { *fput = word(link, offset!(callback_func)) };
    }
}

#[inline(always)]
fn failed(ctx: &TracePointContext, task: u64, syscall: i32) {
    let tgid = kernel::tgid_of(task);
    let Some(fput) = CONFIG.get_ptr(Config::Fput as u32) else { return };
    // SAFETY: a map value.
    let fput = unsafe { *fput };
    if fput == 0 {
        learn(task);
        return;
    }
    if !tree::contains(tgid) {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // The time to a microsecond, and the CPU: no CPU sees two failures in one microsecond.
    // SAFETY: no arguments.
    let seq = (now & !1023) | (unsafe { bpf_get_smp_processor_id() } as u64 & 1023);
    let call = match EXECS.get_ptr(task) {
        // SAFETY: a map value.
        Some(call) => unsafe { *call },
        None => ExecCall { enter_ns: 0, path: 0, table: 0 },
    };
    // [bprm->file, busy file, earlier scripts…] if an interpreter was busy, else the file alone.
    let (first, second) = (opened_file(task, fput, 0), opened_file(task, fput, 1));
    let busy = if second != 0 { second } else { first };
    let inode = if busy == 0 { 0 } else { kernel::inode_of(busy) };
    if inode == 0 {
        lost(Lost::NoBusyFile);
    } else if WATCHED.insert(inode, now, ANY).is_err() {
        lost(Lost::WatchFull);
    }
    let subject = Subject { seq, tgid: 0 };
    let failure = Failure {
        kind: Kind::Failure as u32,
        syscall,
        seq,
        enter_ns: call.enter_ns,
        exit_ns: now,
        inode,
        ino: word(inode, offset!(inode_i_ino)),
        writers: kernel::int(inode, offset!(inode_i_writecount)) as i32,
        dev: kernel::int(word(inode, offset!(inode_i_sb)), offset!(super_block_s_dev)),
        opened: (first != 0) as u32 + (second != 0) as u32,
        tgid,
        tid: kernel::int(task, offset!(task_pid)),
        ppid: kernel::ppid_of(task),
        ns_pid: kernel::ns_pid(task),
        uid: kernel::uid(task),
        cgroup: kernel::cgroup(task),
        start_ns: word(task, offset!(task_start_time)),
        comm: kernel::comm(task),
    };
    info!(ctx, "exec of process {} failed: inode {:x}, {} writers", tgid, inode, failure.writers);
    if !tell::record(&failure, WAKE) {
        lost(Lost::FailureUntold);
        return;
    }
    let mut telling = Telling { inode, seq, ended: 0, lost: 0 };
    if inode != 0 {
        repeat(SLOTS, candidate, &mut telling);
        telling.ended = 1;
        repeat(SLOTS, candidate, &mut telling);
    }
    text::user_string(task, TextOf::Path, subject, call.path);
    file_path(task, TextOf::BusyFile, subject, busy);
    if second != 0 {
        file_path(task, TextOf::Target, subject, first);
    }
    let mm = word(task, offset!(task_mm));
    file_path(task, TextOf::VictimExe, subject, word(mm, offset!(mm_exe_file)));
    let fs = word(task, offset!(task_fs));
    let (mnt, dentry) = (word(fs, offset!(fs_pwd_mnt)), word(fs, offset!(fs_pwd_dentry)));
    text::path(task, TextOf::VictimCwd, subject, mnt, dentry);
    let (start, end) = (word(mm, offset!(mm_arg_start)), word(mm, offset!(mm_arg_end)));
    text::user_bytes(task, TextOf::VictimArgv, subject, start, end);
    tell::record(&FailureEnd { kind: Kind::FailureEnd as u32, lost: telling.lost, seq }, WAKE);
}

#[inline(always)]
fn file_path(task: u64, of: TextOf, subject: Subject, file: u64) {
    let (mnt, dentry) =
        (word(file, offset!(file_f_path_mnt)), word(file, offset!(file_f_path_dentry)));
    text::path(task, of, subject, mnt, dentry);
}

/// The telling of an inode's holds.
#[repr(C)]
struct Telling {
    inode: u64,
    seq: u64,
    /// 0: those that hold; 1: those that have ended.
    ended: u32,
    lost: u32,
}

unsafe extern "C" fn candidate(slot: u64, context: *mut c_void) -> i64 {
    // SAFETY: `failed` gives this its own state.
    let telling = unsafe { &mut *context.cast::<Telling>() };
    if tell_candidate(telling.inode, slot as u32, telling.ended, telling.seq) < 0 {
        telling.lost = 1;
    }
    0
}

/// Tells of the hold in one place of an inode, with what can be seen of it at this moment; −1 if
/// it found no room. A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_candidate(inode: u64, slot: u32, ended: u32, seq: u64) -> i32 {
    let key = HoldKey { inode, slot, pad: 0 };
    let kept = if ended == 0 { HOLDS.get_ptr(key) } else { ENDED.get_ptr(key) };
    let Some(kept) = kept else { return 0 };
    let Some(mut entry) = tell::reserve::<Candidate>() else { return -1 };
    let told = entry.as_mut_ptr();
    // SAFETY: `told` is the reserved record, `kept` a map value; every field is written before
    // the record is submitted.
    let (task, in_table) = unsafe {
        let hold = &*kept;
        let same = kernel::inode_of(hold.file) == inode && kernel::is_writer(hold.file);
        // A table that is being torn down belongs to nobody; while it is held, an fd is in it,
        // even if the thread that made the fd has ended.
        let owned = hold.stage == Stage::Held as u32 || kernel::table_of(hold.task) == hold.table;
        let in_table = same & owned & (kernel::file_at(hold.table, hold.fd) == hold.file);
        (*told).open = kernel::is_open(hold.file, inode) as u32;
        (*told).users = kernel::users_of(hold.table);
        (*told).kind = Kind::Candidate as u32;
        (*told).in_table = in_table as u32;
        (*told).in_works = (same & kernel::in_works(hold.task, hold.file)) as u32;
        (*told).cloexec = kernel::cloexec_at(hold.table, hold.fd);
        (*told).seq = seq;
        (*told).inode = inode;
        (*told).hold = *hold;
        (tell::look(kept, &raw mut (*told).holder), in_table)
    };
    // SAFETY: as above; kept for the texts.
    let (tgid, file) = unsafe { ((*kept).tgid, (*kept).file) };
    entry.submit(QUIET);
    let subject = Subject { seq, tgid };
    let current = kernel::current();
    if in_table {
        file_path(current, TextOf::HolderFile, subject, file);
    }
    let exe = word(word(task, offset!(task_mm)), offset!(mm_exe_file));
    file_path(current, TextOf::HolderExe, subject, exe);
    0
}
