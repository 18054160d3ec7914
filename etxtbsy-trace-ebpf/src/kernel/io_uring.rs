//! io_uring: its anonymous files, and the table of a ring.

use crate::kernel::{offset, read::word};

/// `[io_urin`, as the name of its anonymous inode begins (`io_uring_get_file`).
const NAME: u64 = u64::from_le_bytes(*b"[io_urin");

#[inline(always)]
pub(crate) fn is_ring(file: u64) -> bool {
    let name = word(word(file, offset!(file_f_path_dentry)), offset!(dentry_d_name_name));
    word(name, 0) == NAME
}

/// The description at a place of an io_uring's table, given its `struct io_ring_ctx *`; 0 if there is none.
/// An entry is a `struct io_rsrc_node *` (6.13 on), or a `struct file *` whose lowest bits are flags
/// (`FFS_MASK`).
#[inline(always)]
pub(crate) fn registered(context: u64, at: u32) -> u64 {
    let nodes = offset!(io_uring_nodes) != u32::MAX;
    if !nodes && offset!(io_uring_files) == u32::MAX {
        return 0;
    }
    let table = if nodes { offset!(io_uring_nodes) } else { offset!(io_uring_files) };
    let entry = word(word(context, table) + at as u64 * 8, 0);
    let file = if nodes { word(entry, offset!(io_uring_node_file)) } else { entry };
    file & !7
}
