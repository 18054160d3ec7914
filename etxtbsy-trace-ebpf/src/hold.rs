//! The ledger in the kernel: which fd of which table holds which inode open for writing.
//!
//! A hold stands in `HOLDS` under its inode and a place, so that a failing exec finds the holds
//! of its inode by looking at 64 keys, whatever else is open on the machine. Inserting with
//! NOEXIST makes a place belong to one holder without a lock. `FD_WORDS` leads from an fd to its
//! hold. A hold that ends goes to `ENDED` first and leaves `HOLDS` second: a failing exec, which
//! marks the inode as watched, then reads `HOLDS`, then `ENDED`, misses none.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_loop};
use etxtbsy_trace_common::{
    Actor, COMM_LEN, FDS_PER_WORD, FdWord, FdWordKey, Hold, HoldKey, How, Kind, Lost, PROBES,
    SLOTS, Stage, Table, Via,
};

use crate::{
    kernel::{self, offset},
    maps::{ANY, EEXIST, ENDED, FD_WORDS, HOLDS, NOEXIST, ORPHANS, TABLES, ZERO, lost},
    tell,
};

/// How many steps one walk of a table's fds takes at the most.
pub(crate) const STEPS: u32 = 1 << 17;

/// Who did what nobody saw.
pub(crate) const NOBODY: Actor = Actor { time_ns: 0, tgid: 0, tid: 0, comm: [0; COMM_LEN] };

const FDS: u32 = FDS_PER_WORD as u32;

/// Runs `step(index, context)` up to `steps` times, until it returns 1.
#[inline(always)]
pub(crate) fn repeat<C>(
    steps: u32,
    step: unsafe extern "C" fn(u64, *mut c_void) -> i64,
    context: &mut C,
) -> i64 {
    // SAFETY: `step` gets the context it is written for, which outlives the call.
    unsafe { bpf_loop(steps, step as *mut c_void, core::ptr::from_mut(context).cast(), 0) }
}

/// A hold that begins now, or at another time: an fd of `task`'s table that refers to `file`.
/// Nothing is known of its origin yet.
#[inline(always)]
pub(crate) fn begin(task: u64, table: u64, fd: u32, file: u64, via: Via, acquired_ns: u64) -> Hold {
    let inode = kernel::inode_of(file);
    Hold {
        file,
        inode,
        ino: kernel::word(inode, offset!(inode_i_ino)),
        table,
        task,
        start_ns: kernel::word(task, offset!(task_start_time)),
        acquired_ns,
        released_ns: 0,
        opened: NOBODY,
        forked: NOBODY,
        tgid: kernel::tgid_of(task),
        ppid: kernel::ppid_of(task),
        fd,
        flags: kernel::int(file, offset!(file_f_flags)),
        via: via as u32,
        stage: Stage::Held as u32,
        how: How::None as u32,
        last: 0,
        execed: 0,
        alone: 0,
        by_address: 0,
        generation: kernel::int(inode, offset!(inode_i_generation)),
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
    // SAFETY: a map value.
    let key = unsafe { *place };
    (key.inode != 0).then_some(key)
}

/// Who opened the description at an fd, for one that inherits it: from the hold that the fd has,
/// or had until a moment ago. Leaves `opener` as it is if that is not known.
///
/// A global function, as are the others here that are `extern "C"`: the verifier checks each
/// once, and not again for every path that leads to it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn opener_of(opener: *mut Actor, table: u64, fd: u32, file: u64, inode: u64) -> i32 {
    if opener.is_null() {
        return 0;
    }
    if let Some(key) = key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
        // SAFETY: a map value.
        && unsafe { (*hold).file } == file
    {
        // SAFETY: a map value, and the caller's actor.
        unsafe { *opener = (*hold).opened };
        return 1;
    }
    let home = home(table, fd);
    for probe in 0..PROBES {
        let key = HoldKey { inode, slot: home.wrapping_add(probe) % SLOTS, pad: 0 };
        if let Some(hold) = ENDED.get_ptr(key)
            // SAFETY: a map value.
            && unsafe { (*hold).file == file && (*hold).table == table && (*hold).fd == fd }
        {
            // SAFETY: a map value, and the caller's actor.
            unsafe { *opener = (*hold).opened };
            return 1;
        }
    }
    0
}

/// [`opener_of`].
#[inline(always)]
pub(crate) fn find_opener(opener: &mut Actor, table: u64, fd: u32, file: u64, inode: u64) {
    opener_of(opener, table, fd, file, inode);
}

/// Whether the task of a hold is still the one that it was: a `task_struct` is freed and used
/// again.
#[inline(always)]
pub(crate) fn is_task_of(hold: &Hold) -> bool {
    (kernel::tgid_of(hold.task) == hold.tgid)
        & (kernel::word(hold.task, offset!(task_start_time)) == hold.start_ns)
}

/// Finds out who opened the description of a hold that came otherwise than by open or fork, and
/// how this process came to it, if it has other fds of it.
#[inline(always)]
pub(crate) fn find_origin(hold: &mut Hold) {
    origin_of(hold);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn origin_of(hold: *mut Hold) -> i32 {
    if hold.is_null() {
        return 0;
    }
    // The pointer to it, for the context of a loop has to be on this function's own stack.
    let mut place = hold;
    repeat(SLOTS, origin_step, &mut place);
    // SAFETY: `find_origin` passes a hold.
    let hold = unsafe { &mut *hold };
    if hold.opened.time_ns == 0
        && let Some(orphan) = ORPHANS.get_ptr(orphan_key(hold.inode, hold.file))
        // SAFETY: a map value.
        && unsafe {
            (*orphan).file == hold.file
                && (*orphan).flags == hold.flags
                && (*orphan).ino == hold.ino
                && (*orphan).generation == hold.generation
        }
    {
        // SAFETY: as above.
        hold.opened = unsafe { (*orphan).opened };
        hold.by_address = 1;
    }
    0
}

/// Where a description that outlives its opener's fd is kept.
#[inline(always)]
fn orphan_key(inode: u64, file: u64) -> HoldKey {
    // Objects of a slab differ in their middle bits.
    HoldKey {
        inode,
        slot: ((file >> 6) ^ (file >> 10)) as u32 % etxtbsy_trace_common::ORPHANS,
        pad: 0,
    }
}

unsafe extern "C" fn origin_step(slot: u64, context: *mut c_void) -> i64 {
    // SAFETY: `origin_of` gives this the place of a pointer to a hold.
    let hold = unsafe { &mut **context.cast::<*mut Hold>() };
    let key = HoldKey { inode: hold.inode, slot: slot as u32, pad: 0 };
    let Some(other) = HOLDS.get_ptr(key) else { return 0 };
    // SAFETY: a map value.
    let other = unsafe { &*other };
    // One whose process is ending may be gone, and its address in use again.
    if other.file != hold.file || other.stage != Stage::Held as u32 {
        return 0;
    }
    if other.opened.time_ns != 0 {
        hold.opened = other.opened;
    }
    if other.tgid != hold.tgid {
        return 0;
    }
    hold.forked = other.forked;
    if hold.via == Via::Unknown as u32 {
        hold.via = other.via;
    }
    1
}

/// Notes a hold.
#[inline(always)]
pub(crate) fn acquire(hold: &Hold) {
    note(hold);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note(hold: *const Hold) -> i32 {
    if hold.is_null() {
        return 0;
    }
    // SAFETY: `acquire` passes a hold.
    let hold = unsafe { &*hold };
    let (inode, table, fd) = (hold.inode, hold.table, hold.fd);
    let words = fd / FDS;
    match TABLES.get_ptr_mut(table) {
        // SAFETY: a map value; two threads may write it at once, and each then writes a word
        // that covers its own fd or finds a larger one.
        Some(seen) => unsafe {
            (*seen).tgid = hold.tgid;
            if (*seen).max_word < words {
                (*seen).max_word = words;
            }
        },
        None => {
            let seen = Table { tgid: hold.tgid, max_word: words };
            if TABLES.insert(table, seen, ANY).is_err() {
                lost(Lost::HoldsFull);
                return 0;
            }
        }
    }
    let at = match place(table, fd) {
        Some(at) => at,
        None => {
            let Some(zero) = ZERO.get_ptr(0) else { return 0 };
            let key = FdWordKey { table, word: words, pad: 0 };
            // SAFETY: a map value of zeros, at least as large as a word.
            // Another thread may have made it meanwhile; then it is there all the same.
            let _ = FD_WORDS.insert(key, unsafe { &*zero.cast::<FdWord>() }, NOEXIST);
            match place(table, fd) {
                Some(at) => at,
                None => {
                    lost(Lost::HoldsFull);
                    return 0;
                }
            }
        }
    };
    // SAFETY: a map value; this fd was free until now, so no other thread acts on it.
    let before = unsafe { *at };
    if before.inode != 0 {
        // The fd was closed on a way that is not watched, or its table was freed and taken anew.
        end(before, How::Close, 0);
        // SAFETY: as above.
        unsafe { *at = HoldKey { inode: 0, slot: 0, pad: 0 } };
    }
    let home = home(table, fd);
    for probe in 0..PROBES {
        let key = HoldKey { inode, slot: home.wrapping_add(probe) % SLOTS, pad: 0 };
        match HOLDS.insert(key, hold, NOEXIST) {
            Ok(()) => {
                // SAFETY: as above.
                unsafe { *at = key };
                tell::change(Kind::Acquired, inode, key.slot);
                return 1;
            }
            Err(EEXIST) => {}
            Err(_) => {
                lost(Lost::HoldsFull);
                return 0;
            }
        }
    }
    lost(Lost::SlotsFull);
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
    // SAFETY: a map value. It is changed in place, for want of stack; a failure that reads it
    // meanwhile finds it again among the ended ones, and takes the two for one.
    let hold = unsafe { &mut *kept };
    // SAFETY: no arguments.
    hold.released_ns = unsafe { bpf_ktime_get_ns() };
    hold.how = if hold.stage == Stage::Exiting as u32 { How::Exit as u32 } else { how };
    hold.last |= last;
    hold.stage = Stage::Released as u32;
    if hold.last == 0 && hold.via == Via::Open as u32 {
        // If there is no room, its opener is not known later.
        let _ = ORPHANS.insert(orphan_key(inode, hold.file), &*hold, ANY);
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
        // SAFETY: a map value.
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
    // SAFETY: a map value.
    let key = unsafe { *at };
    if key.inode == 0 {
        return;
    }
    // In this order: a fork that copies the fd meanwhile finds its hold, or its end.
    end(key, how, last);
    // SAFETY: a map value.
    unsafe { *at = HoldKey { inode: 0, slot: 0, pad: 0 } };
}

/// Ends the hold of an fd that is about to be closed.
#[inline(always)]
pub(crate) fn release_closing(table: u64, fd: u32) {
    if let Some(key) = key_at(table, fd)
        && let Some(hold) = HOLDS.get_ptr(key)
    {
        // SAFETY: a map value.
        let last = kernel::is_last_reference(unsafe { (*hold).file });
        release(table, fd, How::Close, last as u32);
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

/// A walk of a table's holds.
#[repr(C)]
struct Walk {
    table: u64,
    task: u64,
    start_ns: u64,
    what: u32,
    tgid: u32,
    fd: u32,
    max_word: u32,
    marked: u32,
    pad: u32,
}

/// Does what follows from `what` with every hold of a table of process `tgid`, on behalf of `task`;
/// returns 1 if any were gone or marked. (Not their number: the
/// verifier would follow its every value.)
#[inline(always)]
pub(crate) fn walk(table: u64, task: u64, tgid: u32, what: Event) -> u32 {
    let Some(seen) = TABLES.get_ptr(table) else { return 0 };
    // SAFETY: a map value.
    let max_word = unsafe { (*seen).max_word };
    let Some(zero) = ZERO.get_ptr(0) else { return 0 };
    // SAFETY: a map value. Read from there so that the verifier takes it for any number, and
    // does not follow the walk through its every value.
    let fd = unsafe { zero.cast::<u32>().read_volatile() };
    let mut state = Walk {
        table,
        task,
        start_ns: kernel::word(task, offset!(task_start_time)),
        what: what as u32,
        tgid,
        fd,
        max_word,
        marked: 0,
        pad: 0,
    };
    if repeat(STEPS, walk_step, &mut state) >= STEPS as i64 {
        lost(Lost::WalkTruncated);
    }
    state.marked
}

unsafe extern "C" fn walk_step(_index: u64, context: *mut c_void) -> i64 {
    // SAFETY: `walk` gives this its own state.
    let walk = unsafe { &mut *context.cast::<Walk>() };
    let fd = walk.fd;
    if fd / FDS > walk.max_word {
        return 1;
    }
    let Some(at) = place(walk.table, fd) else {
        walk.fd = (fd / FDS + 1) * FDS;
        return 0;
    };
    walk.fd = fd + 1;
    // SAFETY: a map value.
    let key = unsafe { *at };
    let exited = walk.what == Event::Exited as u32;
    if key.inode != 0
        && let Some(hold) = HOLDS.get_ptr_mut(key)
    {
        // SAFETY: a map value.
        let kept = unsafe { &mut *hold };
        // A table at this address may have been another process's, whose end was not seen.
        if kept.tgid == walk.tgid || walk.what != Event::Closing as u32 {
            let gone = kernel::file_at(walk.table, fd) != kept.file;
            if walk.what == Event::Exiting as u32 {
                kept.stage = Stage::Exiting as u32;
                kept.start_ns = walk.start_ns;
                kept.last = kernel::is_last_reference(kept.file) as u32;
                kept.task = walk.task;
                walk.marked = 1;
            } else if walk.what == Event::Closing as u32 {
                if gone {
                    kept.task = walk.task;
                    kept.start_ns = walk.start_ns;
                    walk.marked = 1;
                    if kernel::in_works(walk.task, kept.file) {
                        kept.stage = Stage::ExecClosing as u32;
                    } else {
                        release(walk.table, fd, How::CloseOnExec, 0);
                    }
                } else {
                    kept.execed = 1;
                }
            } else if walk.what == Event::Closed as u32 {
                if kept.stage == Stage::ExecClosing as u32 {
                    release(walk.table, fd, How::CloseOnExec, 1);
                }
            } else if walk.what == Event::Range as u32 {
                if gone {
                    let last = kernel::in_works(walk.task, kept.file) as u32;
                    kept.task = walk.task;
                    kept.start_ns = walk.start_ns;
                    release(walk.table, fd, How::Close, last);
                }
            } else if exited && kept.stage == Stage::Exiting as u32 && kept.task == walk.task {
                release(walk.table, fd, How::Exit, 0);
            }
        }
    }
    // The last fd of a word: the word itself goes, unless the table has a new owner.
    if exited && walk.fd % FDS == 0 {
        let owned = match TABLES.get_ptr(walk.table) {
            // SAFETY: a map value.
            Some(seen) => unsafe { (*seen).tgid == walk.tgid },
            None => false,
        };
        if owned {
            let _ = FD_WORDS.remove(FdWordKey { table: walk.table, word: fd / FDS, pad: 0 });
        }
    }
    0
}
