//! The references to the busy descriptions: how many there are, and how many were found.

use etxtbsy_trace_common::{HoldKey, SLOTS, Via};

use crate::{
    kernel,
    maps::{DESCRIPTIONS, HOLDS, SEARCHES},
};

/// How many copies of the inode's descriptions forks have made since a failure that were not reported:
/// those of children that were being made.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn copies_since(task: u64) -> i32 {
    let mut copies = 0;
    for slot in 0..SLOTS {
        copies += is_copy_since(task, slot);
    }
    copies
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_copy_since(task: u64, slot: u32) -> i32 {
    let Some(search) = SEARCHES.get_ptr(task) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let (inode, exit_ns) = unsafe { ((*search).inode, (*search).exit_ns) };
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
    let Some(search) = SEARCHES.get_ptr(task) else { return 0 };
    let mut references = 0;
    for at in 0..DESCRIPTIONS {
        // SAFETY: a map value, and an index within the array.
        let (file, before) = unsafe { ((*search).files[at], (*search).references[at]) };
        references += references_of(file, before);
    }
    // SAFETY: a map value, see `maps`.
    let found = unsafe { (*search).found };
    if references > found { (references - found) as i32 } else { 0 }
}

/// How many references there are to a description, or were `before`: one that was found and is closed since must not
/// hide another. A global function: its branches are none of a loop's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn references_of(file: u64, before: u32) -> u32 {
    let now = if file == 0 { 0 } else { kernel::references(file) };
    if now < before { before } else { now }
}

/// Notes that a failure has found a reference to a description, or (`counts` is 0) what is left of one.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_found(task: u64, file: u64, counts: u32) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(task) else { return 0 };
    // SAFETY: a map value, which this task alone uses, and indices within its array.
    unsafe {
        (*search).found += counts;
        for at in 0..DESCRIPTIONS {
            let known = (*search).files[at];
            if known == file {
                return 0;
            }
            if known == 0 {
                (*search).files[at] = file;
                if (*search).first == 0 {
                    (*search).references[at] = kernel::references(file);
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
    let Some(search) = SEARCHES.get_ptr(task) else { return 0 };
    let mut files = 0;
    for at in 0..DESCRIPTIONS {
        // SAFETY: a map value, and an index within the array.
        files += unsafe { (*search).files[at] != 0 } as i32;
    }
    files
}
