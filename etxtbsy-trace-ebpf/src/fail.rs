//! An exec returns: told in full if it failed with ETXTBSY.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext};
use aya_log_ebpf::info;
use etxtbsy_trace_common::{
    CLOEXEC_UNKNOWN, Candidate, Config, Count, Drain, ExecCall, FailureEnd, Hold, HoldKey, How,
    KeptBy, Kind, Lost, Next, SLOTS, Stage, TextOf, Via, Watch,
};

use crate::{
    hold::{self, Event},
    kernel::{self, CALLS, FMODE_EXEC, PF_FORKNOEXEC, offset, word},
    linger,
    maps::{
        ANY, CONFIG, CROWDED, DESCRIPTIONS, ENDED, EXEC_NAMES, EXECS, HOLDS, LINEAGE, NEXT,
        ORPHANS, ORPHANS_OF, RECEIVED, SEARCHES, Sought, WATCHED, count, lost,
    },
    run,
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
    if ret == ETXTBSY && SEARCHES.get_ptr(task).is_some() {
        // SAFETY: the program that user space has put there is of this one's type.
        let _ = unsafe { NEXT.tail_call(ctx, Next::Search as u32) };
        // It does not return, unless there is no such program.
        end_failure(task, 1);
    }
    0
}

/// Reports that all is reported of a task's failure; `cut` is 1 if its search is missing.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn end_failure(task: u64, cut: u32) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(task) else { return 0 };
    let unfound = unfound(task);
    let copies = if unfound > 0 { copied_since(task) } else { 0 };
    let references = if unfound > copies { (unfound - copies) as u32 } else { 0 };
    // SAFETY: a map value, which this task alone uses.
    let (seq, inode, lost, unplaced) =
        unsafe { ((*sought).seq, (*sought).inode, (*sought).lost | cut, (*sought).unplaced) };
    let _ = SEARCHES.remove(task);
    if references != 0
        && let Some(watch) = WATCHED.get_ptr_mut(inode)
    {
        // SAFETY: a map value, see `maps`.
        unsafe { (*watch).wanted = references };
    }
    let kind = Kind::FailureEnd as u32;
    tell::record(&FailureEnd { kind, lost, seq, references, unplaced }, WAKE);
    0
}

/// Reports the end of a failure that nothing is known of.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn end_unknown(seq: u64) -> i32 {
    let kind = Kind::FailureEnd as u32;
    tell::record(&FailureEnd { kind, lost: 1, seq, references: 0, unplaced: 0 }, WAKE);
    0
}

/// How many copies of the inode's descriptions have been made by forks since a failure, and were not
/// reported: of children that were being made.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn copied_since(task: u64) -> i32 {
    let mut copies = 0;
    for slot in 0..SLOTS {
        copies += is_copied_since(task, slot);
    }
    copies
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_copied_since(task: u64, slot: u32) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(task) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let (inode, exit_ns) = unsafe { ((*sought).inode, (*sought).exit_ns) };
    let Some(hold) = HOLDS.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let hold = unsafe { &*hold };
    let is_copy = (hold.via == Via::Fork as u32) & (hold.acquired_ns > exit_ns);
    (is_copy & (hold.found == 0) & (hold.reported == 0)) as i32
}

/// How many references to the descriptions that a failure found were not found.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn unfound(task: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(task) else { return 0 };
    let mut references = 0;
    for at in 0..DESCRIPTIONS {
        // SAFETY: a map value, and an index within the array.
        let (file, before) = unsafe { ((*sought).files[at], (*sought).references[at]) };
        if file != 0 {
            // What was found and closed since hides none of the others.
            let now = kernel::references(file);
            references += if now < before { before } else { now };
        }
    }
    // SAFETY: a map value, see `maps`.
    let found = unsafe { (*sought).found };
    if references > found { (references - found) as i32 } else { 0 }
}

/// Notes that a failure has found a reference to a description, or (`counts` is 0) what is left of
/// one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_found(task: u64, file: u64, counts: u32) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(task) else { return 0 };
    // SAFETY: a map value, which this task alone uses, and indices within its array.
    unsafe {
        (*sought).found += counts;
        for at in 0..DESCRIPTIONS {
            let known = (*sought).files[at];
            if known == file {
                return 0;
            }
            if known == 0 {
                (*sought).files[at] = file;
                if (*sought).first == 0 {
                    (*sought).references[at] = kernel::references(file);
                }
                return 0;
            }
        }
    }
    0
}

/// How many descriptions a failure has found.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn found_files(task: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr(task) else { return 0 };
    let mut files = 0;
    for at in 0..DESCRIPTIONS {
        // SAFETY: a map value, and an index within the array.
        files += unsafe { (*sought).files[at] != 0 } as i32;
    }
    files
}

/// An exec has succeeded: the files that it closed are dropped next.
#[inline(always)]
pub(crate) fn exec_succeeded(task: u64) {
    // SAFETY: a map value, see `maps`.
    let passed_over = EXECS.get_ptr(task).is_some_and(|call| unsafe { (*call).table } != 0);
    if passed_over || EXEC_NAMES.get_ptr(task).is_some() {
        let (table, tgid) = (kernel::table_of(task), kernel::tgid_of(task));
        if passed_over {
            // As `sched_process_exec`, which the kernel can have passed over.
            run::note_exec(task, 0);
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
    // SAFETY: a map value, see `maps`.
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

/// Of [`busy_file`]: no file.
const NO_FILE: u32 = u32::MAX;
/// How many files of an exec are looked at for the busy one.
const OPENED: u32 = 4;

/// Which of the files that an exec has opened was busy, youngest first; [`NO_FILE`] if there is none.
///
/// The first is `bprm->file` (or, of a binfmt_misc entry with flag `O` or `C`, `bprm->executable`, and
/// that the second); if an interpreter was refused, that one comes next, then what was opened before.
/// It is the one that has writers: all others were denied to these. Where nobody has by now, the
/// order decides.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn busy_file(task: u64, fput: u64) -> u32 {
    let mut files = 0;
    for nth in 0..OPENED {
        let file = opened_file(task, fput, nth);
        if file == 0 {
            break;
        }
        files += 1;
        let writers = kernel::int(kernel::inode_of(file), offset!(inode_i_writecount)) as i32;
        if writers > 0 && (nth > 0 || opened_file(task, fput, 1) == 0) {
            return nth;
        }
    }
    match files {
        0 => NO_FILE,
        1 => 0,
        _ => 1,
    }
}

/// Reports an exec that failed with ETXTBSY; if the known holders do not account for it, all but
/// the end, and leaves in `SEARCHES` what a search needs. False if it is of no interest. `path` is
/// the user pointer of a 32-bit call, whose entry is not seen, else 0.
#[inline(always)]
pub(crate) fn failed(task: u64, syscall: i32, path: u64) -> bool {
    let tgid = kernel::tgid_of(task);
    let Some(fput) = CONFIG.get_ptr(Config::Fput as u32) else { return false };
    // SAFETY: a map value, see `maps`.
    let fput = unsafe { *fput };
    if fput == 0 {
        learn(task, syscall);
        return false;
    }
    if !tree::contains(tgid) {
        note_elsewhere(task, fput);
        return false;
    }
    if !victim::is_taken() {
        return false;
    }
    let call = match EXECS.get_ptr(task) {
        // SAFETY: a map value, see `maps`.
        Some(call) => unsafe { *call },
        None => {
            let path = if path == 0 { path_asked(task, syscall) } else { path };
            ExecCall { enter_ns: 0, path, table: 0, arrival: 0 }
        }
    };
    let nth = busy_file(task, fput);
    let busy = if nth == NO_FILE { 0 } else { opened_file(task, fput, nth) };
    let inode = if busy == 0 { 0 } else { kernel::inode_of(busy) };
    let writers = kernel::int(inode, offset!(inode_i_writecount)) as i32;
    // After the count: what ends after this was counted.
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // Without one, the file system itself refused to open it; user space looks.
    if inode != 0 {
        watch(inode, now);
    }
    let opened = if inode == 0 { 0 } else { nth + 1 };
    let sought = Sought::begin(task, inode, 0, 0, 0);
    if let Some(sought) = sought {
        // SAFETY: a map value, which this task alone uses.
        unsafe {
            (*sought).enter_ns = if call.enter_ns == 0 { now } else { call.enter_ns };
            (*sought).exit_ns = now;
            (*sought).arrival = call.arrival;
            (*sought).writers = if writers > 0 { writers as u32 } else { 0 };
        }
        note_draining(task);
    }
    let call = Call { syscall, enter_ns: call.enter_ns, exit_ns: now, path: call.path };
    let Some(subject) = victim::tell(task, &call, inode, opened, writers) else {
        let _ = SEARCHES.remove(task);
        return false;
    };
    let Some(sought) = sought else {
        end_unknown(subject.seq);
        return true;
    };
    // SAFETY: as above.
    unsafe { (*sought).seq = subject.seq };
    let odd = if inode == 0 { 0 } else { tell_candidates(task) & ODD };
    if inode != 0 && found_files(task) == 0 {
        // It may have been dropped since the exec was refused.
        tell_recent(task);
    }
    text::file_path(task, TextOf::BusyFile, subject, busy);
    if nth > 0 && inode != 0 {
        // The file that names the busy one as its interpreter.
        text::file_path(task, TextOf::Target, subject, opened_file(task, fput, nth - 1));
    }
    victim::describe(task, subject, call.path);
    let known = writers <= found_files(task) && unfound(task) == 0;
    if inode == 0 || (known && odd == 0 && CROWDED.get_ptr(inode).is_none()) {
        end_failure(task, 0);
    }
    true
}

/// Counts an exec outside the traced tree that failed, if a process of the tree holds the file.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_elsewhere(task: u64, fput: u64) -> i32 {
    let nth = busy_file(task, fput);
    if nth == NO_FILE || !victim::is_tracing() {
        return 0;
    }
    let inode = kernel::inode_of(opened_file(task, fput, nth));
    for slot in 0..SLOTS {
        if is_held_by_tree(inode, slot) != 0 {
            count(Count::Elsewhere, 1);
            break;
        }
    }
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_held_by_tree(inode: u64, slot: u32) -> i32 {
    let Some(hold) = HOLDS.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let (file, tgid) = unsafe { ((*hold).file, (*hold).tgid) };
    (kernel::is_open(file, inode) && tree::is_member(tgid)) as i32
}

/// Notes which descriptions are being dropped: at once, for that takes a microsecond.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_draining(task: u64) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(task) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let inode = unsafe { (*sought).inode };
    let mut draining = 0;
    for slot in 0..SLOTS {
        draining |= (is_draining(inode, slot) as u64 & 1) << slot;
    }
    // SAFETY: as above.
    unsafe { (*sought).draining = draining };
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_draining(inode: u64, slot: u32) -> u32 {
    let Some(hold) = ENDED.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let hold = unsafe { &*hold };
    if hold.last == 0 || kernel::references(hold.file) != 0 {
        return 0;
    }
    let drain = hold::drain(hold, inode);
    let same = kernel::inode_of(hold.file) == inode && kernel::is_writer(hold.file);
    let waits = same && hold::is_task_of(hold) && hold::may_wait(hold);
    let waits = waits && kernel::in_works(hold.task, hold.file);
    (drain == Drain::UnderWay as u32 || waits) as u32
}

/// Has what happens to an inode reported from now on.
#[inline(always)]
fn watch(inode: u64, now: u64) {
    match WATCHED.get_ptr_mut(inode) {
        // SAFETY: a map value; two failures at once write two times of which either will do.
        Some(watch) => unsafe { (*watch).failed_ns = now },
        None => {
            let watch = Watch { failed_ns: now, wanted: 0, lost: 0 };
            if WATCHED.insert(inode, watch, ANY).is_err() {
                lost(Lost::WatchFull);
            }
        }
    }
}

/// Reports the holds of an inode, then those that have ended. Gives what [`tell_candidate`] gives for
/// any of them. A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_candidates(task: u64) -> i32 {
    let mut told = 0;
    for slot in 0..SLOTS {
        told |= tell_candidate(task, slot, CURRENT, 0);
    }
    for slot in 0..SLOTS {
        told |= tell_candidate(task, slot, OVER, 0);
    }
    told
}

/// Reports the holds of an inode that an exec has ended a while ago, if what they held may have been dropped
/// during the failing call.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tell_recent(task: u64) -> i32 {
    for slot in 0..SLOTS {
        tell_candidate(task, slot, RECENT, 0);
    }
    0
}

/// Of [`tell_candidate`]: a place in `HOLDS`, in `ENDED`, in `ORPHANS`.
pub(crate) const CURRENT: u32 = 0;
const OVER: u32 = 1;
pub(crate) const OUTLIVED: u32 = 2;
/// The same as [`OVER`], of what is over for a short time only.
const RECENT: u32 = 3;

/// How long the drop of a last reference takes at the most, after an exec, in nanoseconds: 70 ms have been
/// seen, of a task that was preempted just then.
const DRAIN_NS: u64 = 200_000_000;

/// The table has other users than the threads of the process, or it is not known who they are.
const ODD: i32 = 2;

/// The hold in a place of an inode; `kept` is [`CURRENT`], [`OVER`], [`OUTLIVED`] or [`RECENT`].
#[inline(always)]
fn hold_at(key: HoldKey, kept: u32) -> Option<*const Hold> {
    match kept {
        CURRENT => HOLDS.get_ptr(key),
        OVER | RECENT => ENDED.get_ptr(key),
        _ => match ORPHANS_OF.get_ptr(key) {
            // SAFETY: an element of a hash map can be reused once it is deleted, and another orphan be
            // reported then, which is true as well.
            Some(file) => ORPHANS.get_ptr(unsafe { *file }),
            None => None,
        },
    }
}

/// The inode whose holds a failure reports now: another one where the description is one of overlayfs.
#[inline(always)]
fn inode_reported(sought: *const Sought) -> u64 {
    // SAFETY: a map value, which this task alone uses.
    unsafe { if (*sought).other != 0 { (*sought).other } else { (*sought).inode } }
}

/// Whether a task may have been preempted between the end of its exec and the drop of what that closed,
/// which come within microseconds of each other, and have dropped it after `arrival` only: it has not made
/// another call yet, and got a processor after that time, which is of the scheduler's clock.
#[inline(always)]
fn was_held_up(hold: &Hold, arrival: u64) -> bool {
    hold::may_wait(hold) && kernel::arrival(hold.task) >= arrival
}

/// What [`look`] gives. The fd of the hold has its description.
const SHOWN: u32 = 1;
/// The description waits in the task's work.
const IN_WORKS: u32 = 2;
/// The task of the hold is there.
const LIVES: u32 = 4;
/// The description is open.
const OPEN: u32 = 8;
/// A close(2) of it has not come to its end.
const CLOSING: u32 = 16;
/// Others use the table now: who, is for the search to find out.
const NOT_OWNED: u32 = 32;
/// There is nothing to report.
const NOTHING: u32 = 64;
/// Where a [`Drain`] begins.
const DRAIN: u32 = 8;

/// Looks at what is left of the hold that [`tell_candidate`] is about, with the same arguments: the bits
/// above. A global function: the verifier takes its result for any number, and follows what comes next
/// once, not once for each way through this.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn look(current: u64, slot: u32, kept: u32, user: u64) -> u32 {
    let Some(sought) = SEARCHES.get_ptr(current) else { return NOTHING };
    let inode = inode_reported(sought);
    // SAFETY: a map value, which this task alone uses.
    let (enter_ns, exit_ns) = unsafe { ((*sought).enter_ns, (*sought).exit_ns) };
    let key = HoldKey { inode, slot, pad: 0 };
    let Some(hold) = hold_at(key, kept) else { return NOTHING };
    if user != 0
        && let Some(noted) = HOLDS.get_ptr_mut(key)
    {
        // SAFETY: a map value, see `maps`.
        unsafe { (*noted).reported = 1 };
    }
    // SAFETY: a map value, see `maps`. One that is being noted has no file yet, and is reported then.
    let hold = unsafe { &*hold };
    let file = hold.file;
    if file == 0 {
        return NOTHING;
    }
    let task = if user == 0 { hold.task } else { user };
    let lives = if user == 0 { hold::is_task_of(hold) } else { true };
    let open = kernel::is_open(file, inode);
    let over = kept != CURRENT || hold.stage == Stage::Released as u32;
    let shown = !over & open & (kernel::file_at(hold.table, hold.fd) == file);
    let owned = lives & (kernel::table_of(task) == hold.table);
    if shown && !owned {
        return NOT_OWNED;
    }
    if kept == OUTLIVED && !open {
        return NOTHING;
    }
    let leaves = (hold.last != 0) | (hold.stage == Stage::ExecClosing as u32);
    let leaves = leaves | (hold.stage == Stage::Exiting as u32) | !over;
    // The address may be in use again, by another description.
    let same = kernel::inode_of(file) == inode && kernel::is_writer(file);
    let waits = lives & leaves & same && !shown && (!over || hold::may_wait(hold));
    let in_works = waits && kernel::in_works(task, file);
    let drain = if shown || in_works || !leaves || hold.stage == Stage::Held as u32 {
        0
    } else {
        hold::drain(hold, inode)
    };
    // It was being dropped a moment ago.
    // SAFETY: a map value, which this task alone uses.
    let noted =
        unsafe { (*sought).draining >> (slot & 63) & 1 != 0 } & (hold.released_ns <= exit_ns);
    let drain = if (kept == OVER) & noted & (drain == 0) & !in_works {
        Drain::UnderWay as u32
    } else {
        drain
    };
    // A close that has not come to its end, perhaps for long: it may wait for a flush.
    let closing =
        (kept == OVER) & lives & open & (hold.how == How::Close as u32) & (hold.last != 0)
            && kernel::is_call_on(task, CALLS.load().close, hold.fd);
    let before = hold.released_ns < enter_ns;
    if (kept == OVER) & !in_works & (drain == 0) & !closing & before {
        return NOTHING;
    }
    // (The end of a process is noted when all is dropped.)
    let is_recent = (hold.how == How::CloseOnExec as u32) & (hold.last != 0) & before;
    let is_recent = is_recent & (hold.released_ns + DRAIN_NS > exit_ns);
    // SAFETY: as above.
    let arrival = unsafe { (*sought).arrival };
    if kept == RECENT && !(lives & is_recent && was_held_up(hold, arrival)) {
        return NOTHING;
    }
    shown as u32 * SHOWN
        | in_works as u32 * IN_WORKS
        | lives as u32 * LIVES
        | open as u32 * OPEN
        | closing as u32 * CLOSING
        | drain << DRAIN
}

/// Reports the hold in one place of the inode of current's failure, with what can be seen of it at
/// this moment; `kept` is [`CURRENT`], [`OVER`], [`OUTLIVED`] or [`RECENT`]. One that has ended, and of
/// which nothing is left, is not reported. Gives [`ODD`] if it applies. Unless it is 0, `user` is a task
/// that uses the table, and the record speaks of that one's process. A global function, so that the
/// verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn tell_candidate(current: u64, slot: u32, kept: u32, user: u64) -> i32 {
    let looked = look(current, slot, kept, user);
    if looked & NOTHING != 0 {
        0
    } else if looked & NOT_OWNED != 0 {
        ODD
    } else {
        report(current, slot, kept, user, looked)
    }
}

/// Reports the hold that [`tell_candidate`] is about, as [`look`] has seen it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report(current: u64, slot: u32, kept: u32, user: u64, looked: u32) -> i32 {
    let Some(sought) = SEARCHES.get_ptr_mut(current) else { return 0 };
    let inode = inode_reported(sought);
    let Some(hold) = hold_at(HoldKey { inode, slot, pad: 0 }, kept) else { return 0 };
    // SAFETY: a map value, see `maps`. Its element can be reused between two reads, by another hold of the same inode:
    // within the microsecond that this takes.
    let hold = unsafe { &*hold };
    let (file, task) = (hold.file, if user == 0 { hold.task } else { user });
    let is = |bit: u32| looked & bit != 0;
    let (shown, in_works, closing) = (is(SHOWN), is(IN_WORKS), is(CLOSING));
    let Some(mut entry) = tell::reserve::<Candidate>() else {
        // SAFETY: a map value, which this task alone uses.
        unsafe { (*sought).lost = 1 };
        return 0;
    };
    let told = entry.as_mut_ptr();
    // SAFETY: `told` is the reserved record, `hold` a map value; every field is written before
    // the record is submitted.
    let (odd, became) = unsafe {
        (*told).kind = Kind::Candidate as u32;
        (*told).in_table = shown as u32;
        (*told).in_works = in_works as u32;
        (*told).cloexec = kernel::cloexec_at(hold.table, hold.fd);
        (*told).open = (looked / OPEN) & 1;
        (*told).drain = looked >> DRAIN;
        (*told).kept_by = if closing { KeptBy::Call as u32 } else { 0 };
        (*told).syscall = CALLS.load().close;
        (*told).tid = kernel::int(task, offset!(task_pid));
        (*told).seq = (*sought).seq;
        (*told).inode = inode;
        (*told).pad = 0;
        core::ptr::copy_nonoverlapping(hold, &raw mut (*told).hold, 1);
        if user != 0 {
            share(&raw mut (*told).hold, user);
        }
        let seen = tell::look(&raw const (*told).hold, &raw mut (*told).holder);
        let exec = exec_of(seen);
        // An exec clears the mark before it takes the fd, which may have happened since it was looked at.
        let is_taken = shown && kernel::file_at(hold.table, hold.fd) != file;
        if exec == UNDER_WAY || is_taken {
            (*told).cloexec = CLOEXEC_UNKNOWN;
        } else if exec == DONE && shown && (*told).cloexec == 0 {
            // Its `sched_process_exec` may have been passed over.
            (*told).hold.execed = 1;
        }
        let threads = kernel::int(word(seen, offset!(task_signal)), offset!(signal_nr_threads));
        let odd = shown & (kernel::users_of(hold.table) != threads);
        (*told).ending = (seen != 0 && kernel::is_ending(seen)) as u32;
        // What an event has brought needs no other proof.
        (*told).quiet = if shown & !odd & (hold.found != 0) {
            kernel::quiet_since(seen, (*sought).arrival)
        } else {
            0
        };
        (*told).received_ns = match RECEIVED.get_ptr(hold.table) {
            Some(at) => *at,
            None => 0,
        };
        (*told).closed_ns = hold::closed_ns(inode, file, (*told).hold.opened.time_ns);
        // A child that still has its copy, but another program already: what it was is its parent's.
        let became = (exec != 0) & shown & (hold.forked.time_ns != 0) & (hold.execed == 0);
        (odd, became)
    };
    // SAFETY: as above; kept for the texts.
    let (seq, tgid) = unsafe { ((*sought).seq, (*told).hold.tgid) };
    // What was opened since was not counted then.
    // SAFETY: a map value, which this task alone uses.
    let counted = unsafe { hold.opened.time_ns < (*sought).exit_ns };
    if (shown | closing) & counted {
        note_found(current, file, 1);
    } else if in_works & counted {
        note_found(current, file, 0);
    }
    if closing {
        linger::until_exit(tgid, file, inode);
    } else if in_works && hold.stage == Stage::Released as u32 {
        linger::until_exit(tgid, file, 0);
    }
    entry.submit(QUIET);
    let subject = Subject { seq, tgid };
    if shown | in_works {
        text::file_path(current, TextOf::HolderFile, subject, file);
    }
    if is(LIVES) && kept != OUTLIVED && !became {
        let exe = word(word(task, offset!(task_mm)), offset!(mm_exe_file));
        text::file_path(current, TextOf::HolderExe, subject, exe);
    }
    odd as i32 * ODD
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
    if task == kernel::current() {
        return DONE;
    }
    // `sched_process_exec` takes the table. That the exec began may have been passed over (7.2 on).
    // SAFETY: a map value, see `maps`.
    let begun = EXECS.get_ptr(task).is_some_and(|call| unsafe { (*call).table } != 0);
    let (calls, last) = (CALLS.load(), kernel::last_call(task));
    let execs = begun | (last == calls.execve) | (last == calls.execveat);
    if execs { UNDER_WAY } else { DONE }
}

/// Makes a copy of a hold speak of a task that uses the same table.
///
/// # Safety
///
/// `hold` can be written.
#[inline(always)]
unsafe fn share(hold: *mut Hold, user: u64) {
    let tgid = kernel::tgid_of(user);
    // SAFETY: the caller's promise.
    unsafe {
        (*hold).task = user;
        (*hold).start_ns = word(user, offset!(task_start_time));
        if (*hold).tgid == tgid {
            return;
        }
        (*hold).tgid = tgid;
        (*hold).ppid = kernel::ppid_of(user);
        came_by_fork(hold, user);
    }
}

/// Notes of a hold that a fork brought it to a process, if that was forked while the table it was made
/// from had the fd; else no fork did.
///
/// # Safety
///
/// `hold` can be written.
#[inline(always)]
pub(crate) unsafe fn came_by_fork(hold: *mut Hold, task: u64) {
    let start_ns = word(word(task, offset!(task_group_leader)), offset!(task_start_time));
    // SAFETY: the caller's promise; a map value.
    unsafe {
        match LINEAGE.get_ptr((*hold).tgid) {
            Some(lineage)
                if (*lineage).start_ns == start_ns
                    && (*lineage).forker.time_ns >= (*hold).opened.time_ns
                    && (*hold).opened.time_ns != 0 =>
            {
                (*hold).via = Via::Fork as u32;
                (*hold).forked = (*lineage).forker;
            }
            _ => {
                if (*hold).via == Via::Fork as u32 {
                    (*hold).via = Via::Unknown as u32;
                }
                (*hold).forked.time_ns = 0;
            }
        }
    }
}
