//! An exec failed with ETXTBSY: which file was busy, and who holds it.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Config, Count, DRAIN_NS, Drain, HoldKey, Lost, SLOTS, TextOf, Watch};

use crate::{
    emit::{
        intake, text,
        victim::{self, Call},
    },
    failure::{candidates, outcome, references},
    holds::{copies, last_drop},
    kernel::{self, FMODE_EXEC, offset, syscall, word},
    maps::{
        ANY, CONFIG, CROWDED, ENDED, EXECS, HOLDS, SEARCHES, SearchState, WATCHED, count, lost,
    },
    stacks, tree,
};

/// How many files an exec can have opened: BINPRM_BUF and `exec_binprm` allow five levels.
const FILES: u32 = 16;

/// The `nth` file in the task's work that was opened to be executed, youngest first; 0 if there
/// are fewer. A global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn opened_file(task: u64, nth: u32) -> u64 {
    let fput = kernel::fput();
    let mut left = nth;
    let mut link = word(task, offset!(task_task_works));
    for _ in 0..FILES {
        if link == 0 {
            break;
        }
        let file = kernel::executed_by(link, fput);
        if file != 0 {
            if left == 0 {
                return file;
            }
            left -= 1;
        }
        link = word(link, offset!(callback_next));
    }
    0
}

/// Calibrates the programs by a failure that a child of the tracer has made. The first entry of the task's
/// work is the file that it tried to execute: that shows the address of `____fput`. The path that it gave
/// shows where the saved registers are.
#[inline(always)]
fn calibrate(task: u64, syscall: i32) {
    let link = word(task, offset!(task_task_works));
    let file = link - offset!(file_task_work) as u64;
    let tracer = CONFIG.get_ptr(Config::Tracer as u32);
    // SAFETY: a map value, see `maps`.
    let is_its_child =
        tracer.is_some_and(|value| unsafe { *value } == kernel::ppid_of(task) as u64);
    if is_its_child
        && kernel::int(file, offset!(file_f_flags)) & FMODE_EXEC != 0
        && let Some(fput) = CONFIG.get_ptr_mut(Config::Fput as u32)
    {
        if let Some(call) = EXECS.get_ptr(task)
            && let Some(at) = CONFIG.get_ptr_mut(Config::Registers as u32)
        {
            // SAFETY: map values, see `maps`; this one is written once.
            unsafe { *at = kernel::find_registers(task, syscall, (*call).path) };
        }
        // SAFETY: a map value, written once.
        unsafe { *fput = word(link, offset!(callback_func)) };
    }
}

/// The user pointer to the path, for an exec at whose entry the kernel skipped the program: its saved
/// registers still have it. A global function, because its caller needs the stack.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn path_asked(task: u64, syscall: i32) -> u64 {
    let is_second = syscall == syscall!(execveat);
    let at = if is_second { offset!(regs_second) } else { offset!(regs_first) };
    word(kernel::registers(task), at)
}

/// [`busy_file`] returns: no file.
const NO_FILE: u32 = u32::MAX;
/// How many files of an exec are looked at for the busy one.
const OPENED: u32 = 4;

/// Which of the files that an exec has opened was busy, youngest first; [`NO_FILE`] if there is none.
///
/// The first is `bprm->file` (or, of a binfmt_misc entry with flag `O` or `C`, `bprm->executable`, and that
/// the second); if an interpreter was refused, that one comes next, then what was opened before. It is the
/// one that has writers: the exec had denied writing to all others. Where none has writers any more, the
/// order decides.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn busy_file(task: u64) -> u32 {
    let mut files = 0;
    for nth in 0..OPENED {
        let file = opened_file(task, nth);
        if file == 0 {
            break;
        }
        files += 1;
        let writers = kernel::int(kernel::inode_of(file), offset!(inode_i_writecount)) as i32;
        if writers > 0 && (nth > 0 || opened_file(task, 1) == 0) {
            return nth;
        }
    }
    match files {
        0 => NO_FILE,
        1 => 0,
        _ => 1,
    }
}

/// How often the count is read until it is the same before and after its time.
const COUNTS: u32 = 4;

/// The `i_writecount` of an inode, and a time at which it had that value: a hold that ends later was counted, and
/// one that began earlier too. The CPU may be taken away for milliseconds between the two (a virtual machine).
#[inline(always)]
fn writers_at(inode: u64) -> (i32, u64) {
    let count = || kernel::int(inode, offset!(inode_i_writecount)) as i32;
    // SAFETY: no arguments.
    let time = || unsafe { bpf_ktime_get_ns() };
    let (mut writers, mut now) = (count(), time());
    for _ in 0..COUNTS {
        let again = count();
        if again == writers {
            break;
        }
        (writers, now) = (again, time());
    }
    (writers, now)
}

/// Reports an exec that failed with ETXTBSY. If the known holders do not account for it, the report has no
/// end yet, and `SEARCHES` has what a search needs. 0 if the failure is of no interest. `path` is the
/// user pointer of a 32-bit call, whose entry no program sees, else 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn report_failure(task: u64, syscall: i32, path: u64) -> i32 {
    let tgid = kernel::tgid_of(task);
    if kernel::fput() == 0 {
        calibrate(task, syscall);
        return 0;
    }
    if !tree::contains(tgid) {
        note_elsewhere(task);
        return 0;
    }
    if !intake::is_taken() {
        return 0;
    }
    if tree::has(tgid) {
        count(Count::ExecsFailed, 1);
    }
    let (enter_ns, path) = match EXECS.get_ptr(task) {
        // SAFETY: a map value, see `maps`.
        Some(call) => unsafe { ((*call).enter_ns, (*call).path) },
        None => (0, if path == 0 { path_asked(task, syscall) } else { path }),
    };
    let nth = busy_file(task);
    let busy = if nth == NO_FILE { 0 } else { opened_file(task, nth) };
    let inode = if busy == 0 { 0 } else { kernel::inode_of(busy) };
    let search = SearchState::begin(task, inode, 0, 0, 0);
    // Before the count, so that it is found if it is counted.
    note_last_copy(task);
    let (writers, now) = writers_at(inode);
    // Without one, the file system itself refused to open the file; user space looks at that.
    if inode != 0 {
        watch(inode, now);
    }
    let opened = if inode == 0 { 0 } else { nth + 1 };
    if let Some(search) = search {
        // SAFETY: a map value, which this task alone uses.
        unsafe {
            (*search).enter_ns = if enter_ns == 0 { now } else { enter_ns };
            (*search).exit_ns = now;
            // Looked up again, because the stack has no room for it.
            (*search).arrival = EXECS.get_ptr(task).map_or(0, |call| (*call).arrival);
            (*search).writers = if writers > 0 { writers as u32 } else { 0 };
        }
        note_draining(task);
    }
    let call = Call { syscall, enter_ns, exit_ns: now };
    let Some(subject) = victim::report(task, &call, inode, opened, writers) else {
        let _ = SEARCHES.remove(task);
        return 0;
    };
    stacks::note_failure(now);
    let Some(search) = search else {
        outcome::end_unknown(subject.seq);
        return 1;
    };
    // SAFETY: as above.
    unsafe { (*search).seq = subject.seq };
    let odd = if inode == 0 { 0 } else { candidates::report_candidates(task) & candidates::ODD };
    if inode != 0 && references::found_files(task) == 0 {
        // The kernel may have dropped the description since it refused the exec.
        candidates::report_recent(task);
    }
    text::file_path(task, TextOf::BusyFile, subject, busy);
    if nth > 0 && inode != 0 {
        // The file that names the busy one as its interpreter.
        text::file_path(task, TextOf::Target, subject, opened_file(task, nth - 1));
    }
    victim::describe(task, subject, path);
    let known = writers <= references::found_files(task) && references::unfound(task) == 0;
    if inode == 0 || (known && odd == 0 && CROWDED.get_ptr(inode).is_none()) {
        outcome::end_failure(task, 0);
    }
    1
}

/// Counts an exec outside the traced tree that failed, if a process of the tree holds the file.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_elsewhere(task: u64) -> i32 {
    let nth = busy_file(task);
    if nth == NO_FILE || !intake::is_tracing() {
        return 0;
    }
    let inode = kernel::inode_of(opened_file(task, nth));
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

/// Notes whether the description of the copy that ended last is being dropped: that takes microseconds, and only this one
/// can have been under way for less.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_last_copy(task: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(task) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let inode = unsafe { (*search).inode };
    let slot = copies::last_slot(inode);
    let draining = (is_draining(inode, slot, 0) as u64 & 1) << slot;
    // SAFETY: as above.
    unsafe { (*search).draining = draining };
    0
}

/// Notes which descriptions are being dropped: at once, because a drop takes a microsecond.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_draining(task: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(task) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let inode = unsafe { (*search).inode };
    // SAFETY: no arguments.
    let since = unsafe { bpf_ktime_get_ns() }.saturating_sub(DRAIN_NS);
    let mut draining = 0;
    for slot in 0..SLOTS {
        draining |= (is_draining(inode, slot, since) as u64 & 1) << slot;
    }
    // SAFETY: as above.
    unsafe { (*search).draining |= draining };
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_draining(inode: u64, slot: u32, since: u64) -> u32 {
    let Some(hold) = ENDED.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let hold = unsafe { &*hold };
    let is_over = hold.released_ns < since || hold.was_last_reference == 0;
    if is_over || kernel::references(hold.file) != 0 {
        return 0;
    }
    let drain = last_drop::drain(hold, inode);
    let same = kernel::inode_of(hold.file) == inode && kernel::is_writer(hold.file);
    let waits = same && kernel::is_task_of(hold) && last_drop::may_wait(hold);
    let waits = waits && kernel::is_fput_pending(hold.task, hold.file);
    (drain == Drain::UnderWay as u32 || waits) as u32
}

/// Has the programs report what happens to an inode from now on.
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
