//! An exec returns: told in full if it failed with ETXTBSY.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext};
use aya_log_ebpf::info;
use etxtbsy_trace_common::{
    CLOEXEC_UNKNOWN, Candidate, Config, ExecCall, FailureEnd, Hold, HoldKey, Kind, Lost, Next,
    SLOTS, Stage, TextOf, Via,
};

use crate::{
    exec,
    hold::{self, Event, KEEP_NS},
    kernel::{self, CALLS, FMODE_EXEC, PF_FORKNOEXEC, offset, word},
    linger,
    maps::{
        ANY, CONFIG, ENDED, EXEC_NAMES, EXECS, HOLDS, LINEAGE, NEXT, ORPHANS, SEARCHES, Sought,
        WATCHED, lost,
    },
    tell::{self, QUIET, WAKE},
    text::{self, Subject},
    tree,
    victim::{self, Call},
};

/// −ETXTBSY, the same number on every architecture that Rust and eBPF share.
pub(crate) const ETXTBSY: i64 = -26;

/// How many files an exec can have opened: BINPRM_BUF and `exec_binprm` allow five levels.
const FILES: u32 = 16;

/// `syscalls:sys_exit_execve` and `sys_exit_execveat`.
///
/// After a failure: the files that the exec opened wait in the task's work, so the busy one can
/// still be told, and every holder that has not let go since the exec was refused is still there.
/// After a success: the files that it closed are dropped next.
#[tracepoint]
pub fn exec_returns(ctx: TracePointContext) -> u32 {
    returns(&ctx)
}

/// The same tracepoints, where programs are preempted (7.2 on): while one that was is under way, the
/// kernel passes over it for all others that come on that processor. This one comes next, and
/// does what the first one has not done: it would have forgotten the call.
#[tracepoint]
pub fn exec_returns_again(ctx: TracePointContext) -> u32 {
    if EXECS.get_ptr(kernel::current()).is_none() {
        return 0;
    }
    returns(&ctx)
}

#[inline(always)]
fn returns(ctx: &TracePointContext) -> u32 {
    let ret = kernel::result(ctx);
    let task = kernel::current();
    if ret == 0 {
        exec_succeeded(task);
    } else if ret == ETXTBSY {
        if failed(task, kernel::syscall(ctx), 0) {
            info!(ctx, "exec of process {} failed", kernel::tgid_of(task));
        }
    }
    let _ = EXECS.remove(task);
    if ret == ETXTBSY
        && let Some(sought) = SEARCHES.get_ptr(task)
    {
        // SAFETY: the program that user space has put there is of this one's type.
        let _ = unsafe { NEXT.tail_call(ctx, Next::Search as u32) };
        // It does not return, unless there is no such program.
        // SAFETY: a map value.
        let Sought { seq, lost, .. } = unsafe { *sought };
        tell_end(seq, lost);
    }
    0
}

/// Tells that a failure has been told of; `lost` is 1 if some of it found no room.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell_end(seq: u64, lost: u32) -> i32 {
    tell::record(&FailureEnd { kind: Kind::FailureEnd as u32, lost, seq }, WAKE);
    0
}

/// An exec has succeeded: the files that it closed are dropped next.
#[inline(always)]
pub(crate) fn exec_succeeded(task: u64) {
    // SAFETY: a map value.
    let passed_over = EXECS.get_ptr(task).is_some_and(|call| unsafe { (*call).table } != 0);
    if passed_over || EXEC_NAMES.get_ptr(task).is_some() {
        let (table, tgid) = (kernel::table_of(task), kernel::tgid_of(task));
        if passed_over {
            // As `sched_process_exec`, which the kernel can have passed over.
            exec::note_exec(task);
            hold::walk(table, task, tgid, Event::Closing);
        }
        hold::walk(table, task, tgid, Event::Closed);
    }
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
/// entry of the task's work is the file it tried to execute. And where the saved registers are,
/// from the path that it gave.
#[inline(always)]
fn learn(task: u64, syscall: i32) {
    let link = word(task, offset!(task_task_works));
    let file = link - offset!(file_task_work) as u64;
    let taught = CONFIG.get_ptr(Config::Teacher as u32);
    // SAFETY: a map value.
    let teacher = taught.is_some_and(|value| unsafe { *value } == kernel::ppid_of(task) as u64);
    if teacher
        && kernel::int(file, offset!(file_f_flags)) & FMODE_EXEC != 0
        && let Some(fput) = CONFIG.get_ptr_mut(Config::Fput as u32)
    {
        if let Some(call) = EXECS.get_ptr(task)
            && let Some(at) = CONFIG.get_ptr_mut(Config::Registers as u32)
        {
            // SAFETY: map values; this one is written once.
            unsafe { *at = kernel::find_registers(task, syscall, (*call).path) };
        }
        // SAFETY: a map value, written once.
        unsafe { *fput = word(link, offset!(callback_func)) };
    }
}

/// The user pointer to the path, for an exec whose entry was passed over: its saved registers still
/// have it. A global function, for the sake of its caller's stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn path_asked(task: u64, syscall: i32) -> u64 {
    let is_second = syscall == CALLS.load().execveat;
    let at = if is_second { offset!(regs_second) } else { offset!(regs_first) };
    word(kernel::registers(task), at)
}

/// Tells of an exec that failed with ETXTBSY; if the known holders do not account for it, all but
/// the end, and leaves in `SEARCHES` what a search needs. False if it is of no interest. `path` is
/// the user pointer of a 32-bit call, whose entry is not seen, else 0.
#[inline(always)]
pub(crate) fn failed(task: u64, syscall: i32, path: u64) -> bool {
    let tgid = kernel::tgid_of(task);
    let Some(fput) = CONFIG.get_ptr(Config::Fput as u32) else { return false };
    // SAFETY: a map value.
    let fput = unsafe { *fput };
    if fput == 0 {
        learn(task, syscall);
        return false;
    }
    if !tree::contains(tgid) || !victim::is_taken() {
        return false;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let call = match EXECS.get_ptr(task) {
        // SAFETY: a map value.
        Some(call) => unsafe { *call },
        None if path == 0 => ExecCall { enter_ns: 0, path: path_asked(task, syscall), table: 0 },
        None => ExecCall { enter_ns: 0, path, table: 0 },
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
    let opened = (first != 0) as u32 + (second != 0) as u32;
    let call = Call { syscall, enter_ns: call.enter_ns, exit_ns: now, path: call.path };
    let Some(subject) = victim::tell(task, &call, inode, opened) else { return false };
    let seq = subject.seq;
    let writers = kernel::int(inode, offset!(inode_i_writecount)) as i32;
    let told = if inode == 0 { 0 } else { tell_candidates(inode, seq) };
    let lost_some = (told & LOST != 0) as u32;
    text::file_path(task, TextOf::BusyFile, subject, busy);
    if second != 0 {
        text::file_path(task, TextOf::Target, subject, first);
    }
    victim::describe(task, subject, call.path);
    // How many of several writers are known would take a count of different descriptions.
    let known = writers <= told & THERE;
    if inode != 0 && (!known || told & ODD != 0) {
        if SEARCHES.insert(task, Sought::new(inode, seq, 0, lost_some), ANY).is_ok() {
            return true;
        }
        lost(Lost::SearchesFull);
    }
    tell_end(seq, lost_some);
    true
}

/// Tells of the holds of an inode, then of those that have ended. Gives what
/// [`tell_candidate`] gives for any of them. A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_candidates(inode: u64, seq: u64) -> i32 {
    let mut told = 0;
    for slot in 0..SLOTS {
        told |= tell_candidate(inode, slot, 0, seq, 0);
    }
    for slot in 0..SLOTS {
        told |= tell_candidate(inode, slot, 1, seq, 0);
    }
    told
}

/// Of [`tell_candidate`]: the description is in the table, or in the task's work.
const THERE: i32 = 1;
/// The table has other users than the threads of the process.
const ODD: i32 = 2;
/// The record found no room.
pub(crate) const LOST: i32 = 4;

/// Tells of the hold in one place of an inode, with what can be seen of it at this moment;
/// `ended` is 0 for a place in `HOLDS`, 1 in `ENDED`, 2 in `ORPHANS`. Gives [`LOST`] if it found no room, else [`THERE`] and [`ODD`] as they apply. Unless it is 0, `sharer` is a task of another
/// process that uses the same table, and the record speaks of that. A global function, so that
/// the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell_candidate(
    inode: u64,
    slot: u32,
    ended: u32,
    seq: u64,
    sharer: u64,
) -> i32 {
    let key = HoldKey { inode, slot, pad: 0 };
    let kept = match ended {
        0 => HOLDS.get_ptr(key),
        1 => ENDED.get_ptr(key),
        _ => ORPHANS.get_ptr(key),
    };
    let Some(kept) = kept else { return 0 };
    // SAFETY: a map value. One that is being noted has no file yet, and is told of then.
    if unsafe { (*kept).file } == 0 {
        return 0;
    }
    // SAFETY: a map value. The time is a number that begins with the failure's (`victim::tell`).
    if ended == 1 && unsafe { (*kept).released_ns } + KEEP_NS < seq {
        return 0;
    }
    let Some(mut entry) = tell::reserve::<Candidate>() else { return LOST };
    let told = entry.as_mut_ptr();
    // SAFETY: `told` is the reserved record, `kept` a map value; every field is written before
    // the record is submitted.
    let (task, there, in_works, odd) = unsafe {
        let hold = &*kept;
        let same = kernel::inode_of(hold.file) == inode && kernel::is_writer(hold.file);
        // A table that is being torn down belongs to nobody; while it is held, an fd is in it,
        // even if the thread that made the fd has ended.
        let owned = hold.stage == Stage::Held as u32 || kernel::table_of(hold.task) == hold.table;
        // A table that nobody uses is freed, or about to be.
        let owned = owned & (kernel::users_of(hold.table) != 0);
        let open = kernel::is_open(hold.file, inode);
        let in_table = owned & open & (kernel::file_at(hold.table, hold.fd) == hold.file);
        (*told).open = open as u32;
        (*told).users = kernel::users_of(hold.table);
        (*told).kind = Kind::Candidate as u32;
        (*told).in_table = in_table as u32;
        let in_works = same & hold::is_task_of(hold) & kernel::in_works(hold.task, hold.file);
        (*told).in_works = in_works as u32;
        (*told).cloexec = kernel::cloexec_at(hold.table, hold.fd);
        (*told).seq = seq;
        (*told).inode = inode;
        core::ptr::copy_nonoverlapping(kept, &raw mut (*told).hold, 1);
        if sharer != 0 {
            share(&raw mut (*told).hold, sharer);
        }
        let task = tell::look(&raw const (*told).hold, &raw mut (*told).holder);
        let exec = exec_of(task);
        if exec == UNDER_WAY {
            (*told).cloexec = CLOEXEC_UNKNOWN;
        } else if exec == DONE && in_table && (*told).cloexec == 0 {
            // Its `sched_process_exec` may have been passed over.
            (*told).hold.execed = 1;
        }
        let threads = kernel::int(word(task, offset!(task_signal)), offset!(signal_nr_threads));
        (task, in_table | in_works, in_works, in_table & ((*told).users != threads))
    };
    // SAFETY: as above; kept for the texts.
    let (tgid, file) = unsafe { ((*told).hold.tgid, (*kept).file) };
    // SAFETY: as above.
    if in_works && unsafe { (*kept).stage } == Stage::Released as u32 {
        linger::until_exit(tgid, file, 0);
    }
    entry.submit(QUIET);
    let subject = Subject { seq, tgid };
    let current = kernel::current();
    if there {
        text::file_path(current, TextOf::HolderFile, subject, file);
    }
    let exe = word(word(task, offset!(task_mm)), offset!(mm_exe_file));
    text::file_path(current, TextOf::HolderExe, subject, exe);
    there as i32 * THERE + odd as i32 * ODD
}

/// Of [`exec_of`]: it has exec'd since its fork.
const DONE: i32 = 1;
/// It is in an exec, perhaps in `do_close_on_exec`, which clears the marks of fds before it takes
/// the fds.
const UNDER_WAY: i32 = 2;

/// How far a task other than current has got with an exec; 0 for not at all, or no task. A global
/// function, for the sake of its caller's stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn exec_of(task: u64) -> i32 {
    if task == 0 || kernel::int(task, offset!(task_flags)) & PF_FORKNOEXEC != 0 {
        return 0;
    }
    match EXECS.get_ptr(task) {
        // SAFETY: a map value. `sched_process_exec` takes the table.
        Some(call) if task != kernel::current() && unsafe { (*call).table } != 0 => UNDER_WAY,
        _ => DONE,
    }
}

/// Makes a copy of a hold speak of another process that uses the same table.
///
/// # Safety
///
/// `hold` can be written.
#[inline(always)]
unsafe fn share(hold: *mut Hold, sharer: u64) {
    let tgid = kernel::tgid_of(sharer);
    // SAFETY: the caller's promise.
    unsafe {
        (*hold).tgid = tgid;
        (*hold).ppid = kernel::ppid_of(sharer);
        (*hold).task = sharer;
        (*hold).start_ns = word(sharer, offset!(task_start_time));
        let opener = (*hold).opened.tgid == tgid;
        (*hold).via = if opener { Via::Open } else { Via::Fork } as u32;
        if !opener && let Some(lineage) = LINEAGE.get_ptr(tgid) {
            (*hold).forked = (*lineage).forker;
        }
    }
}
