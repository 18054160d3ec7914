//! The ledger in the kernel: which fd of which table holds which inode open for writing.
//!
//! A hold stands in `HOLDS` under its inode and a place, so that a failing exec finds the holds
//! of its inode by looking at 64 keys, whatever else is open on the machine. Inserting with
//! NOEXIST makes a place belong to one holder without a lock. `FD_WORDS` leads from an fd to its
//! hold. A hold that ends goes to `ENDED` first and leaves `HOLDS` second: a failing exec, which
//! marks the inode as watched, then reads `HOLDS`, then `ENDED`, misses none.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{
    Actor, FDS_PER_WORD, FdWord, FdWordKey, Hold, HoldKey, How, Kind, Lost, PROBES, SLOTS, Stage,
    Table, Via,
};

use crate::{
    kernel::{self, CALLS, offset},
    maps::{
        ANY, CROWDED, EEXIST, ENDED, FD_WORDS, HOLDS, NOEXIST, ORPHANS, ORPHANS_OF, TABLES, ZERO,
        lost,
    },
    tell,
    walk::{END, FOUND, in_parts},
};

const FDS: u32 = FDS_PER_WORD as u32;

/// Writes a hold that begins now, or at another time: an fd of `task`'s table that refers to
/// `file`. Nothing is known of its origin yet. All but [`Hold::file`], which the caller writes
/// last: who finds one without takes it for none. Field by field, for want of stack.
///
/// # Safety
///
/// `hold` can be written, and is zeros as yet.
#[inline(always)]
pub(crate) unsafe fn begin(
    hold: *mut Hold,
    task: u64,
    table: u64,
    fd: u32,
    file: u64,
    via: Via,
    acquired_ns: u64,
) {
    let inode = kernel::inode_of(file);
    // SAFETY: the caller's promise.
    unsafe {
        (*hold).inode = inode;
        (*hold).ino = kernel::word(inode, offset!(inode_i_ino));
        (*hold).table = table;
        (*hold).task = task;
        (*hold).start_ns = kernel::word(task, offset!(task_start_time));
        (*hold).acquired_ns = acquired_ns;
        (*hold).tgid = kernel::tgid_of(task);
        (*hold).ppid = kernel::ppid_of(task);
        (*hold).fd = fd;
        (*hold).flags = kernel::int(file, offset!(file_f_flags));
        (*hold).via = via as u32;
        (*hold).stage = Stage::Held as u32;
        (*hold).generation = kernel::int(inode, offset!(inode_i_generation));
    }
}

/// Where the search for a place begins: holders of one inode spread over its places.
#[inline(always)]
fn home(table: u64, fd: u32) -> u32 {
    // Objects of a slab differ in their middle bits.
    ((table >> 6) as u32 ^ (table >> 14) as u32).wrapping_add(fd.wrapping_mul(7))
}

/// Where an fd's hold is noted.
#[inline(always)]
fn place(table: u64, fd: u32) -> Option<*mut HoldKey> {
    let word = FD_WORDS.get_ptr_mut(FdWordKey { table, word: fd / FDS, pad: 0 })?;
    // SAFETY: the index is within the array.
    Some(unsafe { (&raw mut (*word).at).cast::<HoldKey>().add((fd % FDS) as usize) })
}

/// The hold of an fd.
#[inline(always)]
pub(crate) fn key_at(table: u64, fd: u32) -> Option<HoldKey> {
    let place = place(table, fd)?;
    // SAFETY: a map value, see `maps`.
    let key = unsafe { *place };
    (key.inode != 0).then_some(key)
}

/// Who opened the description at an fd, for one that inherits it: from the hold that the fd has,
/// or had until a moment ago. Leaves `opener` as it is if that is not known.
///
/// Gives when the fd ended there, if it did and the table does not show the description at it again;
/// else 0.
#[inline(always)]
pub(crate) fn find_opener(opener: &mut Actor, table: u64, fd: u32, file: u64, inode: u64) -> u64 {
    if let Some(key) = key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
        // SAFETY: a map value, see `maps`.
        && unsafe { (*hold).file } == file
    {
        // SAFETY: a map value, see `maps`.
        *opener = unsafe { (*hold).opened };
        return 0;
    }
    let slot = ended_at(table, fd, file, inode);
    let Some(hold) = ENDED.get_ptr(HoldKey { inode, slot: slot as u32, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    unsafe {
        *opener = (*hold).opened;
        if kernel::file_at(table, fd) == file { 0 } else { (*hold).released_ns }
    }
}

/// The place in `ENDED` of the hold that an fd had; [`SLOTS`] if there is none.
///
/// A global function, as are the others here that are `extern "C"`: the verifier checks each
/// once, and not again for every path that leads to it. What they take and give are numbers:
/// kernels before 5.13 know no pointers there.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ended_at(table: u64, fd: u32, file: u64, inode: u64) -> u64 {
    let home = home(table, fd);
    for probe in 0..PROBES {
        let slot = home.wrapping_add(probe) % SLOTS;
        if let Some(hold) = ENDED.get_ptr(HoldKey { inode, slot, pad: 0 })
            // SAFETY: a map value, see `maps`.
            && unsafe { (*hold).file == file && (*hold).table == table && (*hold).fd == fd }
        {
            return slot as u64;
        }
    }
    SLOTS as u64
}

/// Whether the task of a hold is still the one that it was: a `task_struct` is freed and used
/// again.
#[inline(always)]
pub(crate) fn is_task_of(hold: &Hold) -> bool {
    (kernel::tgid_of(hold.task) == hold.tgid)
        & (kernel::word(hold.task, offset!(task_start_time)) == hold.start_ns)
}

/// How long the drop of a last reference may take that is not the end of an exec or of a process, in
/// nanoseconds; its address may be in use again after that.
const DROP_NS: u64 = 1_000_000;
/// The same for close(2), counted from its entry.
const CLOSE_NS: u64 = 20_000;

/// Whether the task of a hold that is over may still be in the call that ended it. What waits in its
/// work later is another description, at an address that is in use again.
#[inline(always)]
pub(crate) fn may_wait(hold: &Hold) -> bool {
    may_be_in_call(hold.task, hold.how, hold.fd, hold.released_ns) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn may_be_in_call(task: u64, how: u32, fd: u32, released_ns: u64) -> i32 {
    let calls = CALLS.load();
    let may_be = if how == How::Close as u32 {
        kernel::is_call_on(task, calls.close, fd)
    } else if how == How::CloseOnExec as u32 {
        kernel::in_call(task, calls.execve) || kernel::in_call(task, calls.execveat)
    } else {
        // SAFETY: no arguments.
        how == How::Exit as u32 || released_ns + DROP_NS >= unsafe { bpf_ktime_get_ns() }
    };
    may_be as i32
}

/// How far the drop of a last reference has come that no list of work shows: a
/// [`etxtbsy_trace_common::Drain`].
#[inline(always)]
pub(crate) fn drain(hold: &Hold, inode: u64) -> u32 {
    let over = hold.stage == Stage::Released as u32;
    let closing = hold.stage == Stage::ExecClosing as u32;
    let how = if closing { How::CloseOnExec as u32 } else { hold.how };
    // The end of a process is noted when all is dropped.
    if over & (how == How::Exit as u32) {
        return 0;
    }
    if over & (how != How::CloseOnExec as u32) {
        // SAFETY: no arguments.
        let now = unsafe { bpf_ktime_get_ns() };
        let limit = if how == How::Close as u32 { CLOSE_NS } else { DROP_NS };
        if hold.released_ns + limit < now {
            return 0;
        }
    }
    if how == How::Close as u32 && !kernel::is_call_on(hold.task, CALLS.load().close, hold.fd) {
        return 0;
    }
    kernel::drain_of(hold.task, hold.file, inode, how)
}

/// Finds out who opened the description of a hold that came otherwise than by open or fork, and
/// how this process came to it, if it has other fds of it.
#[inline(always)]
pub(crate) fn find_origin(hold: &mut Hold, file: u64) {
    let inode = hold.inode;
    let slot = other_at(inode, file, hold.tgid) as u32;
    if let Some(own) = HOLDS.get_ptr(HoldKey { inode, slot, pad: 0 }) {
        // SAFETY: a map value, see `maps`.
        let own = unsafe { &*own };
        hold.opened = own.opened;
        hold.forked = own.forked;
        if hold.via == Via::Unknown as u32 {
            hold.via = own.via;
        }
    }
    if hold.opened.time_ns == 0 {
        let slot = other_at(inode, file, 0) as u32;
        if let Some(other) = HOLDS.get_ptr(HoldKey { inode, slot, pad: 0 }) {
            // SAFETY: a map value, see `maps`.
            hold.opened = unsafe { (*other).opened };
        }
    }
    // What a task is opening now may have an address that was another description's.
    if hold.opened.time_ns == 0
        && !kernel::is_open_call(kernel::last_call(hold.task))
        && let Some(orphan) = ORPHANS.get_ptr(file)
        // SAFETY: a map value, see `maps`.
        && unsafe {
            (*orphan).file == file
                && (*orphan).flags == hold.flags
                && (*orphan).ino == hold.ino
                && (*orphan).generation == hold.generation
        }
    {
        // SAFETY: as above.
        hold.opened = unsafe { (*orphan).opened };
    }
}

/// When the opener of a description closed its own fd of it, which something else outlived; 0 if
/// that was not seen.
#[inline(always)]
pub(crate) fn closed_ns(inode: u64, file: u64, opened_ns: u64) -> u64 {
    match ORPHANS.get_ptr(file) {
        // SAFETY: a map value, see `maps`.
        Some(orphan)
            if unsafe { (*orphan).inode == inode && (*orphan).opened.time_ns == opened_ns } =>
        {
            // SAFETY: as above.
            unsafe { (*orphan).released_ns }
        }
        _ => 0,
    }
}

/// The place of a hold of the same description: one of that process, or, if `tgid` is 0, one whose
/// opener is known. [`SLOTS`] if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn other_at(inode: u64, file: u64, tgid: u32) -> u64 {
    for slot in 0..SLOTS {
        if is_other(inode, slot, file, tgid) != 0 {
            return slot as u64;
        }
    }
    SLOTS as u64
}

/// Of [`other_at`], a place; a function of its own, which the verifier follows once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_other(inode: u64, slot: u32, file: u64, tgid: u32) -> i32 {
    let Some(other) = HOLDS.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let other = unsafe { &*other };
    // One whose process is ending may be gone, and its address in use again.
    let same = (other.file == file) & (other.stage == Stage::Held as u32);
    let wanted = if tgid == 0 { other.opened.time_ns != 0 } else { other.tgid == tgid };
    (same & wanted) as i32
}

/// Where a description that outlives its opener's fd is found by its inode.
#[inline(always)]
fn orphan_key(inode: u64, file: u64) -> HoldKey {
    // Objects of a slab differ in their middle bits.
    HoldKey {
        inode,
        slot: ((file >> 6) ^ (file >> 10)) as u32 % etxtbsy_trace_common::ORPHANS,
        pad: 0,
    }
}

/// Notes current as the opener of a description that has no fd, as if that had been closed.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_outlived(file: u64, fd: u32) -> i32 {
    let Some(zero) = ZERO.get_ptr(0) else { return 0 };
    // SAFETY: a map value of zeros, at least as large as a hold.
    let _ = ORPHANS.insert(file, unsafe { &*zero.cast::<Hold>() }, ANY);
    let Some(hold) = ORPHANS.get_ptr_mut(file) else { return 0 };
    let task = kernel::current();
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a map value, of zeros.
    unsafe {
        begin(hold, task, 0, fd, file, Via::Unknown, now);
        (*hold).opened = kernel::actor(task, now);
        (*hold).stage = Stage::Released as u32;
        (*hold).file = file;
    }
    0
}

/// Notes a hold: an fd of `task`'s table that refers to `file`. `more` adds what else is known of
/// it.
#[inline(always)]
pub(crate) fn acquire(
    task: u64,
    table: u64,
    fd: u32,
    file: u64,
    via: Via,
    acquired_ns: u64,
    more: impl FnOnce(&mut Hold),
) {
    let inode = kernel::inode_of(file);
    let slot = take_place(inode, table, fd, kernel::tgid_of(task)) as u32;
    let Some(hold) = HOLDS.get_ptr_mut(HoldKey { inode, slot, pad: 0 }) else { return };
    // SAFETY: a map value; others pass over it as long as it has no file.
    unsafe {
        begin(hold, task, table, fd, file, via, acquired_ns);
        more(&mut *hold);
        (&raw mut (*hold).file).write_volatile(file);
    }
    publish(inode, slot, table, fd);
}

/// Takes a place for a hold of an fd in `HOLDS`, which has no file there yet; [`SLOTS`] if there
/// is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn take_place(inode: u64, table: u64, fd: u32, tgid: u32) -> u64 {
    let words = fd / FDS;
    match TABLES.get_ptr_mut(table) {
        // SAFETY: a map value; two threads may write it at once, and each then writes a word
        // that covers its own fd or finds a larger one.
        Some(seen) => unsafe {
            (*seen).tgid = tgid;
            if (*seen).max_word < words {
                (*seen).max_word = words;
            }
        },
        None => {
            if TABLES.insert(table, Table { tgid, max_word: words }, ANY).is_err() {
                lost(Lost::HoldsFull);
                return SLOTS as u64;
            }
        }
    }
    let Some(zero) = ZERO.get_ptr(0) else { return SLOTS as u64 };
    let at = match place(table, fd) {
        Some(at) => at,
        None => {
            let key = FdWordKey { table, word: words, pad: 0 };
            // SAFETY: a map value of zeros, at least as large as a word.
            // Another thread may have made it meanwhile; then it is there all the same.
            let _ = FD_WORDS.insert(key, unsafe { &*zero.cast::<FdWord>() }, NOEXIST);
            match place(table, fd) {
                Some(at) => at,
                None => {
                    lost(Lost::HoldsFull);
                    return SLOTS as u64;
                }
            }
        }
    };
    // SAFETY: a map value; this fd was free until now, so no other thread acts on it.
    let before = unsafe { *at };
    if before.inode != 0 {
        // The fd was closed on a way that is not watched, or its table was freed and taken anew.
        end(before, How::None, 0);
        // SAFETY: as above.
        unsafe { *at = HoldKey { inode: 0, slot: 0, pad: 0 } };
    }
    let home = home(table, fd);
    for probe in 0..PROBES {
        let key = HoldKey { inode, slot: home.wrapping_add(probe) % SLOTS, pad: 0 };
        // SAFETY: a map value of zeros, at least as large as a hold.
        match HOLDS.insert(key, unsafe { &*zero.cast::<Hold>() }, NOEXIST) {
            Ok(()) => return key.slot as u64,
            Err(EEXIST) => {}
            Err(_) => {
                lost(Lost::HoldsFull);
                return SLOTS as u64;
            }
        }
    }
    // What concerns one file only is reported with a failure about that file.
    let _ = CROWDED.insert(inode, 1, ANY);
    SLOTS as u64
}

/// Leads from an fd to its hold, which is written.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn publish(inode: u64, slot: u32, table: u64, fd: u32) -> i32 {
    if let Some(at) = place(table, fd) {
        // SAFETY: a map value; no other thread acts on an fd that has just been made.
        unsafe { *at = HoldKey { inode, slot, pad: 0 } };
    }
    tell::change(Kind::Acquired, inode, slot);
    0
}

/// Ends a hold: to `ENDED`, out of `HOLDS`, told if its inode is watched.
#[inline(always)]
pub(crate) fn end(key: HoldKey, how: How, last: u32) {
    finish(key.inode, key.slot, how as u32, last);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn finish(inode: u64, slot: u32, how: u32, last: u32) -> i32 {
    let key = HoldKey { inode, slot, pad: 0 };
    let Some(kept) = HOLDS.get_ptr_mut(key) else { return 0 };
    // SAFETY: a map value, see `maps`. It is changed in place, for want of stack; a failure that reads it
    // meanwhile finds it again among the ended ones, and takes the two for one.
    let hold = unsafe { &mut *kept };
    // SAFETY: no arguments.
    hold.released_ns = unsafe { bpf_ktime_get_ns() };
    hold.how = if hold.stage == Stage::Exiting as u32 { How::Exit as u32 } else { how };
    hold.last |= last;
    hold.stage = Stage::Released as u32;
    if hold.last == 0 && hold.via == Via::Open as u32 {
        // If there is no room, its opener is not known later.
        let _ = ORPHANS.insert(hold.file, &*hold, ANY);
        let _ = ORPHANS_OF.insert(orphan_key(inode, hold.file), &hold.file, ANY);
    }
    let slot = ended_slot(inode, hold);
    // It can only fail for want of memory; the hold is then not found by a failure just ahead.
    if ENDED.insert(HoldKey { inode, slot, pad: 0 }, &*hold, ANY).is_err() {
        lost(Lost::HoldsFull);
    }
    let _ = HOLDS.remove(key);
    tell::change(Kind::Released, inode, slot);
    1
}

/// How long an ended hold is kept and told of, in nanoseconds: its description may still be open,
/// for the task that let go of it last may be preempted on its way.
pub(crate) const KEEP_NS: u64 = 500_000_000;

/// The place of an ended hold: one that is free, or has an earlier hold of the same fd, or one
/// that ended long ago. (Its place in `HOLDS` may be taken again before that.)
#[inline(always)]
fn ended_slot(inode: u64, hold: &Hold) -> u32 {
    let home = home(hold.table, hold.fd);
    for probe in 0..PROBES {
        let slot = home.wrapping_add(probe) % SLOTS;
        let Some(other) = ENDED.get_ptr(HoldKey { inode, slot, pad: 0 }) else { return slot };
        // SAFETY: a map value, see `maps`.
        let other = unsafe { &*other };
        if (other.table == hold.table && other.fd == hold.fd)
            || other.released_ns + KEEP_NS < hold.released_ns
        {
            return slot;
        }
    }
    home % SLOTS
}

/// Ends the hold of an fd.
#[inline(always)]
pub(crate) fn release(table: u64, fd: u32, how: How, last: u32) {
    let Some(at) = place(table, fd) else { return };
    // SAFETY: a map value, see `maps`.
    let key = unsafe { *at };
    if key.inode == 0 {
        return;
    }
    // In this order: a fork that copies the fd meanwhile finds its hold, or its end.
    end(key, how, last);
    // SAFETY: a map value, see `maps`.
    unsafe { *at = HoldKey { inode: 0, slot: 0, pad: 0 } };
}

/// Ends the hold of an fd that is about to be closed.
#[inline(always)]
pub(crate) fn release_closing(table: u64, fd: u32) {
    if let Some(key) = key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr_mut(key)
    {
        // SAFETY: a map value, see `maps`.
        let file = unsafe { (*hold).file };
        if kernel::file_at(table, fd) == file {
            let task = kernel::current();
            // Who closes it: whether that is over shows in its task.
            // SAFETY: a map value, see `maps`.
            unsafe {
                (*hold).task = task;
                (*hold).start_ns = kernel::word(task, offset!(task_start_time));
            }
            release(table, fd, How::Close, kernel::is_last_reference(file) as u32);
        } else {
            // It was closed on a way that is not watched, and this is another file at its place.
            release(table, fd, How::None, 0);
        }
    }
}

/// What has happened to a table, for which its holds are walked.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// The table has lost fds to an exec: marks those whose last reference waits in the task's
    /// work, ends the others.
    Closing = 0,
    /// That exec returns: ends the marked ones.
    Closed = 1,
    /// The table has lost fds to close_range: ends those.
    Range = 2,
    /// Its last user is about to exit: marks all.
    Exiting = 3,
    /// Its files are gone: ends all, and forgets the table.
    Exited = 4,
}

/// How many words of a table one call of [`walk_words`] goes through, and how many such calls a
/// walk makes at the most: 131,072 fds.
const SOME: u32 = 64;
const MOST: u32 = 32;

/// Does what follows from `what` with every hold of a table of process `tgid`, on behalf of
/// `task`; whether any were gone or marked.
#[inline(always)]
pub(crate) fn walk(table: u64, task: u64, tgid: u32, what: Event) -> bool {
    TABLES.get_ptr(table).is_some()
        && walk_table(table, task, (tgid as u64) << 32 | what as u64) != 0
}

/// [`walk`]; `about` is the process and, in its lower half, an [`Event`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_table(table: u64, task: u64, about: u64) -> i32 {
    in_parts(MOST, SOME, |from| walk_words(table, task, about, from))
}

/// Of a walk: a hold was gone, or has been marked.
const MARKED: i32 = FOUND;

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_words(table: u64, task: u64, about: u64, from: u32) -> i32 {
    let Some(seen) = TABLES.get_ptr(table) else { return END };
    // SAFETY: a map value, see `maps`.
    let max_word = unsafe { (*seen).max_word };
    let mut marked = 0;
    for word in 0..SOME {
        if from + word > max_word {
            return marked | END;
        }
        marked |= walk_word(table, task, about, from + word) & MARKED;
    }
    marked
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_word(table: u64, task: u64, about: u64, word: u32) -> i32 {
    let key = FdWordKey { table, word, pad: 0 };
    let Some(holds) = FD_WORDS.get_ptr(key) else { return 0 };
    let mut marked = 0;
    for fd in 0..FDS {
        // SAFETY: a map value, and an index within the array.
        if unsafe { (*holds).at[fd as usize].inode } != 0 {
            marked |= walk_fd(table, task, about, word * FDS + fd) & MARKED;
        }
    }
    if about as u32 == Event::Exited as u32
        && let Some(seen) = TABLES.get_ptr(table)
        // SAFETY: a map value, see `maps`. The word goes, unless the table has a new owner.
        && unsafe { (*seen).tgid } == (about >> 32) as u32
    {
        let _ = FD_WORDS.remove(key);
    }
    marked
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_fd(table: u64, task: u64, about: u64, fd: u32) -> i32 {
    let (tgid, what) = ((about >> 32) as u32, about as u32);
    let Some(key) = key_at(table, fd) else { return 0 };
    let Some(hold) = HOLDS.get_ptr_mut(key) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let kept = unsafe { &mut *hold };
    // A table at this address may have been another process's, whose end was not seen.
    if kept.tgid != tgid && what == Event::Closing as u32 {
        return 0;
    }
    let gone = kernel::file_at(table, fd) != kept.file;
    let start_ns = kernel::word(task, offset!(task_start_time));
    if what == Event::Exiting as u32 {
        kept.stage = Stage::Exiting as u32;
        kept.start_ns = start_ns;
        kept.last = kernel::is_last_reference(kept.file) as u32;
        kept.task = task;
        return MARKED;
    }
    if what == Event::Closing as u32 {
        if !gone {
            kept.execed = 1;
            return 0;
        }
        kept.task = task;
        kept.start_ns = start_ns;
        if kernel::in_works(task, kept.file) {
            kept.stage = Stage::ExecClosing as u32;
        } else {
            release(table, fd, How::CloseOnExec, 0);
        }
        return MARKED;
    }
    if what == Event::Closed as u32 {
        if kept.stage == Stage::ExecClosing as u32 {
            release(table, fd, How::CloseOnExec, 1);
        }
    } else if what == Event::Range as u32 {
        if gone {
            let last = kernel::in_works(task, kept.file) as u32;
            kept.task = task;
            kept.start_ns = start_ns;
            release(table, fd, How::CloseRange, last);
        }
    } else if kept.stage == Stage::Exiting as u32 && kept.task == task {
        release(table, fd, How::Exit, 0);
    }
    0
}
