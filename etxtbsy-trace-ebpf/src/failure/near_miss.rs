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
    failure::{candidates, exec_failed::opened_file, outcome},
    holds::copies,
    kernel::{self, offset, word},
    maps::{CONFIG, ENDED, EXECS, PACE, SEARCHES, SearchState, count, lost},
    tree,
};

/// How many near misses are reported in one period, and how long that is: 2^27 ns, 134 ms.
const AT_ONCE: u64 = 512;
const PERIOD: u32 = 27;

/// Counts an exec of current that has succeeded, and reports it if it may have failed.
#[inline(always)]
pub(crate) fn note(task: u64, syscall: i32) {
    let tgid = kernel::tgid_of(task);
    if !tree::has(tgid) || !intake::is_tracing() {
        return;
    }
    count(Count::Execs, 1);
    // A script waits in the task's work, and the program is its interpreter. `nth`: of scripts of scripts.
    let program = word(word(task, offset!(task_mm)), offset!(mm_exe_file));
    let fput = match CONFIG.get_ptr(Config::Fput as u32) {
        // SAFETY: a map value, see `maps`.
        Some(fput) => unsafe { *fput },
        None => 0,
    };
    let inner = if fput == 0 { 0 } else { opened_file(task, fput, 0) };
    let outer = if inner == 0 { 0 } else { opened_file(task, fput, 1) };
    let target = if outer != 0 {
        outer
    } else if inner != 0 {
        inner
    } else {
        program
    };
    if has_changed(kernel::inode_of(target)) {
        count(Count::ExecsOfWritten, 1);
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let file = if had_copy(target, now) {
        target
    } else if inner != 0 && had_copy(program, now) {
        program
    } else if outer != 0 && had_copy(inner, now) {
        inner
    } else {
        return;
    };
    let Some(call) = EXECS.get_ptr(task) else { return };
    // SAFETY: a map value, see `maps`.
    let enter_ns = unsafe { (*call).enter_ns };
    if !is_within_pace(now) || !intake::has_room() {
        lost(Lost::NearMissUnreported);
        return;
    }
    let inode = kernel::inode_of(file);
    let Some(search) = SearchState::begin(task, inode, 0, 0, 0) else { return };
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
        return;
    }
    // The new program's stack has the path that the exec was given, after the environment.
    let mm = word(task, offset!(task_mm));
    let path = word(mm, offset!(mm_env_end));
    let call = Call { syscall, enter_ns, exit_ns: now, path };
    let opened = if file == target { 1 } else { 2 };
    let Some(subject) = victim::report_near_miss(task, &call, inode, opened, last_open_ns) else {
        let _ = SEARCHES.remove(task);
        return;
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
