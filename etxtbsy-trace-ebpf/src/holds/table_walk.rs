//! What an event does to all the holds of an fd table.

use etxtbsy_trace_common::{FdWordKey, How, Stage};

use crate::{
    bounded_loop::{END, FOUND, in_parts},
    holds::table::{self, FDS},
    kernel::{self, offset},
    maps::{FD_WORDS, HOLDS, TABLES},
};

/// An event that concerns all holds of a table.
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
    /// Its files are closed: ends all, and forgets the table.
    Exited = 4,
}

/// How many words of a table one call of [`walk_words`] goes through, and how many such calls a
/// walk makes at the most: 131,072 fds.
const SOME: u32 = 64;
const MOST: u32 = 32;

/// Applies the event `what` to every hold of a table of process `tgid`, on behalf of `task`; whether any
/// had left the table or was marked.
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

/// The walk returns: a hold had left the table, or is marked now.
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
    let Some(key) = table::key_at(table, fd) else { return 0 };
    let Some(hold) = HOLDS.get_ptr_mut(key) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let kept = unsafe { &mut *hold };
    // The table at this address may have been that of another process, whose end no program saw.
    if kept.tgid != tgid && what == Event::Closing as u32 {
        return 0;
    }
    let gone = kernel::file_at(table, fd) != kept.file;
    let start_ns = kernel::word(task, offset!(task_start_time));
    if what == Event::Exiting as u32 {
        kept.stage = Stage::Exiting as u32;
        kept.start_ns = start_ns;
        kept.was_last_reference = kernel::is_last_reference(kept.file) as u32;
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
        if kernel::is_fput_pending(task, kept.file) {
            kept.stage = Stage::ExecClosing as u32;
        } else {
            table::release(table, fd, How::CloseOnExec, 0);
        }
        return MARKED;
    }
    if what == Event::Closed as u32 {
        if kept.stage == Stage::ExecClosing as u32 {
            table::release(table, fd, How::CloseOnExec, 1);
        }
    } else if what == Event::Range as u32 {
        if gone {
            let last = kernel::is_fput_pending(task, kept.file) as u32;
            kept.task = task;
            kept.start_ns = start_ns;
            table::release(table, fd, How::CloseRange, last);
        }
    } else if kept.stage == Stage::Exiting as u32 && kept.task == task {
        table::release(table, fd, How::Exit, 0);
    }
    0
}
