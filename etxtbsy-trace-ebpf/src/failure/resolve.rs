//! Which file a refused call was about: its path, walked once more before the call returns.
//!
//! The call has just walked it, so every entry is in the dcache, and no later rename can mislead the walk.
//! It does what the kernel does in `link_path_walk` (fs/namei.c), step by step, without its locks: names, `.`
//! and `..`, mounts, symbolic links whose text the inode has (`i_link`), and the links of /proc/self and
//! /proc/thread-self. Where the walk fails, user space looks the path up.

use core::{arch::asm, cell::Cell, ffi::c_void};

use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{
        bpf_probe_read_kernel, bpf_probe_read_kernel_str, bpf_probe_read_user,
        bpf_probe_read_user_str,
    },
};
use etxtbsy_trace_common::{Config, Repair, TailCall, TextOf};

use crate::{
    bounded_loop::in_runs,
    emit::text::{self, Subject},
    failure::outcome,
    kernel::{self, AT_FDCWD, offset, word},
    maps::{
        ANY, CONFIG, NAME_WORDS, PATH_WALKS, PathWalk, REPAIRS, SEARCHES, SearchState, TEXTS, ZERO,
    },
};

/// How many steps one run of the program makes, and how many entries or mounts a step looks at.
const STEPS: u32 = 128;
const SOME: u32 = 32;
/// How many symbolic links a path may lead through (`MAXSYMLINKS`).
const LINKS: u64 = 40;
/// A name with its NUL.
const NAME: u32 = (NAME_WORDS * 8) as u32;
/// `S_IFMT` and `S_IFLNK`, include/uapi/linux/stat.h.
const KIND: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
/// `PROC_SUPER_MAGIC`, include/uapi/linux/magic.h.
const PROC: u64 = 0x9fa0;

/// What a walk does next ([`PathWalk::next`]).
pub(crate) mod to {
    /// Read the next name.
    pub(crate) const NAME: u64 = 0;
    /// Look for it among the entries of the directory.
    pub(crate) const ENTRY: u64 = 1;
    /// Look whether something is mounted on what was found.
    pub(crate) const MOUNT: u64 = 2;
    /// Go up.
    pub(crate) const UP: u64 = 3;
}

/// Where in procfs a walk is ([`PathWalk::proc`]).
mod proc {
    /// Nowhere special.
    pub(super) const NO: u64 = 0;
    /// In the directory of the victim's own process.
    pub(super) const OWN: u64 = 1;
    /// In that of its fds.
    pub(super) const FDS: u64 = 2;
}

/// A step returns: there are more.
const MORE: i32 = 0;
/// It was the last.
const DONE: i32 = 1;
/// The walk cannot continue.
const FAILED: i32 = 2;

/// Finds the file of the refused call, and continues with the search for those who run it.
#[inline(always)]
pub(crate) fn run(tail_call: impl Fn(TailCall)) {
    let task = kernel::current();
    let Some(search) = SEARCHES.get_ptr_mut(task) else { return };
    // SAFETY: a map value, of this task alone.
    if unsafe { core::mem::replace(&mut (*search).walked, 1) } == 0 {
        begin_walk(task);
    }
    let last = Cell::new(FAILED);
    let step = || {
        last.set(walk_step(task));
        last.get() != MORE
    };
    in_runs(STEPS, step, || tail_call(TailCall::Resolve));
    if last.get() == DONE {
        note_refused(task);
    }
    let _ = PATH_WALKS.remove(task);
    tail_call(TailCall::Runners);
    // It returns only if there is no such program.
    outcome::end_failure(task, 1);
}

/// Begins a walk along the path in `SEARCHES`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn begin_walk(task: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr(task) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let (path, directory) = unsafe { ((*search).path, (*search).directory) };
    let Some(zero) = ZERO.get_ptr(0) else { return 0 };
    if path == 0 {
        return 0;
    }
    // SAFETY: a map value of zeros, larger than a walk.
    let _ = PATH_WALKS.insert(task, unsafe { &*zero.cast::<PathWalk>() }, ANY);
    let Some(walk) = PATH_WALKS.get_ptr_mut(task) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let walk = unsafe { &mut *walk };
    let fs = word(task, offset!(task_fs));
    walk.root_mnt = word(fs, offset!(fs_root_mnt));
    walk.root = word(fs, offset!(fs_root_dentry));
    if directory == AT_FDCWD {
        walk.mnt = word(fs, offset!(fs_pwd_mnt));
        walk.dentry = word(fs, offset!(fs_pwd_dentry));
    } else {
        let file = kernel::file_at(kernel::table_of(task), directory as u32);
        walk.mnt = word(file, offset!(file_f_path_mnt));
        walk.dentry = word(file, offset!(file_f_path_dentry));
    }
    walk.rest[0] = path;
    let mut first = 0_u8;
    // SAFETY: the helper checks the address, and writes one byte.
    unsafe { bpf_probe_read_user((&raw mut first).cast(), 1, path as *const c_void) };
    if first == b'/' {
        walk.mnt = walk.root_mnt;
        walk.dentry = walk.root;
    }
    0
}

/// The walk of a task.
macro_rules! walk_of {
    ($task:ident) => {{
        let Some(walk) = PATH_WALKS.get_ptr_mut($task) else { return FAILED };
        // SAFETY: a map value, of this task alone; no reference to it outlives a call that makes
        // another.
        unsafe { &mut *walk }
    }};
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn walk_step(task: u64) -> i32 {
    let walk = walk_of!(task);
    match walk.next {
        to::NAME => next_name(task),
        to::ENTRY => some_entries(task),
        to::MOUNT => some_mounts(task),
        _ => up(task),
    }
}

/// Reads the next name of the path, or of the link that it is in.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn next_name(task: u64) -> i32 {
    let walk = walk_of!(task);
    let at = walk.depth as usize & (TEXTS - 1);
    let text = walk.rest[at];
    let len = read_name(task, text, (at == 0) as u32);
    // `read_name` has changed it by a reference of its own.
    let walk = walk_of!(task);
    if len < 0 {
        return FAILED;
    }
    if len == 0 {
        if walk.name[0] & 0xff == b'/' as u64 {
            walk.rest[at] = text + 1;
            return MORE;
        }
        if at == 0 {
            return DONE;
        }
        walk.depth = at as u64 - 1;
        return MORE;
    }
    let mut bounded = len as u64;
    // SAFETY: a mask. In assembly, because the compiler knows what `read_name` returns and would leave the
    // mask out; the verifier does not know it.
    unsafe { asm!("{} &= 255", inout(reg) bounded) };
    let len = bounded as u32;
    walk.rest[at] = text + len as u64;
    walk.len = len as u64;
    walk.name = [0; NAME_WORDS];
    walk.other = [0; NAME_WORDS];
    let name = walk.name.as_mut_ptr().cast();
    // SAFETY: `len` is less than the name has room for.
    unsafe {
        if at == 0 {
            bpf_probe_read_user(name, len, text as *const c_void);
        } else {
            bpf_probe_read_kernel(name, len, text as *const c_void);
        }
    }
    if walk.proc != proc::NO {
        return own(task);
    }
    // `.` and `..`.
    if walk.name[0] == 0x2e {
        return MORE;
    }
    if walk.name[0] == 0x2e2e {
        walk.next = to::UP;
        return MORE;
    }
    walk.link = word(walk.dentry, offset!(dentry_children));
    walk.next = to::ENTRY;
    MORE
}

/// Reads a name into the walk; gives its length, below 0 if it is too long or cannot be read.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_name(task: u64, text: u64, is_user: u32) -> i32 {
    let walk = walk_of!(task);
    let name = walk.name.as_mut_ptr().cast();
    // SAFETY: the helper checks the address, and the name has NAME bytes.
    let read = unsafe {
        if is_user != 0 {
            bpf_probe_read_user_str(name, NAME, text as *const c_void)
        } else {
            bpf_probe_read_kernel_str(name, NAME, text as *const c_void)
        }
    };
    if read < 0 {
        return -1;
    }
    // Of an empty string, some kernels write nothing.
    if read == 0 {
        walk.name[0] = 0;
        return 0;
    }
    let bytes = walk.name.as_ptr().cast::<u8>();
    for at in 0..NAME as usize {
        // SAFETY: an index within the name.
        let byte = unsafe { *bytes.add(at) };
        if byte == 0 || byte == b'/' {
            // If the name fills its room, the NUL is the helper's, and the name is too long.
            return if at == NAME as usize - 1 { -1 } else { at as i32 };
        }
    }
    -1
}

/// Looks at some entries of the directory.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn some_entries(task: u64) -> i32 {
    let is_hlist = offset!(dentry_children_hlist) != 0;
    for _ in 0..SOME {
        let walk = walk_of!(task);
        let end = if is_hlist { 0 } else { walk.dentry + offset!(dentry_children) as u64 };
        let link = walk.link;
        if link == end || link == 0 {
            return FAILED;
        }
        let entry = link - offset!(dentry_sibling) as u64;
        walk.link = word(link, 0);
        if kernel::int(entry, offset!(dentry_d_name_len)) as u64 == walk.len
            && is_entry(task, entry) != 0
        {
            // That has changed it by a reference of its own.
            let walk = walk_of!(task);
            if walk.depth == 0 {
                walk.directory = walk.dentry;
                walk.last = word(entry, offset!(dentry_d_name_hash_len));
            }
            walk.found = entry;
            walk.found_mnt = walk.mnt;
            walk.next = to::MOUNT;
            walk.link = word(walk.mnt - offset!(mount_mnt) as u64, offset!(mount_mnt_mounts));
            return MORE;
        }
    }
    MORE
}

/// Whether an entry with a name of the same length is the one that the walk looks for. The kernel must
/// still find it by its name, and it must have an inode.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn is_entry(task: u64, entry: u64) -> i32 {
    let Some(walk) = PATH_WALKS.get_ptr_mut(task) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let walk = unsafe { &mut *walk };
    let hashed = word(entry, offset!(dentry_d_hash_pprev)) != 0;
    let name = word(entry, offset!(dentry_d_name_name));
    let len = walk.len as u32 & (NAME - 1);
    // SAFETY: `len` is less than there is room for.
    unsafe {
        bpf_probe_read_kernel(walk.other.as_mut_ptr().cast(), len, name as *const c_void);
    }
    for at in 0..NAME_WORDS {
        if walk.name[at] != walk.other[at] {
            return 0;
        }
    }
    let within = word(entry, offset!(dentry_d_parent)) == walk.dentry;
    let there = word(entry, offset!(dentry_d_inode)) != 0;
    (hashed & within & there) as i32
}

/// Looks at some of the mounts in the mount that the entry was found in; after the last, continues
/// from what was found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn some_mounts(task: u64) -> i32 {
    let walk = walk_of!(task);
    let head = walk.found_mnt - offset!(mount_mnt) as u64 + offset!(mount_mnt_mounts) as u64;
    for _ in 0..SOME {
        let link = walk.link;
        if link == head || link == 0 {
            return arrive(task);
        }
        let mount = link - offset!(mount_mnt_child) as u64;
        if word(mount, offset!(mount_mnt_mountpoint)) == walk.found {
            walk.found_mnt = mount + offset!(mount_mnt) as u64;
            walk.found = word(walk.found_mnt, offset!(vfsmount_mnt_root));
            walk.link = word(mount, offset!(mount_mnt_mounts));
            return MORE;
        }
        walk.link = word(link, 0);
    }
    MORE
}

/// Continues from what was found: in it, or, if it is a link, where that leads.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn arrive(task: u64) -> i32 {
    let walk = walk_of!(task);
    let inode = word(walk.found, offset!(dentry_d_inode));
    walk.next = to::NAME;
    if kernel::int(inode, offset!(inode_i_mode)) & KIND != LINK {
        walk.dentry = walk.found;
        walk.mnt = walk.found_mnt;
        return MORE;
    }
    walk.links += 1;
    if walk.links > LINKS {
        return FAILED;
    }
    let text = word(inode, offset!(inode_i_link));
    if text == 0 {
        return magic(task, inode);
    }
    let at = (walk.depth + 1) as usize;
    if at >= TEXTS {
        return FAILED;
    }
    walk.depth = at as u64;
    walk.rest[at & (TEXTS - 1)] = text;
    if kernel::int(text, 0) & 0xff == b'/' as u32 {
        walk.dentry = walk.root;
        walk.mnt = walk.root_mnt;
    }
    MORE
}

/// A link without a text: follows one of procfs that leads to the victim's own process.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn magic(task: u64, inode: u64) -> i32 {
    let walk = walk_of!(task);
    let sb = word(inode, offset!(inode_i_sb));
    if word(sb, offset!(super_block_s_magic)) != PROC {
        return FAILED;
    }
    // `self` and `thread-self`.
    let first = walk.name[0];
    let is_own = (first == u64::from_le_bytes(*b"self\0\0\0\0"))
        | (first == u64::from_le_bytes(*b"thread-s"));
    if is_own {
        walk.proc = proc::OWN;
        return MORE;
    }
    // In the directory of a process by its number: its own?
    let name = word(walk.dentry, offset!(dentry_d_name_name));
    if number(word(name, 0)) as u32 != kernel::ns_pid(task) {
        return FAILED;
    }
    walk.proc = proc::OWN;
    own(task)
}

/// Continues from the name in the directory of the victim's own process.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn own(task: u64) -> i32 {
    let walk = walk_of!(task);
    let name = walk.name[0];
    walk.next = to::NAME;
    if name == 0x2e {
        return MORE;
    }
    if walk.proc == proc::FDS {
        let fd = number(name);
        if fd < 0 {
            return FAILED;
        }
        return jump(task, kernel::file_at(kernel::table_of(task), fd as u32));
    }
    if name == u64::from_le_bytes(*b"fd\0\0\0\0\0\0") {
        walk.proc = proc::FDS;
        return MORE;
    }
    if name == u64::from_le_bytes(*b"exe\0\0\0\0\0") {
        return jump(task, word(word(task, offset!(task_mm)), offset!(mm_exe_file)));
    }
    let fs = word(task, offset!(task_fs));
    if name == u64::from_le_bytes(*b"cwd\0\0\0\0\0") {
        walk.mnt = word(fs, offset!(fs_pwd_mnt));
        walk.dentry = word(fs, offset!(fs_pwd_dentry));
    } else if name == u64::from_le_bytes(*b"root\0\0\0\0") {
        walk.mnt = walk.root_mnt;
        walk.dentry = walk.root;
    } else {
        return FAILED;
    }
    walk.proc = proc::NO;
    MORE
}

/// Continues from an open file.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn jump(task: u64, file: u64) -> i32 {
    let walk = walk_of!(task);
    if file == 0 {
        return FAILED;
    }
    walk.mnt = word(file, offset!(file_f_path_mnt));
    walk.dentry = word(file, offset!(file_f_path_dentry));
    walk.proc = proc::NO;
    MORE
}

/// The value of a text of up to seven digits; below 0 if it is another text.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn number(text: u64) -> i32 {
    let mut number = 0;
    for at in 0..8 {
        let byte = (text >> (at * 8)) & 0xff;
        if byte == 0 {
            return if at == 0 { -1 } else { number };
        }
        if byte < b'0' as u64 || byte > b'9' as u64 {
            return -1;
        }
        number = number * 10 + (byte as i32 - b'0' as i32);
    }
    -1
}

/// Goes up: out of a mount, or to the directory above.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn up(task: u64) -> i32 {
    let walk = walk_of!(task);
    if walk.dentry == walk.root && walk.mnt == walk.root_mnt {
        walk.next = to::NAME;
        return MORE;
    }
    if walk.dentry == word(walk.mnt, offset!(vfsmount_mnt_root)) {
        let mount = walk.mnt - offset!(mount_mnt) as u64;
        let parent = word(mount, offset!(mount_mnt_parent));
        if parent == mount || parent == 0 {
            walk.next = to::NAME;
            return MORE;
        }
        walk.dentry = word(mount, offset!(mount_mnt_mountpoint));
        walk.mnt = parent + offset!(mount_mnt) as u64;
        return MORE;
    }
    walk.found = word(walk.dentry, offset!(dentry_d_parent));
    walk.found_mnt = walk.mnt;
    walk.link = word(walk.mnt - offset!(mount_mnt) as u64, offset!(mount_mnt_mounts));
    walk.next = to::MOUNT;
    MORE
}

/// Notes the file at the end of a walk, and reports its path.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn note_refused(task: u64) -> i32 {
    let Some(search) = SEARCHES.get_ptr_mut(task) else { return 0 };
    let walk = walk_of!(task);
    let inode = word(walk.dentry, offset!(dentry_d_inode));
    let count = kernel::int(inode, offset!(inode_i_writecount));
    // SAFETY: a map value, of this task alone; no arguments.
    let search: &mut SearchState = unsafe { &mut *search };
    search.refused = inode;
    search.writers = count;
    // The time of the count.
    // SAFETY: no arguments.
    search.enter_ns = unsafe { bpf_ktime_get_ns() };
    let subject = Subject { seq: search.seq, tgid: 0 };
    text::path(task, TextOf::BusyFile, subject, walk.mnt, walk.dentry);
    if walk.directory != 0 {
        let (directory, name) = (walk.directory, walk.last);
        let repair = Repair { seq: search.seq, inode, directory, name };
        let _ = REPAIRS.insert(kernel::tgid_of(task), repair, ANY);
        let _ = CONFIG.set(Config::Repairs as u32, 1, ANY);
    }
    0
}
