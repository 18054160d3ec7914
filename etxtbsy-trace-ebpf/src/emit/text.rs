//! Texts: paths and argument vectors, of any length up to `TEXT_MAX`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
};
use etxtbsy_trace_common::{Kind, Lost, TEXT_MAX, TextHeader, TextOf};

use crate::{
    emit::ringbuf::{self, QUIET},
    kernel::{offset, word},
    maps::{ANY, SCRATCH, Scratch, ZERO, lost},
};

const HEAD: usize = size_of::<TextHeader>();
/// The longest name of a path component, with its NUL (`NAME_MAX` + 1).
const NAME: u32 = 256;
/// How many components of a path one call of [`climb_on`] reads, and how many such calls there are.
const STEPS: u32 = 8;
const CALLS: u32 = 16;

/// Whose text it is.
#[derive(Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) seq: u64,
    pub(crate) tgid: u32,
}

/// Takes scratch memory for this task; `give_back` must follow.
#[inline(always)]
fn take(task: u64) -> Option<*mut Scratch> {
    let zero = ZERO.get_ptr(0)?;
    // SAFETY: a map value of zeros, as large as a scratch.
    let _ = SCRATCH.insert(task, unsafe { &*zero.cast::<Scratch>() }, ANY);
    let scratch = SCRATCH.get_ptr_mut(task);
    if scratch.is_none() {
        lost(Lost::NoScratch);
    }
    scratch
}

#[inline(always)]
fn give_back(task: u64) {
    let _ = SCRATCH.remove(task);
}

/// Reports the text of `len` bytes that follows the head in `scratch`.
#[inline(always)]
fn emit(scratch: *mut Scratch, of: u32, subject: Subject, len: u32, truncated: bool) {
    let len = if len > TEXT_MAX as u32 { TEXT_MAX as u32 } else { len };
    let head = TextHeader {
        kind: Kind::Text as u32,
        of,
        seq: subject.seq,
        tgid: subject.tgid,
        len,
        truncated: truncated as u32,
        pad: 0,
    };
    // SAFETY: the scratch begins with room for a head.
    unsafe { scratch.cast::<TextHeader>().write(head) };
    ringbuf::bytes(scratch.cast(), (HEAD as u32 + len) as u64, QUIET);
}

/// A path in user memory, which with its NUL is never longer than `TEXT_MAX` (`PATH_MAX`).
#[inline(always)]
pub(crate) fn user_string(task: u64, of: TextOf, subject: Subject, address: u64) {
    let Some(scratch) = take(task) else { return };
    // SAFETY: the text part of the scratch has TEXT_MAX bytes and more.
    let len = unsafe {
        bpf_probe_read_user_str(text(scratch, 0), TEXT_MAX as u32, address as *const c_void)
    };
    // With its NUL; many kernels return 0 for an empty string (`strncpy_from_user_nofault`).
    if len >= 0 {
        let text = if len > 0 { len as u32 - 1 } else { 0 };
        emit(scratch, of as u32, subject, text, false);
    }
    give_back(task);
}

/// The length of a string in user memory, `TEXT_MAX` at most.
#[inline(always)]
pub(crate) fn user_len(task: u64, address: u64) -> u64 {
    let Some(scratch) = take(task) else { return 0 };
    // SAFETY: the text part of the scratch has TEXT_MAX bytes and more.
    let len = unsafe {
        bpf_probe_read_user_str(text(scratch, 0), TEXT_MAX as u32, address as *const c_void)
    };
    give_back(task);
    if len > 0 { len as u64 - 1 } else { 0 }
}

/// `end − start` bytes of user memory.
#[inline(always)]
pub(crate) fn user_bytes(task: u64, of: TextOf, subject: Subject, start: u64, end: u64) {
    let Some(scratch) = take(task) else { return };
    let wanted = end.wrapping_sub(start);
    let len = if wanted > TEXT_MAX as u64 { TEXT_MAX as u64 } else { wanted };
    // SAFETY: as above.
    let error =
        unsafe { bpf_probe_read_user(text(scratch, 0), len as u32, start as *const c_void) };
    if error == 0 && len > 0 {
        emit(scratch, of as u32, subject, len as u32, wanted > TEXT_MAX as u64);
    }
    give_back(task);
}

/// The path of `mnt` and `dentry`, as the names of its components from the leaf to the root of the mount
/// namespace, each ended by NUL. This does what `prepend_path` (fs/d_path.c) does, without its locks: the
/// path may mix the states before and after a rename at the same time.
#[inline(always)]
pub(crate) fn path(task: u64, of: TextOf, subject: Subject, mnt: u64, dentry: u64) {
    climb(task, subject.seq, (subject.tgid as u64) << 32 | of as u64, mnt, dentry);
}

/// The path of an open file description.
#[inline(always)]
pub(crate) fn file_path(task: u64, of: TextOf, subject: Subject, file: u64) {
    let (mnt, dentry) =
        (word(file, offset!(file_f_path_mnt)), word(file, offset!(file_f_path_dentry)));
    path(task, of, subject, mnt, dentry);
}

/// [`path`]; a global function, so that the verifier checks it once. `about` is the process and,
/// in its lower half, a [`TextOf`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn climb(task: u64, seq: u64, about: u64, mnt: u64, dentry: u64) -> i32 {
    if dentry == 0 {
        return 0;
    }
    let Some(scratch) = take(task) else { return 0 };
    // SAFETY: a map value, of this task alone.
    let climb = unsafe { &mut *scratch };
    climb.dentry = dentry;
    climb.mnt = mnt;
    climb.len = 0;
    let mut done = false;
    for _ in 0..CALLS {
        let step = climb_on(task);
        if step != STEPPED {
            done = step == DONE;
            break;
        }
    }
    let subject = Subject { seq, tgid: (about >> 32) as u32 };
    emit(scratch, about as u32, subject, climb.len as u32, !done);
    give_back(task);
    1
}

/// Some steps up the path in a task's scratch.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn climb_on(task: u64) -> i32 {
    let Some(scratch) = SCRATCH.get_ptr_mut(task) else { return CUT };
    // SAFETY: a map value, of this task alone.
    let climb = unsafe { &mut *scratch };
    for _ in 0..STEPS {
        let step = climb_step(climb);
        if step != STEPPED {
            return step;
        }
    }
    STEPPED
}

/// [`climb_step`] returns: there is more.
const STEPPED: i32 = 0;
/// There is nothing above.
const DONE: i32 = 1;
/// There may be, but the climb ends here.
const CUT: i32 = 2;

/// One step up a path.
#[inline(always)]
fn climb_step(climb: &mut Scratch) -> i32 {
    let (dentry, mnt) = (climb.dentry, climb.mnt);
    if dentry == word(mnt, offset!(vfsmount_mnt_root)) {
        let mount = mnt - offset!(mount_mnt) as u64;
        let parent = word(mount, offset!(mount_mnt_parent));
        if parent == mount || parent == 0 {
            return DONE;
        }
        climb.dentry = word(mount, offset!(mount_mnt_mountpoint));
        climb.mnt = parent + offset!(mount_mnt) as u64;
        return STEPPED;
    }
    let len = climb.len;
    if len > (TEXT_MAX as u64 - NAME as u64) {
        return CUT;
    }
    let name = word(dentry, offset!(dentry_d_name_name));
    // SAFETY: `len` + NAME stays within the scratch.
    let read = unsafe { bpf_probe_read_kernel_str(text(climb, len), NAME, name as *const c_void) };
    if read <= 0 {
        return CUT;
    }
    climb.len = len + read as u64;
    let parent = word(dentry, offset!(dentry_d_parent));
    climb.dentry = parent;
    // It is below no root: a memfd, or a file of a mount that was detached.
    if parent == dentry { DONE } else { STEPPED }
}

/// The text part of a scratch, from its byte `from` on.
#[inline(always)]
fn text(scratch: *mut Scratch, from: u64) -> *mut c_void {
    // SAFETY: callers keep within the scratch, and the verifier sees that they do.
    unsafe { scratch.cast::<u8>().add(HEAD).add(from as usize).cast() }
}
