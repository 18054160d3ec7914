//! What pins a description that no fd table shows: the queues of unix sockets, and io_uring.

use etxtbsy_trace_common::{NO_FD, PinnedBy};

use crate::{
    failure::{outcome, unnoted},
    kernel::{self, offset, word},
    maps::{PINNERS, Pinner, SEARCHES},
};

/// `S_IFMT` and `S_IFSOCK`, include/uapi/linux/stat.h.
const S_IFMT: u32 = 0o170_000;
const S_IFSOCK: u32 = 0o140_000;
/// `AF_UNIX`, include/linux/socket.h.
const AF_UNIX: u32 = 1;
/// How many messages of a part of a queue, parts, fds of a message, and registered files are looked at.
const MESSAGES: u32 = 16;
const PARTS: u32 = 8;
const FDS: u32 = 64;
const REGISTERED: u32 = 256;

/// Looks at an open file of the table that is being read: notes it if it may pin descriptions.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn note_pinner(current: u64, file: u64) -> i32 {
    let mode = kernel::int(kernel::inode_of(file), offset!(inode_i_mode)) & 0xffff;
    let keeps = if mode & S_IFMT == S_IFSOCK { has_messages(file) } else { kernel::is_ring(file) };
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    if !keeps {
        return 0;
    }
    for at in 0..PINNERS {
        // SAFETY: a map value, which this task alone uses, and an index within the array.
        unsafe {
            let known = (*search).pinners[at].file;
            // Forks copy the fds of sockets.
            if known == file {
                return 0;
            }
            if known == 0 {
                (*search).pinners[at] = Pinner { file, task: (*search).task };
                return 0;
            }
        }
    }
    outcome::cut(current);
    0
}

/// The socket of a file, `struct sock *`, if it is a unix socket; else 0.
#[inline(always)]
fn unix_socket(file: u64) -> u64 {
    let sk = word(word(file, offset!(file_private_data)), offset!(socket_sk));
    let known = offset!(unix_skb_parms_fp) != u32::MAX;
    let is_unix = kernel::int(sk, offset!(sock_family)) & 0xffff == AF_UNIX;
    if known && is_unix { sk } else { 0 }
}

#[inline(always)]
fn has_messages(file: u64) -> bool {
    let sk = unix_socket(file);
    let queue = sk + offset!(sock_receive_queue) as u64;
    sk != 0 && word(queue, 0) != queue
}

/// Reports the descriptions of the busy inode that the noted files pin.
#[inline(always)]
pub(crate) fn search_pinners(current: u64) {
    for at in 0..PINNERS as u32 {
        if search_pinner(current, at) == 0 {
            break;
        }
    }
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_pinner(current: u64, at: u32) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(current) else { return 0 };
    // A power of two: the verifier sees that it is within the array.
    let at = at as usize & (PINNERS - 1);
    // SAFETY: a map value, which this task alone uses, and an index within the array.
    let Pinner { file, task } = unsafe { *(&raw const (*search).pinners).cast::<Pinner>().add(at) };
    if file == 0 {
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*search).task = task };
    if kernel::is_ring(file) {
        search_ring(current, file);
    } else {
        search_queue(current, file);
    }
    1
}

/// Reports that the task's process pins a description, if that is one of the busy inode.
#[inline(always)]
fn keep(current: u64, file: u64, by: PinnedBy) {
    let Some(search) = SEARCHES.get_ptr(current) else { return };
    // SAFETY: a map value, which this task alone uses.
    let (inode, task) = unsafe { ((*search).inode, (*search).task) };
    if file != 0 && kernel::is_writer(file) && kernel::inode_of(file) == inode {
        unnoted::report_unnoted(current, task, 0, file, unnoted::about(by as u64, NO_FD));
    }
}

/// Descriptions that were sent to a unix socket and not received so far
/// (`unix_attach_fds`, net/unix/af_unix.c).
#[inline(always)]
fn search_queue(current: u64, socket: u64) {
    let sk = unix_socket(socket);
    if sk == 0 {
        return;
    }
    let queue = sk + offset!(sock_receive_queue) as u64;
    let mut message = word(queue, 0);
    for _ in 0..PARTS {
        message = search_messages(current, queue, message);
        if message == 0 {
            return;
        }
    }
    outcome::cut(current);
}

/// Looks at some messages of a queue; gives the one after them, 0 at the end.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_messages(current: u64, queue: u64, first: u64) -> u64 {
    let mut message = first;
    for _ in 0..MESSAGES {
        if message == queue || message == 0 {
            return 0;
        }
        let cb = message + offset!(sk_buff_cb) as u64;
        let fds = word(cb, offset!(unix_skb_parms_fp));
        if fds != 0 {
            search_message(current, fds);
        }
        // `sk_buff.next` comes first.
        message = word(message, 0);
    }
    message
}

/// The fds of a message, `struct scm_fp_list *`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_message(current: u64, fds: u64) -> i32 {
    let count = kernel::int(fds, offset!(scm_fp_list_count)) & 0xffff;
    for at in 0..FDS {
        if at >= count {
            return 0;
        }
        keep_sent(current, word(fds + at as u64 * 8, offset!(scm_fp_list_fp)));
    }
    outcome::cut(current);
    0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn keep_sent(current: u64, file: u64) -> i32 {
    keep(current, file, PinnedBy::Queue);
    0
}

/// Descriptions in the table of an io_uring: registered, or opened straight into it
/// (`io_sqe_files_register`, `io_fixed_fd_install`, io_uring/).
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn search_ring(current: u64, ring: u64) -> i32 {
    let context = word(ring, offset!(file_private_data));
    let nodes = offset!(io_uring_nodes) != u32::MAX;
    if !nodes && offset!(io_uring_files) == u32::MAX {
        return 0;
    }
    let count =
        kernel::int(context, if nodes { offset!(io_uring_nr) } else { offset!(io_uring_files_nr) });
    for at in 0..REGISTERED {
        if at >= count {
            return 0;
        }
        keep_registered(current, context, at);
    }
    outcome::cut(current);
    0
}

/// Reports what is at a place of an io_uring's table. A global function, so that the verifier checks it
/// once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn keep_registered(current: u64, context: u64, at: u32) -> i32 {
    keep(current, kernel::registered(context, at), PinnedBy::IoUring);
    0
}
