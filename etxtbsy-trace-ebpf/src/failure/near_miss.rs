//! An exec succeeded: whether it may have failed.
//!
//! It may have if another process had a copy of a write fd of the file, by a fork, a short time ago: the same race
//! as that of an exec that fails, won by luck. Here: which copies there were, and when they ended. What follows from
//! that is decided in user space.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{Config, Count, HoldKey, Lost, NEAR_MISS_NS, SLOTS, TextOf};

use crate::{
    emit::{
        intake, text,
        victim::{self, Call},
    },
    failure::{candidates, outcome},
    holds::{copies, runs},
    kernel::{self, offset, word},
    maps::{CONFIG, ENDED, EXECS, PACE, SEARCHES, SearchState, count, lost},
    tree,
};

/// How many near misses are reported in one period, and how long that is: 2^27 ns, 134 ms.
const AT_ONCE: u64 = 512;
const PERIOD: u32 = 27;

/// Counts an exec of current that has succeeded, and reports it if it may have failed. A global function, so that the
/// verifier does not follow it together with what is done about one that has failed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_success(task: u64, syscall: i32) -> i32 {
    let tgid = kernel::tgid_of(task);
    if !tree::has(tgid) || !intake::is_tracing() {
        return 0;
    }
    count(Count::Execs, 1);
    let Some(call) = EXECS.get_ptr(task) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let (enter_ns, exe_before) = unsafe { ((*call).enter_ns, (*call).exe) };
    // A script waits in the task's work, and the program is its interpreter. `inner` is a script too, the interpreter
    // of `script`.
    let program = word(word(task, offset!(task_mm)), offset!(mm_exe_file));
    let is_script = runs::is_script(tgid, word(task, offset!(task_start_time)));
    let script = if is_script { executed_file(task, 0) } else { 0 };
    let inner = if script != 0 { executed_file(task, 1) } else { 0 };
    let inner = if inner == exe_before { 0 } else { inner };
    let target = if script != 0 { script } else { program };
    if has_changed(kernel::inode_of(target)) {
        count(Count::ExecsOfWritten, 1);
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let file = if had_copy(target, now) {
        target
    } else if script != 0 && had_copy(program, now) {
        program
    } else if inner != 0 && had_copy(inner, now) {
        inner
    } else {
        return 0;
    };
    if !is_within_pace(now) || !intake::has_room() {
        lost(Lost::NearMissUnreported);
        return 0;
    }
    let inode = kernel::inode_of(file);
    let Some(search) = SearchState::begin(task, inode, 0, 0, 0) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    unsafe {
        (*search).enter_ns = enter_ns;
        (*search).exit_ns = now;
        (*search).succeeded = 1;
    }
    let mut last_open_ns = 0;
    for slot in 0..SLOTS {
        let opened_ns = opened_at(inode, slot);
        if opened_ns > last_open_ns {
            last_open_ns = opened_ns;
        }
    }
    // Copies of what was open before count no more.
    if copies::last_end(inode) < last_open_ns {
        let _ = SEARCHES.remove(task);
        return 0;
    }
    // The new program's stack has the path that the exec was given, after the environment.
    let mm = word(task, offset!(task_mm));
    let path = word(mm, offset!(mm_env_end));
    let call = Call { syscall, enter_ns, exit_ns: now };
    let opened = if file == target { 1 } else { 2 };
    let Some(subject) = victim::report_near_miss(task, &call, inode, opened, last_open_ns) else {
        let _ = SEARCHES.remove(task);
        return 0;
    };
    // SAFETY: as above.
    unsafe { (*search).seq = subject.seq };
    for slot in 0..SLOTS {
        candidates::report_copy(task, slot);
    }
    text::file_path(task, TextOf::BusyFile, subject, file);
    if file != target {
        text::file_path(task, TextOf::Target, subject, target);
    }
    victim::describe(task, subject, path);
    outcome::end_failure(task, 0);
    0
}

/// How many entries of a task's work are looked at: so many parts of so many.
const PARTS: u32 = 16;
const WORKS: u32 = 16;

/// The `nth` file in the task's work that was opened to be executed, oldest first, of the first two; 0 if there is none.
/// After an exec of a script, the first is the script. Younger are an interpreter that is a script too, the files of the
/// program before (`exec_mmap`: its own, its dynamic linker), and those that were close-on-exec (`do_close_on_exec`). A
/// global function, so that the verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn executed_file(task: u64, nth: u32) -> u64 {
    let (mut oldest, mut second) = (0, 0);
    let mut link = word(task, offset!(task_task_works));
    for _ in 0..PARTS {
        if link == 0 {
            return if nth == 0 { oldest } else { second };
        }
        let file = executed_in_part(link, 0);
        if file != 0 {
            let next = executed_in_part(link, 1);
            second = if next != 0 { next } else { oldest };
            oldest = file;
        }
        link = part_after(link);
    }
    if link != 0 {
        // The oldest was not reached.
        lost(Lost::NearMissUnreported);
        return 0;
    }
    if nth == 0 { oldest } else { second }
}

/// The `nth` file that was opened to be executed in the part of a list of work that begins with `link`, oldest first, of
/// the first two; 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn executed_in_part(link: u64, nth: u32) -> u64 {
    let fput = kernel::fput();
    let (mut oldest, mut second) = (0, 0);
    let mut link = link;
    for _ in 0..WORKS {
        if link == 0 {
            break;
        }
        let file = kernel::executed_by(link, fput);
        if file != 0 {
            second = oldest;
            oldest = file;
        }
        link = word(link, offset!(callback_next));
    }
    if nth == 0 { oldest } else { second }
}

/// Where the next part of a list of work begins; 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn part_after(link: u64) -> u64 {
    let mut link = link;
    for _ in 0..WORKS {
        if link == 0 {
            break;
        }
        link = word(link, offset!(callback_next));
    }
    link
}

/// Whether an inode has changed since tracing began: a write sets its `i_ctime`.
#[inline(always)]
fn has_changed(inode: u64) -> bool {
    let Some(began) = CONFIG.get_ptr(Config::BeganReal as u32) else { return false };
    // From 6.13 on, the highest bit says whether someone has asked for the time (`I_CTIME_QUERIED`).
    let nsec = kernel::int(inode, offset!(inode_ctime_nsec)) & !(1 << 31);
    let changed = word(inode, offset!(inode_ctime_sec)) * 1_000_000_000 + nsec as u64;
    // SAFETY: a map value, written before tracing begins.
    changed >= unsafe { *began }
}

/// Whether an inherited write fd of a file has ended a short time ago.
#[inline(always)]
fn had_copy(file: u64, now: u64) -> bool {
    let ended_ns = copies::last_end(kernel::inode_of(file));
    ended_ns != 0 && ended_ns + NEAR_MISS_NS > now
}

/// Whether not too many were reported in this period.
#[inline(always)]
fn is_within_pace(now: u64) -> bool {
    let (Some(period), Some(reported)) = (PACE.get_ptr_mut(0), PACE.get_ptr_mut(1)) else {
        return false;
    };
    // SAFETY: map values; two that write them at once report one more or less.
    unsafe {
        if *period != now >> PERIOD {
            *period = now >> PERIOD;
            *reported = 0;
        }
        *reported += 1;
        *reported <= AT_ONCE
    }
}

/// When the description of an ended hold was opened, if that was seen.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn opened_at(inode: u64, slot: u32) -> u64 {
    match ENDED.get_ptr(HoldKey { inode, slot, pad: 0 }) {
        // SAFETY: a map value, see `maps`.
        Some(hold) => unsafe { (*hold).opened.time_ns },
        None => 0,
    }
}
