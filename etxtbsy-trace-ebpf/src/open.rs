//! An open for writing has succeeded.

use aya_ebpf::{helpers::bpf_ktime_get_ns, macros::tracepoint, programs::TracePointContext};
use etxtbsy_trace_common::{Config, HoldKey, Kind, Next, Repair, Repaired, SLOTS, Via};

use crate::{
    fail::ETXTBSY,
    hold,
    kernel::{self, offset, word},
    maps::{CONFIG, HOLDS, NEXT, ORPHANS, REPAIRS},
    tell::{self, WAKE},
};

/// `syscalls:sys_exit_open`, `openat`, `openat2`, `creat`, `open_by_handle_at`.
///
/// At the exit, for only then the fd and its `struct file` exist; the file is taken from
/// current's table, so the entry need not be remembered. A fork of another thread between
/// `fd_install` and this point copies an fd that is not noted yet; the child's hold is then given
/// its opener here.
#[tracepoint]
pub fn opened(ctx: TracePointContext) -> u32 {
    let fd = kernel::result(&ctx);
    if fd < 0 {
        if fd == ETXTBSY {
            // SAFETY: the program that user space has put there is of this one's type.
            let _ = unsafe { NEXT.tail_call(&ctx, Next::Refused as u32) };
        }
        return 0;
    }
    note(fd as u32);
    0
}

/// Notes that current has opened a file, if it did so for writing.
#[inline(always)]
pub(crate) fn note(fd: u32) {
    let (table, file) = kernel::current_file(fd);
    if file == 0 || !kernel::is_writer(file) {
        return;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let task = kernel::current();
    let inode = kernel::inode_of(file);
    hold::acquire(task, table, fd, file, Via::Open, now, |hold| {
        hold.opened = kernel::actor(task, now);
    });
    // Of a description that lay at the same address.
    if ORPHANS.get_ptr(file).is_some() {
        let _ = ORPHANS.remove(file);
    }
    if !kernel::is_last_reference(file) {
        name_opener(inode, file, now);
    }
    // SAFETY: a map value, see `maps`.
    if CONFIG.get_ptr(Config::Repairs as u32).is_some_and(|any| unsafe { *any } != 0) {
        check_repair(file, inode, now);
    }
}

/// Notes who opened a description that has no fd, if it is open for writing: for a search.
#[inline(always)]
pub(crate) fn note_outlived(file: u64, at: u32) {
    if file != 0 && kernel::is_writer(file) {
        hold::note_outlived(file, at);
    }
}

/// Reports that a process which was refused a file has made it anew: it has opened another file for
/// writing by the same name in the same directory.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn check_repair(file: u64, inode: u64, time_ns: u64) -> i32 {
    let tgid = kernel::tgid_of(kernel::current());
    let Some(repair) = REPAIRS.get_ptr(tgid) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let Repair { seq, inode: refused, directory, name } = unsafe { *repair };
    let dentry = word(file, offset!(file_f_path_dentry));
    let same = (word(dentry, offset!(dentry_d_parent)) == directory)
        & (word(dentry, offset!(dentry_d_name_hash_len)) == name);
    if !same || inode == refused {
        return 0;
    }
    let _ = REPAIRS.remove(tgid);
    let ino = word(inode, offset!(inode_i_ino));
    tell::record(&Repaired { kind: Kind::Repaired as u32, tgid, seq, time_ns, ino }, WAKE);
    0
}

/// Names current as opener in the copies of an fd that were made before its open was seen.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn name_opener(inode: u64, file: u64, now: u64) -> i32 {
    let opener = kernel::actor(kernel::current(), now);
    for slot in 0..SLOTS {
        if let Some(hold) = HOLDS.get_ptr_mut(HoldKey { inode, slot, pad: 0 }) {
            // SAFETY: a map value, see `maps`.
            let hold = unsafe { &mut *hold };
            if hold.file == file && hold.opened.time_ns != now {
                hold.opened = opener;
            }
        }
    }
    0
}
