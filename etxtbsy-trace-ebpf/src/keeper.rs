//! What keeps a description that no fd table shows: the queues of unix sockets, and io_uring.

use etxtbsy_trace_common::KeptBy;

use crate::kernel::{self, offset, word};

/// `S_IFMT` and `S_IFSOCK`, include/uapi/linux/stat.h.
const S_IFMT: u32 = 0o170_000;
const S_IFSOCK: u32 = 0o140_000;
/// `AF_UNIX`, include/linux/socket.h.
const AF_UNIX: u32 = 1;
/// `[io_urin`, as the name of its anonymous inode begins (`io_uring_get_file`).
const RING_NAME: u64 = u64::from_le_bytes(*b"[io_urin");
/// How many messages of a queue, fds of a message, and registered files are looked at.
const MESSAGES: u32 = 16;
const FDS: u32 = 16;
const REGISTERED: u32 = 128;

/// Whether `keeper`, an open file of some process, keeps `file` by itself: a [`KeptBy`], or 0.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn keeps(keeper: u64, file: u64) -> i32 {
    let mode = kernel::int(kernel::inode_of(keeper), offset!(inode_i_mode)) & 0xffff;
    if mode & S_IFMT == S_IFSOCK {
        return if is_queued(keeper, file) { KeptBy::Queue as i32 } else { 0 };
    }
    let name = word(word(keeper, offset!(file_f_path_dentry)), offset!(dentry_d_name_name));
    if offset!(ring_nodes) != u32::MAX && word(name, 0) == RING_NAME && is_registered(keeper, file)
    {
        return KeptBy::Ring as i32;
    }
    0
}

/// Whether a description has been sent to a unix socket and not been received yet
/// (`unix_attach_fds`, net/unix/af_unix.c).
#[inline(always)]
fn is_queued(socket: u64, file: u64) -> bool {
    let sk = word(word(socket, offset!(file_private_data)), offset!(socket_sk));
    let known = offset!(unix_skb_parms_fp) != u32::MAX;
    if !known || kernel::int(sk, offset!(sock_family)) & 0xffff != AF_UNIX {
        return false;
    }
    let queue = sk + offset!(sock_receive_queue) as u64;
    let mut message = word(queue, 0);
    for _ in 0..MESSAGES {
        if message == queue || message == 0 {
            return false;
        }
        let cb = message + offset!(sk_buff_cb) as u64;
        if has(word(cb, offset!(unix_skb_parms_fp)), file) != 0 {
            return true;
        }
        // `sk_buff.next` comes first.
        message = word(message, 0);
    }
    false
}

/// Whether a message's `struct scm_fp_list` has a description. A global function, so that the
/// verifier checks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn has(fds: u64, file: u64) -> i32 {
    let count = kernel::int(fds, offset!(scm_fp_list_count)) & 0xffff;
    // At 0 there are zeros.
    for at in 0..FDS {
        // One branch, for what LLVM makes of a loop that ends at `count` has no end to the verifier.
        if (at < count) & (word(fds + at as u64 * 8, offset!(scm_fp_list_fp)) == file) {
            return 1;
        }
    }
    0
}

/// Whether a description is registered with an io_uring (`io_sqe_files_register`,
/// io_uring/rsrc.c, 6.13 on).
#[inline(always)]
fn is_registered(ring: u64, file: u64) -> bool {
    let context = word(ring, offset!(file_private_data));
    for at in 0..REGISTERED {
        if is_node(context, at, file) != 0 {
            return true;
        }
    }
    false
}

/// Whether a description is registered with an io_uring at a place. A global function, or the
/// verifier would follow the loop anew for every count that there may be.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_node(context: u64, at: u32, file: u64) -> i32 {
    let nodes = word(context, offset!(ring_nodes));
    let node = word(nodes + at as u64 * 8, 0);
    let is_there = at < kernel::int(context, offset!(ring_nr));
    // The lowest bits are flags (`FFS_MASK`). At 0 there are zeros.
    (is_there & (word(node, offset!(ring_node_file)) & !7 == file)) as i32
}
