//! Which processes are of interest: all, or the descendants of some.

use aya_ebpf::Global;
use etxtbsy_trace_common::{Config, Count, Interest, Lost};

use crate::maps::{CONFIG, COUNTS, EEXIST, NOEXIST, TREE, count, lost};

/// An [`Interest`]: whether only the processes in `TREE` are of interest. Set by user space before
/// loading.
#[unsafe(no_mangle)]
static FILTERED: Global<u32> = Global::new(0);

/// Whether failures of this process are of interest.
#[inline(always)]
pub(crate) fn contains(tgid: u32) -> bool {
    FILTERED.load() != Interest::Victims as u32 || TREE.get_ptr(tgid).is_some()
}

/// Whether a process is of the traced tree, or all are of interest.
#[inline(always)]
pub(crate) fn has(tgid: u32) -> bool {
    FILTERED.load() == Interest::All as u32 || TREE.get_ptr(tgid).is_some()
}

/// Whether there is a traced tree, and a process is of it.
#[inline(always)]
pub(crate) fn is_member(tgid: u32) -> bool {
    FILTERED.load() != Interest::All as u32 && TREE.get_ptr(tgid).is_some()
}

/// A process was forked: it belongs to the tree if its parent does.
#[inline(always)]
pub(crate) fn forked(parent: u32, child: u32) {
    if FILTERED.load() == Interest::All as u32 || TREE.get_ptr(parent).is_none() {
        return;
    }
    match TREE.insert(child, 1, NOEXIST) {
        Ok(()) => count(Count::Tree, 1),
        // User space has found it first, and counts it.
        Err(EEXIST) => {}
        Err(_) => lost(Lost::TreeFull),
    }
}

/// Forgets a process that has ended; whether it was the last of the tree.
#[inline(always)]
pub(crate) fn ended(tgid: u32) -> bool {
    if FILTERED.load() == Interest::All as u32 || TREE.remove(tgid).is_err() {
        return false;
    }
    count(Count::Tree, -1);
    let (Some(left), Some(found)) =
        (COUNTS.get_ptr(Count::Tree as u32), CONFIG.get_ptr(Config::TreeFound as u32))
    else {
        return false;
    };
    // SAFETY: map values, see `maps`.
    unsafe { left.read_volatile().wrapping_add(found.read_volatile()) == 0 }
}
