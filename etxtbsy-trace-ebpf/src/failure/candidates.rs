//! The noted holds of the busy inode, as they are when the exec fails.

use etxtbsy_trace_common::{
    CLOEXEC_UNKNOWN, Candidate, DRAIN_NS, Drain, Hold, HoldKey, How, Kind, NEAR_MISS_NS, PinnedBy,
    SLOTS, Stage, TextOf, Via,
};

use crate::{
    emit::{
        holder,
        ringbuf::{self, QUIET},
        text::{self, Subject},
    },
    failure::references,
    holds::{exec, last_drop, origin, pending_release, reaped},
    kernel::{self, offset, syscall, word},
    maps::{ENDED, HOLDS, ORPHANS, ORPHANS_OF, RECEIVED, SEARCHES, SearchState},
};

/// Reports the holds of an inode, then those that have ended. Returns what [`report_candidate`] returns for
/// any of them.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn report_candidates(task: u64) -> i32 {
    let mut flags = 0;
    for slot in 0..SLOTS {
        flags |= report_candidate(task, slot, CURRENT, 0);
    }
    for slot in 0..SLOTS {
        flags |= report_candidate(task, slot, OVER, 0);
    }
    flags
}

/// Reports the holds of an inode that an exec ended a while ago, if the kernel may have dropped their
/// descriptions during the failing call.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn report_recent(task: u64) -> i32 {
    for slot in 0..SLOTS {
        report_candidate(task, slot, RECENT, 0);
    }
    0
}

/// For [`report_candidate`]: a place in `HOLDS`, in `ENDED`, in `ORPHANS`.
pub(crate) const CURRENT: u32 = 0;
const OVER: u32 = 1;
pub(crate) const OUTLIVED: u32 = 2;
/// The same as [`OVER`], for holds that ended a short time ago.
const RECENT: u32 = 3;

/// The table has other users than the threads of the process, or its users are not known.
pub(crate) const ODD: i32 = 2;

/// The hold in a place of an inode; `kept` is [`CURRENT`], [`OVER`], [`OUTLIVED`] or [`RECENT`].
#[inline(always)]
fn hold_at(key: HoldKey, kept: u32) -> Option<*const Hold> {
    match kept {
        CURRENT => HOLDS.get_ptr(key),
        OVER | RECENT => ENDED.get_ptr(key),
        _ => match ORPHANS_OF.get_ptr(key) {
            // SAFETY: a map value, see `maps`. If its element is reused, the program reports another orphan,
            // which is true as well.
            Some(file) => ORPHANS.get_ptr(unsafe { *file }),
            None => None,
        },
    }
}

/// The inode whose holds a failure reports now: another one if the description is one of overlayfs.
#[inline(always)]
fn inode_reported(search: *const SearchState) -> u64 {
    // SAFETY: a map value, which this task alone uses.
    unsafe { if (*search).other != 0 { (*search).other } else { (*search).inode } }
}

/// Whether a task may have been preempted between the end of its exec and the drop of what the exec closed
/// (microseconds as a rule), and have dropped it after `arrival`, a time of the scheduler's clock: the task
/// has made no other call since, and got a CPU after that time.
#[inline(always)]
fn was_held_up(hold: &Hold, arrival: u64) -> bool {
    last_drop::may_wait(hold) && kernel::arrival(hold.task) >= arrival
}

/// Bits that [`inspect`] and [`inspect_end`] return. The fd of the hold has its description.
const SHOWN: u32 = 1;
/// The description waits in the task's work.
const FPUT_PENDING: u32 = 2;
/// The task of the hold lives.
const LIVES: u32 = 4;
/// The description is open.
const OPEN: u32 = 8;
/// A close(2) of it has not ended.
const CLOSING: u32 = 16;
/// Other processes use the table now; the search finds out which.
const NOT_OWNED: u32 = 32;
/// There is nothing to report.
const NOTHING: u32 = 64;
/// Between the two: the drop of its reference may be the end of the description.
const LEAVES: u32 = 128;
/// The first bit of a [`Drain`].
const DRAIN: u32 = 8;

/// Looks at the fd and the task of the hold that [`report_candidate`] is about, with the same arguments, and
/// returns the bits above. A global function, as is [`inspect_end`]: the verifier takes its result for any number, and
/// follows what comes next once, not once for each path through this.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn inspect(current: u64, slot: u32, kept: u32, user: u64) -> u32 {
    let Some(search) = SEARCHES.get_ptr(current) else { return NOTHING };
    let inode = inode_reported(search);
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
    let lives = if user == 0 { kernel::is_task_of(hold) } else { true };
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
    let leaves = (hold.was_last_reference != 0) | (hold.stage == Stage::ExecClosing as u32);
    let leaves = leaves | (hold.stage == Stage::Exiting as u32) | !over;
    // The address may be in use again, by another description.
    let same = kernel::inode_of(file) == inode && kernel::is_writer(file);
    let waits = lives & leaves & same && !shown && (!over || last_drop::may_wait(hold));
    let fput_pending = waits && kernel::is_fput_pending(task, file);
    shown as u32 * SHOWN
        | fput_pending as u32 * FPUT_PENDING
        | lives as u32 * LIVES
        | open as u32 * OPEN
        | leaves as u32 * LEAVES
}

/// Adds to what [`inspect`] has seen of a hold what is left of it after its end.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn inspect_end(current: u64, slot: u32, kept: u32, looked: u32) -> u32 {
    let Some(search) = SEARCHES.get_ptr(current) else { return NOTHING };
    let inode = inode_reported(search);
    // SAFETY: a map value, which this task alone uses.
    let (enter_ns, exit_ns) = unsafe { ((*search).enter_ns, (*search).exit_ns) };
    let Some(hold) = hold_at(HoldKey { inode, slot, pad: 0 }, kept) else { return NOTHING };
    // SAFETY: a map value, see `maps`.
    let hold = unsafe { &*hold };
    let is = |bit: u32| looked & bit != 0;
    let (shown, fput_pending, lives) = (is(SHOWN), is(FPUT_PENDING), is(LIVES));
    let (open, leaves) = (is(OPEN), is(LEAVES));
    let drain = if shown || fput_pending || !leaves || hold.stage == Stage::Held as u32 {
        0
    } else {
        last_drop::drain(hold, inode)
    };
    // The kernel was dropping it a moment ago.
    // SAFETY: a map value, which this task alone uses.
    let noted =
        unsafe { (*search).draining >> (slot & 63) & 1 != 0 } & (hold.released_ns <= exit_ns);
    let drain = if (kept == OVER) & noted & (drain == 0) & !fput_pending {
        Drain::UnderWay as u32
    } else {
        drain
    };
    // A close that has not ended, perhaps for long: it may wait for a flush.
    let closing = (kept == OVER)
        & lives
        & open
        & (hold.how == How::Close as u32)
        & (hold.was_last_reference != 0)
        && kernel::is_call_on(hold.task, syscall!(close), hold.fd);
    let before = hold.released_ns < enter_ns;
    if (kept == OVER) & !fput_pending & (drain == 0) & !closing & before {
        return NOTHING;
    }
    // (The programs note the end of a process when everything is dropped.)
    let is_recent = (hold.how == How::CloseOnExec as u32) & (hold.was_last_reference != 0) & before;
    let is_recent = is_recent & (hold.released_ns + DRAIN_NS > exit_ns);
    // SAFETY: as above.
    let arrival = unsafe { (*search).arrival };
    if kept == RECENT && !(lives & is_recent && was_held_up(hold, arrival)) {
        return NOTHING;
    }
    looked & !LEAVES | closing as u32 * CLOSING | drain << DRAIN
}

/// Reports the hold in one place of the inode of current's failure, as it is now; `kept` is [`CURRENT`],
/// [`OVER`], [`OUTLIVED`] or [`RECENT`]. A hold that has ended, and of which nothing is left, is not
/// reported. Returns [`ODD`] if it applies. Unless it is 0, `user` is a task that uses the table, and the
/// record is about its process.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn report_candidate(current: u64, slot: u32, kept: u32, user: u64) -> i32 {
    let looked = inspect(current, slot, kept, user);
    if looked & NOTHING != 0 {
        return 0;
    }
    if looked & NOT_OWNED != 0 {
        return ODD;
    }
    let looked = inspect_end(current, slot, kept, looked);
    if looked & NOTHING != 0 {
        return 0;
    }
    report_inspected(current, slot, kept, user, looked)
}

/// Reports the hold in one place of the inode that current's exec was of, if it is an inherited copy in another
/// process that ended lately.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn report_copy(current: u64, slot: u32) -> i32 {
    let Some(search) = SEARCHES.get_ptr(current) else { return 0 };
    let inode = inode_reported(search);
    let Some(hold) = hold_at(HoldKey { inode, slot, pad: 0 }, OVER) else { return 0 };
    // SAFETY: map values, see `maps`.
    let (hold, enter_ns) = unsafe { (&*hold, (*search).enter_ns) };
    let is_copy = (hold.via == Via::Fork as u32)
        & (hold.tgid != kernel::tgid_of(current))
        & (hold.released_ns + NEAR_MISS_NS > enter_ns);
    if !is_copy {
        return 0;
    }
    let lives = kernel::is_task_of(hold);
    report_inspected(current, slot, OVER, 0, lives as u32 * LIVES)
}

/// Reports the hold that [`report_candidate`] is about, as [`inspect`] and [`inspect_end`] have seen it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn report_inspected(current: u64, slot: u32, kept: u32, user: u64, looked: u32) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    let inode = inode_reported(search);
    let Some(hold) = hold_at(HoldKey { inode, slot, pad: 0 }, kept) else { return 0 };
    // SAFETY: a map value, see `maps`. Within the microsecond that this takes, its element can be reused by
    // another hold of the same inode.
    let hold = unsafe { &*hold };
    let (file, task) = (hold.file, if user == 0 { hold.task } else { user });
    // Numbers, not truths: where the program branches, the verifier follows both ways to the end.
    let is = |bit: u32| (looked / bit) & 1;
    let (shown, fput_pending, closing) = (is(SHOWN), is(FPUT_PENDING), is(CLOSING));
    let Some(mut entry) = ringbuf::reserve::<Candidate>() else {
        // SAFETY: a map value, which this task alone uses.
        unsafe { (*search).lost = 1 };
        return 0;
    };
    let record = entry.as_mut_ptr();
    // SAFETY: `record` is the reserved record, `hold` a map value; every field is written before
    // the record is submitted.
    let (odd, became) = unsafe {
        (*record).kind = Kind::Candidate as u32;
        (*record).in_table = shown;
        (*record).fput_pending = fput_pending;
        (*record).cloexec = kernel::cloexec_at(hold.table, hold.fd);
        (*record).open = is(OPEN);
        (*record).drain = looked >> DRAIN;
        (*record).pinned_by = closing * PinnedBy::Call as u32;
        (*record).syscall = syscall!(close);
        (*record).tid = kernel::int(task, offset!(task_pid));
        (*record).seq = (*search).seq;
        (*record).inode = inode;
        core::ptr::copy_nonoverlapping(hold, &raw mut (*record).hold, 1);
        if user != 0 {
            share(&raw mut (*record).hold, user);
        }
        let seen = holder::of_hold(&raw const (*record).hold, &raw mut (*record).holder);
        let progress = exec::exec_progress(seen);
        // An exec clears the mark before it takes the fd; both may have happened since [`inspect`] looked.
        let is_taken = shown != 0 && kernel::file_at(hold.table, hold.fd) != file;
        if progress == exec::UNDER_WAY || is_taken {
            (*record).cloexec = CLOEXEC_UNKNOWN;
        } else if progress == exec::DONE && shown != 0 && (*record).cloexec == 0 {
            // The kernel may have skipped the program at its `sched_process_exec`.
            (*record).hold.execed = 1;
        }
        let threads = kernel::int(word(seen, offset!(task_signal)), offset!(signal_nr_threads));
        let odd = shown & (kernel::users_of(hold.table) != threads) as u32;
        (*record).ending = (seen != 0 && kernel::is_ending(seen)) as u32;
        // A hold whose beginning an event showed needs no other proof.
        (*record).quiet = if shown != 0 && odd == 0 && hold.found != 0 {
            kernel::quiet_since(seen, (*search).arrival)
        } else {
            0
        };
        (*record).received_ns = received_ns(hold.table);
        let (since, succeeded) = (hold.acquired_ns, (*search).succeeded);
        (*record).reaped_ns = reaped::when_reaped(hold.tgid, since) * succeeded as u64;
        (*record).reaped_by_victim =
            reaped::has_reaped(current, hold.tgid, since) as u32 * succeeded;
        (*record).closed_ns = origin::closed_ns(inode, file, (*record).hold.opened.time_ns);
        // A child that still has its copy, but runs another program already.
        let became = (progress != 0) & (hold.forked.time_ns != 0) & (hold.execed == 0);
        (odd, became as u32 & shown)
    };
    // SAFETY: as above; kept for the texts.
    let (seq, tgid) = unsafe { ((*search).seq, (*record).hold.tgid) };
    // A description that was opened after the count was not in it.
    // SAFETY: a map value, which this task alone uses.
    let counted = unsafe { hold.opened.time_ns < (*search).exit_ns };
    if (shown | closing) != 0 && counted {
        references::note_found(current, file, 1);
    } else if fput_pending != 0 && counted {
        references::note_found(current, file, 0);
    }
    if closing != 0 {
        pending_release::until_exit(tgid, file, inode);
    } else if fput_pending != 0 && hold.stage == Stage::Released as u32 {
        pending_release::until_exit(tgid, file, 0);
    }
    entry.submit(QUIET);
    let subject = Subject { seq, tgid };
    if (shown | fput_pending) != 0 {
        text::file_path(current, TextOf::HolderFile, subject, file);
    }
    if is(LIVES) != 0 && kept != OUTLIVED && became == 0 {
        let exe = word(word(task, offset!(task_mm)), offset!(mm_exe_file));
        text::file_path(current, TextOf::HolderExe, subject, exe);
    }
    odd as i32 * ODD
}

/// When a table last received an fd from another process; 0 if it has received none. A global function, so that the
/// verifier follows what comes next once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn received_ns(table: u64) -> u64 {
    // SAFETY: a map value, see `maps`.
    RECEIVED.get_ptr(table).map_or(0, |at| unsafe { *at })
}

/// Changes a copy of a hold to be that of a task that uses the same table.
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
        origin::came_by_fork(hold, user);
    }
}
