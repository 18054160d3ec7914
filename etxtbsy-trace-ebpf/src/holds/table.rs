//! Which fd of which table holds which inode open for writing.
//!
//! A hold is in `HOLDS` under its inode and a place, so that a failing exec finds the holds of its inode by
//! looking at 64 keys, whatever else is open on the machine. Inserting with NOEXIST gives a place to one
//! holder without a lock. `FD_WORDS` leads from an fd to its hold. A hold that ends enters `ENDED` first
//! and leaves `HOLDS` second. A failing exec marks the inode as watched, then reads `HOLDS`, then `ENDED`:
//! so it misses none.

use aya_ebpf::helpers::bpf_ktime_get_ns;
use etxtbsy_trace_common::{
    FDS_PER_WORD, FdWord, FdWordKey, Hold, HoldKey, How, Kind, Lost, ORPHAN_SLOTS, PROBES, SLOTS,
    Stage, Table, Via,
};

use crate::{
    emit::report,
    holds::copies,
    kernel::{self, offset},
    maps::{
        ANY, CROWDED, EEXIST, ENDED, FD_WORDS, HOLDS, NOEXIST, ORPHANS, ORPHANS_OF, TABLES, ZERO,
        keep, lost,
    },
};

pub(crate) const FDS: u32 = FDS_PER_WORD as u32;

/// Writes a hold that begins at `acquired_ns`: an fd of `task`'s table that refers to `file`. Its origin is
/// not known so far. The caller writes [`Hold::file`] last: readers treat a hold whose `file` is 0 as
/// absent. Field by field, because the stack has no room for it.
///
/// # Safety
///
/// `hold` can be written, and is zeros.
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
pub(crate) fn home(table: u64, fd: u32) -> u32 {
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

/// The key by which a search finds a description that outlived its opener's fd.
#[inline(always)]
fn orphan_key(inode: u64, file: u64) -> HoldKey {
    // Objects of a slab differ in their middle bits.
    HoldKey { inode, slot: ((file >> 6) ^ (file >> 10)) as u32 % ORPHAN_SLOTS, pad: 0 }
}

/// Notes a hold: an fd of `task`'s table that refers to `file`. `more` adds what else is known of the hold.
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
            // If another thread has made it first, it is there all the same.
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
        // The fd was closed in a way that no program follows, or its table was freed and is in use again.
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
    // Not counted as lost: this concerns one file, and failures of that file report it.
    let _ = CROWDED.insert(inode, 1, ANY);
    SLOTS as u64
}

/// Enters in `FD_WORDS` where the hold of an fd is, once that is written.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn publish(inode: u64, slot: u32, table: u64, fd: u32) -> i32 {
    if let Some(at) = place(table, fd) {
        // SAFETY: a map value; no other thread acts on an fd that has just been made.
        unsafe { *at = HoldKey { inode, slot, pad: 0 } };
    }
    report::change(Kind::Acquired, inode, slot);
    0
}

/// Ends a hold: moves it from `HOLDS` to `ENDED`, and reports that if its inode is watched.
#[inline(always)]
pub(crate) fn end(key: HoldKey, how: How, last: u32) {
    finish(key.inode, key.slot, how as u32, last);
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn finish(inode: u64, slot: u32, how: u32, last: u32) -> i32 {
    let key = HoldKey { inode, slot, pad: 0 };
    let Some(kept) = HOLDS.get_ptr_mut(key) else { return 0 };
    // SAFETY: a map value, see `maps`. It is changed in place, because the stack has no room for a copy. A
    // failure that reads it now finds it again among the ended ones, and takes the two for one.
    let hold = unsafe { &mut *kept };
    // SAFETY: no arguments.
    hold.released_ns = unsafe { bpf_ktime_get_ns() };
    hold.how = if hold.stage == Stage::Exiting as u32 { How::Exit as u32 } else { how };
    hold.was_last_reference |= last;
    hold.stage = Stage::Released as u32;
    if hold.was_last_reference == 0 && hold.via == Via::Open as u32 {
        // If there is no room, its opener is not known later.
        keep(&ORPHANS, hold.file, &*hold);
        keep(&ORPHANS_OF, orphan_key(inode, hold.file), &hold.file);
    }
    let slot = ended_slot(inode, hold);
    // This fails only without memory; a failure right now then does not find the hold.
    if !keep(&ENDED, HoldKey { inode, slot, pad: 0 }, &*hold) {
        lost(Lost::HoldsFull);
    }
    if hold.via == Via::Fork as u32 {
        copies::note_end(inode, slot, hold.released_ns);
    }
    let _ = HOLDS.remove(key);
    report::change(Kind::Released, inode, slot);
    1
}

/// How long an ended hold is kept and reported, in nanoseconds: its description may still be open, because
/// the task that drops it may be preempted.
pub(crate) const KEEP_NS: u64 = 500_000_000;

/// The place of an ended hold: one that is free, or has an earlier hold of the same fd, or one
/// that ended long ago. (Its place in `HOLDS` may be in use again before that.)
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
    // In this order: a fork that copies the fd at the same time finds its hold, or its end.
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
            // The task that closes it: its registers show whether the close is over.
            // SAFETY: a map value, see `maps`.
            unsafe {
                (*hold).task = task;
                (*hold).start_ns = kernel::word(task, offset!(task_start_time));
            }
            release(table, fd, How::Close, kernel::is_last_reference(file) as u32);
        } else {
            // It was closed in a way that no program follows, and this is another file at the same fd.
            release(table, fd, How::None, 0);
        }
    }
}
