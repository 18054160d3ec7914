//! Open file descriptions (`struct file`), and the drop of their last reference.

use etxtbsy_trace_common::{Config, Drain, How};

use crate::{
    kernel::{
        offset,
        offsets::syscall,
        read::{int, word},
        regs::in_call,
    },
    maps::CONFIG,
};

/// `FMODE_WRITER`, include/linux/fs.h: this description counts in its inode's `i_writecount`.
/// (`FMODE_WRITE` alone does not: a memfd has it.)
const FMODE_WRITER: u32 = 0x10000;
/// `__FMODE_EXEC` in `f_flags`, include/linux/fs.h: opened to be executed.
pub(crate) const FMODE_EXEC: u32 = 0x20;

/// A description's inode.
#[inline(always)]
pub(crate) fn inode_of(file: u64) -> u64 {
    word(file, offset!(file_f_inode))
}

/// Whether a description counts as a writer of its inode.
#[inline(always)]
pub(crate) fn is_writer(file: u64) -> bool {
    int(file, offset!(file_f_mode)) & FMODE_WRITER != 0
}

/// Whether a description has one reference only: no other fd, mapping, socket queue, or system call in
/// progress.
#[inline(always)]
pub(crate) fn is_last_reference(file: u64) -> bool {
    word(file, offset!(file_refs)) == offset!(file_refs_one) as u64
}

/// Whether something refers to a description: an fd of any table, a mapping, a socket's queue, a system call
/// in progress. (Once nothing does, its last user is about to close it.)
#[inline(always)]
pub(crate) fn is_open(file: u64, inode: u64) -> bool {
    (inode_of(file) == inode) & is_writer(file) & is_referenced(file)
}

/// Whether anything refers to a description.
#[inline(always)]
pub(crate) fn is_referenced(file: u64) -> bool {
    // Signed: `f_ref` counts from 0, and is below that when it is dead.
    word(file, offset!(file_refs)) as i64 >= offset!(file_refs_one) as i64
}

/// How many references there are to a description; 0 if none.
#[inline(always)]
pub(crate) fn references(file: u64) -> u32 {
    let refs = word(file, offset!(file_refs)) as i64;
    let refs = refs - offset!(file_refs_one) as i64 + 1;
    if refs < 0 { 0 } else { refs as u32 }
}

/// The address of `____fput`, which drops the last reference to a description from a task's work; 0 until the tracer
/// has shown it to the programs (`calibrate`).
#[inline(always)]
pub(crate) fn fput() -> u64 {
    match CONFIG.get_ptr(Config::Fput as u32) {
        // SAFETY: a map value, see `maps`.
        Some(fput) => unsafe { *fput },
        None => 0,
    }
}

/// The description that an entry of a task's work drops, if it was opened to be executed; else 0. `fput` is [`fput`]. A
/// global function, so that the verifier checks it once, and not for each entry of a loop.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn executed_by(work: u64, fput: u64) -> u64 {
    let file = work - offset!(file_task_work) as u64;
    let is_executed = word(work, offset!(callback_func)) == fput
        && int(file, offset!(file_f_flags)) & FMODE_EXEC != 0;
    if is_executed { file } else { 0 }
}

/// How far the drop of a last reference has come, if no list of work has it: `task` may have taken its list,
/// and be working on it (`task_work_run`). `how` says how the reference left the table of `task`.
///
/// A freed description shows that it is freed (`Offsets::file_freed`), so this is evidence: a description
/// that has no reference and is not freed is in `__fput`, which drops the write access just before it frees
/// the description.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn drain_of(task: u64, file: u64, inode: u64, how: u32) -> u32 {
    if inode_of(file) != inode || !is_writer(file) || references(file) != 0 {
        return Drain::None as u32;
    }
    let fput = fput();
    let work = file + offset!(file_task_work) as u64;
    let (link, function) = (word(work, offset!(callback_next)), word(work, offset!(callback_func)));
    let is_work = function == fput;
    let freed = offset!(file_freed);
    if !is_work {
        // close(2) drops it without work from 6.8 on; the field then has the read-ahead of the file, which
        // begins with zeros where nothing was read.
        let closing = (how == How::Close as u32) & (freed == 1) & (link == 0);
        return if closing { Drain::UnderWay as u32 } else { Drain::None as u32 };
    }
    if freed == 0 {
        return Drain::UnderWay as u32;
    }
    // A task that is back in user mode after its exec has done its work, as has a task that has ended.
    let execs = how == How::CloseOnExec as u32;
    if execs && !(in_call(task, syscall!(execve)) || in_call(task, syscall!(execveat))) {
        return Drain::None as u32;
    }
    if freed == 1 {
        // A link leads to other work, or nowhere; the link of a free list is scrambled.
        let follows = link == 0 || word(link, offset!(callback_func)) >> 32 == fput >> 32;
        return if follows { Drain::UnderWay as u32 } else { Drain::None as u32 };
    }
    Drain::Unclear as u32
}

/// `OVERLAYFS_SUPER_MAGIC`, include/uapi/linux/magic.h.
const OVERLAYFS: u64 = 0x794c_7630;

/// Whether a description is one of overlayfs, and the file behind it is of this inode: that one
/// is open for writing too, in no table.
///
/// `private_data` is that file up to 6.12, and leads to a `struct ovl_file` since. Which of the two it is
/// does not matter, because overlayfs may be a module without BTF: what is found has to be an open
/// file of that very inode.
#[inline(always)]
pub(crate) fn is_backed_by(file: u64, inode: u64) -> bool {
    let sb = word(inode_of(file), offset!(inode_i_sb));
    if word(sb, offset!(super_block_s_magic)) != OVERLAYFS {
        return false;
    }
    let private = word(file, offset!(file_private_data));
    let real = word(private, offset!(ovl_file_realfile));
    (inode_of(private) == inode && is_writer(private))
        || (inode_of(real) == inode && is_writer(real))
}

/// How many links of a task's pending work are looked at.
const WORKS: u32 = 32;

/// Whether the last reference to `file` waits in the task's work: `fput` puts it there
/// (`task_work_add` in fs/file_table.c), and it is dropped when the task returns to user mode.
#[inline(always)]
pub(crate) fn is_fput_pending(task: u64, file: u64) -> bool {
    fput_pending(task, file) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn fput_pending(task: u64, file: u64) -> i32 {
    let wanted = file + offset!(file_task_work) as u64;
    let mut link = word(task, offset!(task_task_works));
    for _ in 0..WORKS {
        if link == 0 {
            return 0;
        }
        if link == wanted {
            return 1;
        }
        link = word(link, offset!(callback_next));
    }
    0
}
