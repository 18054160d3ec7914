//! The mappings of the busy inode.

use etxtbsy_trace_common::NO_FD;

use crate::{
    failure::{
        outcome, references,
        unnoted::{self, MAPPED},
    },
    kernel::{self, offset, word},
    maps::{MAPPINGS as NOTED, SEARCHES},
};

/// How many mappings of the inode one call of [`search_mappings`] looks at, how many such calls
/// there are, and how deep their tree is.
const MAPPINGS: u32 = 32;
const ALL_MAPPINGS: u32 = 512;
const LEVELS: u32 = 64;

/// Walks through the mappings of an inode: its interval tree, in order. Their count starts again at 0.
#[inline(always)]
pub(crate) fn walk_mappings(current: u64, inode: u64) {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return };
    // SAFETY: a map value, which this task alone uses.
    unsafe {
        (*search).found -= (*search).mapped;
        (*search).mapped = 0;
        (*search).mappings = [0; NOTED];
    }
    let i_mmap = word(inode, offset!(inode_i_mapping)) + offset!(mapping_i_mmap) as u64;
    let mut node = word(i_mmap, offset!(rb_leftmost));
    for _ in 0..ALL_MAPPINGS {
        node = search_mappings(current, node);
        if node == 0 {
            return;
        }
    }
    outcome::cut(current);
}

/// Looks at some mappings, by `struct rb_node *` within a `vm_area_struct`; gives the next, or 0
/// after the last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_mappings(current: u64, from: u64) -> u64 {
    let Some(search) = SEARCHES.get_ptr(current) else { return 0 };
    // SAFETY: a map value, which this task alone uses.
    let inode = unsafe { (*search).inode };
    let mut node = from;
    for _ in 0..MAPPINGS {
        if node == 0 {
            return 0;
        }
        let vma = node - offset!(vma_rb) as u64;
        let file = word(vma, offset!(vma_vm_file));
        if kernel::is_writer(file) && kernel::inode_of(file) == inode && is_linked(node) {
            mapped(current, vma, file);
        }
        node = next_node(node);
    }
    node
}

/// Whether a node is still in its tree. The walk takes no lock, so it can reach a node that `rb_erase` has
/// removed, and that still has its own links.
#[inline(always)]
fn is_linked(node: u64) -> bool {
    let parent = word(node, offset!(rb_parent)) & !3;
    (parent == 0)
        | (word(parent, offset!(rb_left)) == node)
        | (word(parent, offset!(rb_right)) == node)
}

/// `rb_next` (lib/rbtree.c): the next node of a tree, in order; 0 after the last.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn next_node(node: u64) -> u64 {
    let mut next = word(node, offset!(rb_right));
    if next != 0 {
        for _ in 0..LEVELS {
            let left = word(next, offset!(rb_left));
            if left == 0 {
                break;
            }
            next = left;
        }
        return next;
    }
    let mut child = node;
    for _ in 0..LEVELS {
        // The lowest two bits are the colour.
        let parent = word(child, offset!(rb_parent)) & !3;
        if word(parent, offset!(rb_right)) != child {
            return parent;
        }
        child = parent;
    }
    0
}

/// Reports a mapping of the busy inode through a description with write access. Private and read-only
/// mappings pin the description as well.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn mapped(current: u64, vma: u64, file: u64) -> i32 {
    if is_counted(current, vma) != 0 {
        return 0;
    }
    let mm = word(vma, offset!(vma_vm_mm));
    // Reading at 0 gives zeros, which are no process.
    let task = if offset!(mm_owner) == u32::MAX { 0 } else { word(mm, offset!(mm_owner)) };
    // A process that has left this memory does not hold it. A child that is being made still has its parent's pid.
    if word(task, offset!(task_mm)) == mm && kernel::is_made(task) {
        unnoted::report_unnoted(current, task, mm, file, unnoted::about(MAPPED, NO_FD));
    } else {
        references::note_found(current, file, 1);
    }
    if let Some(search) = SEARCHES.get_ptr_mut(current) {
        // SAFETY: a map value, which this task alone uses.
        unsafe { (*search).mapped += 1 };
    }
    0
}

/// Whether the walk has counted a mapping; notes that it has. The tree may turn under the walk, which then comes to the
/// same mapping again: its one reference would stand for one that was not found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_counted(current: u64, vma: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    for at in 0..NOTED {
        // SAFETY: a map value, which this task alone uses, and an index within the array.
        unsafe {
            let known = (*search).mappings[at];
            if known == vma {
                return 1;
            }
            if known == 0 {
                (*search).mappings[at] = vma;
                return 0;
            }
        }
    }
    0
}
