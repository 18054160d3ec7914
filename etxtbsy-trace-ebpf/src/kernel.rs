//! Reading the kernel's structures.
//!
//! Every read is a plain load behind `bpf_rdonly_cast`, or a call of `bpf_probe_read_kernel` on kernels
//! without that (before 6.2). Both give zeros where an address is not mapped: a stale pointer yields a
//! wrong value at worst, never a fault. Whether that happened is not looked at, for each branch would
//! double what the verifier has to follow. Callers compare what they find (`f_inode`, `f_mode`, the fd
//! table) before they believe it.

use core::{arch::asm, ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext as _, Global,
    helpers::{
        bpf_get_current_pid_tgid, bpf_get_current_task,
        generated::{bpf_get_current_task_btf, bpf_probe_read_kernel},
    },
    programs::TracePointContext,
};
use etxtbsy_trace_common::{
    Actor, CAST_FUNCTION, CAST_WORDS, COMM_LEN, Calls, Config, Drain, How, Offsets, Quiet,
};

use crate::maps::CONFIG;

/// Set by user space before loading; constants to the verifier.
#[unsafe(no_mangle)]
static OFFSETS: Global<Offsets> =
    // SAFETY: integers, for which zeros are a value.
    Global::new(unsafe { MaybeUninit::zeroed().assume_init() });

/// Set by user space before loading.
#[unsafe(no_mangle)]
pub(crate) static CALLS: Global<Calls> =
    // SAFETY: integers, for which zeros are a value.
    Global::new(unsafe { MaybeUninit::zeroed().assume_init() });

/// The offset of one field.
macro_rules! offset {
    ($field:ident) => {{
        const AT: usize = core::mem::offset_of!(etxtbsy_trace_common::Offsets, $field);
        $crate::kernel::offset_at(AT)
    }};
}
pub(crate) use offset;

/// One of [`OFFSETS`], by where it stands among them.
#[inline(always)]
pub(crate) fn offset_at(at: usize) -> u32 {
    // SAFETY: within the static; volatile, because user space sets it in the object file.
    unsafe { (&raw const OFFSETS).byte_add(at).cast::<u32>().read_volatile() }
}

/// `FMODE_WRITER`, include/linux/fs.h: this description counts in its inode's `i_writecount`.
/// (`FMODE_WRITE` alone does not: a memfd has it.)
pub(crate) const FMODE_WRITER: u32 = 0x10000;
/// `__FMODE_EXEC` in `f_flags`, include/linux/fs.h: opened to be executed.
pub(crate) const FMODE_EXEC: u32 = 0x20;
/// `PF_EXITING`, include/linux/sched.h.
pub(crate) const PF_EXITING: u32 = 0x4;
/// `PF_FORKNOEXEC`, include/linux/sched.h: set by `copy_process`, cleared by `begin_new_exec` before
/// the close-on-exec fds go.
pub(crate) const PF_FORKNOEXEC: u32 = 0x40;

/// `PF_DUMPCORE` and `PF_SIGNALED`, the same: the thread dumps core, or a signal has killed it.
const PF_FATAL: u32 = 0x600;
/// `SIGNAL_GROUP_EXIT`, include/linux/sched/signal.h: the process is ending as a whole.
const SIGNAL_GROUP_EXIT: u32 = 0x4;

/// Whether these are the programs for kernels with the function `bpf_rdonly_cast` (6.2 on). There are
/// two builds of them, for what one build does not use, the verifier takes time to remove.
pub(crate) const CASTS: bool = cfg!(feature = "cast");

/// How many words one pointer from [`cast`] may be read for: `struct pt_regs` has more everywhere.
const WORDS: usize = 16;

/// An address as a pointer to words that may be read by plain loads; an address that is not mapped
/// reads as zeros (`ex_handler_bpf` and its like). A load takes 1 ns, the helper 23.
///
/// A call of `bpf_rdonly_cast`: user space puts its BTF id, and that of `struct pt_regs`, where the
/// placeholders are.
#[inline(always)]
fn cast(address: u64) -> *const u64 {
    let pointer: u64;
    // SAFETY: the verifier puts a move in the place of the call, and checks what is done with its result.
    unsafe {
        asm!(
            "r2 = {words}",
            "call {function}",
            words = const CAST_WORDS,
            function = const CAST_FUNCTION,
            inout("r1") address => _,
            lateout("r0") pointer,
            lateout("r2") _,
            lateout("r3") _,
            lateout("r4") _,
            lateout("r5") _,
            options(nomem, nostack, pure),
        );
    }
    pointer as *const u64
}

/// A value at `address` by the helper; zeros if it cannot be read.
#[inline(always)]
fn read<T: Copy>(address: u64) -> T {
    let mut value = MaybeUninit::<T>::uninit();
    let size = size_of::<T>() as u32;
    // SAFETY: the helper checks the address, and writes `size` bytes in any case; the types it
    // is used for are integers and arrays of them.
    unsafe {
        bpf_probe_read_kernel(value.as_mut_ptr().cast(), size, address as *const c_void);
        value.assume_init()
    }
}

/// A pointer or other 64-bit word at `base + offset`; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn word(base: u64, offset: u32) -> u64 {
    let address = base + offset as u64;
    if !CASTS {
        return read(address);
    }
    // SAFETY: the verifier knows the type, and a fault gives 0. Volatile: other processors write it.
    unsafe { cast(address).read_volatile() }
}

/// A 32-bit word at `base + offset`; 0 if it cannot be read.
#[inline(always)]
pub(crate) fn int(base: u64, offset: u32) -> u32 {
    let address = base + offset as u64;
    if !CASTS {
        return read(address);
    }
    // SAFETY: as in `word`.
    unsafe { cast(address).cast::<u32>().read_volatile() }
}

/// Words from `address` on; zeros if they cannot be read.
#[inline(always)]
pub(crate) fn words<const N: usize>(address: u64) -> [u64; N] {
    const { assert!(N <= WORDS) };
    if !CASTS {
        return read(address);
    }
    let from = cast(address);
    // SAFETY: as in `word`, for as many words as the type has.
    core::array::from_fn(|at| unsafe { from.add(at).read_volatile() })
}

/// A task's name: that of a thread.
#[inline(always)]
pub(crate) fn comm(task: u64) -> [u8; COMM_LEN] {
    let [first, second] = words(task + offset!(task_comm) as u64);
    let mut comm = [0; COMM_LEN];
    let (start, end) = comm.split_at_mut(COMM_LEN / 2);
    start.copy_from_slice(&first.to_ne_bytes());
    end.copy_from_slice(&second.to_ne_bytes());
    comm
}

/// `current`.
#[inline(always)]
pub(crate) fn current() -> u64 {
    // SAFETY: no arguments.
    unsafe { bpf_get_current_task() }
}

/// The result of the system call whose exit this is, as every version has it.
#[inline(always)]
pub(crate) fn result(ctx: &TracePointContext) -> i64 {
    // SAFETY: `ret` of `struct syscall_trace_exit` (kernel/trace/trace.h).
    unsafe { ctx.as_ptr().byte_add(16).cast::<i64>().read_volatile() }
}

/// An argument of the system call whose entry this is, counted from 0.
#[inline(always)]
pub(crate) fn argument(ctx: &TracePointContext, nth: usize) -> u64 {
    // SAFETY: `args` of `struct syscall_trace_enter` (kernel/trace/trace.h).
    unsafe { ctx.as_ptr().byte_add(16 + nth * 8).cast::<u64>().read_volatile() }
}

/// The number of the system call.
#[inline(always)]
pub(crate) fn syscall(ctx: &TracePointContext) -> i32 {
    // SAFETY: `nr` of both structures.
    unsafe { ctx.as_ptr().byte_add(8).cast::<i32>().read_volatile() }
}

/// Set by user space before loading: 1 where `bpf_get_current_task_btf` tells the verifier what
/// current is (5.11 on). What is reached from there is then read by plain loads, for which
/// it looks up the types, at a tenth of what the helper costs that reads any address.
#[unsafe(no_mangle)]
static TYPED: Global<u32> = Global::new(0);

/// A field of what the verifier knows the type of.
#[inline(always)]
fn typed<T: Copy>(pointer: u64, offset: u32) -> T {
    // SAFETY: the verifier allows it where there is such a field; a stale pointer reads as zeros.
    unsafe { ((pointer + offset as u64) as *const T).read_volatile() }
}

/// A pointer as a number, for maps and functions: by its distance from current.
#[inline(always)]
fn number(pointer: u64, task: u64) -> u64 {
    let mut distance = pointer;
    // SAFETY: a subtraction. In assembly, so that it is one of two pointers, which gives a number.
    unsafe { asm!("{} -= {}", inout(reg) distance, in(reg) task) };
    distance.wrapping_add(current())
}

/// Current's fd table.
#[inline(always)]
pub(crate) fn current_table() -> u64 {
    if CASTS || TYPED.load() == 0 {
        return table_of(current());
    }
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as u64;
    number(typed(task, offset!(task_files)), task)
}

/// Current's fd table, and the file at an fd of it, which is 0 if there is none.
#[inline(always)]
pub(crate) fn current_file(fd: u32) -> (u64, u64) {
    if CASTS || TYPED.load() == 0 {
        let table = table_of(current());
        return (table, file_at(table, fd));
    }
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task_btf() } as u64;
    let table: u64 = typed(task, offset!(task_files));
    let fdt: u64 = typed(table, offset!(files_fdt));
    let file = if fd < typed(fdt, offset!(fdtable_max_fds)) {
        word(typed::<u64>(fdt, offset!(fdtable_fd)) + fd as u64 * 8, 0)
    } else {
        0
    };
    (number(table, task), file)
}

/// The thread that acts at `time_ns`: `task`, which is current.
#[inline(always)]
pub(crate) fn actor(task: u64, time_ns: u64) -> Actor {
    let id = bpf_get_current_pid_tgid();
    Actor { time_ns, tgid: (id >> 32) as u32, tid: id as u32, comm: comm(task) }
}

/// A task's fd table, `struct files_struct *`; 0 once it has let go of it.
#[inline(always)]
pub(crate) fn table_of(task: u64) -> u64 {
    word(task, offset!(task_files))
}

/// A task's process.
#[inline(always)]
pub(crate) fn tgid_of(task: u64) -> u32 {
    int(task, offset!(task_tgid))
}

/// The process that a task's process was forked by, or given to since.
#[inline(always)]
pub(crate) fn ppid_of(task: u64) -> u32 {
    tgid_of(word(task, offset!(task_real_parent)))
}

/// The file at an fd of a table; 0 if there is none.
#[inline(always)]
pub(crate) fn file_at(table: u64, fd: u32) -> u64 {
    let fdt = word(table, offset!(files_fdt));
    if fdt == 0 || fd >= int(fdt, offset!(fdtable_max_fds)) {
        return 0;
    }
    word(word(fdt, offset!(fdtable_fd)) + fd as u64 * 8, 0)
}

/// Whether an fd of a table is close-on-exec.
#[inline(always)]
pub(crate) fn cloexec_at(table: u64, fd: u32) -> u32 {
    let fdt = word(table, offset!(files_fdt));
    let bits = word(word(fdt, offset!(fdtable_close_on_exec)) + (fd / 64) as u64 * 8, 0);
    (bits >> (fd % 64)) as u32 & 1
}

/// Whether a description counts as a writer of its inode.
#[inline(always)]
pub(crate) fn is_writer(file: u64) -> bool {
    int(file, offset!(file_f_mode)) & FMODE_WRITER != 0
}

/// Whether one reference to a description is all there is: no other fd, mapping, socket queue, or
/// system call under way.
#[inline(always)]
pub(crate) fn is_last_reference(file: u64) -> bool {
    word(file, offset!(file_refs)) == offset!(file_refs_one) as u64
}

/// Whether something refers to a description: an fd of any table, a mapping, a socket's queue, a
/// system call under way. (Once nothing does, it is closed when its last user gets to it.)
#[inline(always)]
pub(crate) fn is_open(file: u64, inode: u64) -> bool {
    // Signed: `f_ref` counts from 0, and is below that when it is dead.
    let refs = word(file, offset!(file_refs)) as i64;
    (inode_of(file) == inode) & is_writer(file) & (refs >= offset!(file_refs_one) as i64)
}

/// How many references there are to a description; 0 if none.
#[inline(always)]
pub(crate) fn references(file: u64) -> u32 {
    let refs = word(file, offset!(file_refs)) as i64;
    let refs = refs - offset!(file_refs_one) as i64 + 1;
    if refs < 0 { 0 } else { refs as u32 }
}

/// How far the drop of a last reference has come that left a table as `how` says, and that no list
/// of work shows: the task may have taken the list, and be at it (`task_work_run`). `task` is who
/// let go of it.
///
/// A description that is freed shows that ([`Offsets::file_freed`]), so this is evidence: what has
/// no reference and is not freed is in `__fput`, which gives up the write access just before it
/// frees it.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn drain_of(task: u64, file: u64, inode: u64, how: u32) -> u32 {
    if inode_of(file) != inode || !is_writer(file) || references(file) != 0 {
        return Drain::None as u32;
    }
    let Some(fput) = CONFIG.get_ptr(Config::Fput as u32) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let fput = unsafe { *fput };
    let work = file + offset!(file_task_work) as u64;
    let (link, function) = (word(work, offset!(callback_next)), word(work, offset!(callback_func)));
    let is_work = function == fput;
    let freed = offset!(file_freed);
    if !is_work {
        // close(2) drops it without work from 6.8 on; what stands there then is the read-ahead of
        // the file, which begins with zeros where nothing was read.
        let closing = (how == How::Close as u32) & (freed == 1) & (link == 0);
        return if closing { Drain::UnderWay as u32 } else { Drain::None as u32 };
    }
    if freed == 0 {
        return Drain::UnderWay as u32;
    }
    // An exec that is back in user mode has done its work, and a task that has ended too.
    let execs = how == How::CloseOnExec as u32;
    if execs && !(in_call(task, CALLS.load().execve) || in_call(task, CALLS.load().execveat)) {
        return Drain::None as u32;
    }
    if freed == 1 {
        // A link leads to other work, or nowhere; that of a free list is another, and scrambled.
        let follows = link == 0 || word(link, offset!(callback_func)) >> 32 == fput >> 32;
        return if follows { Drain::UnderWay as u32 } else { Drain::None as u32 };
    }
    Drain::Unclear as u32
}

/// Whether the last thing that brought a task into the kernel was that system call: it is still in it,
/// or has run in user mode without a trap since.
#[inline(always)]
pub(crate) fn in_call(task: u64, syscall: i32) -> bool {
    let regs = registers(task);
    regs == 0 || int(regs, offset!(regs_syscall)) as i32 == syscall
}

/// Whether a task is in a system call of that number, whose first argument is an fd.
#[inline(always)]
pub(crate) fn is_call_on(task: u64, syscall: i32, fd: u32) -> bool {
    in_call_on(task, syscall, fd) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn in_call_on(task: u64, syscall: i32, fd: u32) -> i32 {
    let regs = registers(task);
    let is_it = (int(regs, offset!(regs_syscall)) as i32 == syscall)
        & (word(regs, offset!(regs_first)) as u32 == fd)
        & (regs != 0);
    is_it as i32
}

/// The system call that a task has made last, which it may be in; 0 if that cannot be read.
#[inline(always)]
pub(crate) fn last_call(task: u64) -> i32 {
    int(registers(task), offset!(regs_syscall)) as i32
}

/// Whether a system call opens files by their paths or handles.
#[inline(always)]
pub(crate) fn is_open_call(syscall: i32) -> bool {
    let calls = CALLS.load();
    // −1 stands for a call that there is not, and for a task that came into the kernel by none.
    (syscall >= 0)
        & ((syscall == calls.openat)
            | (syscall == calls.openat2)
            | (syscall == calls.open)
            | (syscall == calls.creat)
            | (syscall == calls.open_by_handle_at))
}

/// When a task last got a processor, by the scheduler's clock; 0 if the kernel does not keep it.
#[inline(always)]
pub(crate) fn arrival(task: u64) -> u64 {
    if offset!(task_last_arrival) == u32::MAX { 0 } else { word(task, offset!(task_last_arrival)) }
}

/// How many threads of a process are asked.
const THREADS: u32 = 32;

/// What the threads of a task's process have been doing since `since`, by the scheduler's clock: a
/// [`Quiet`].
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn quiet_since(task: u64, since: u64) -> u32 {
    let head = word(task, offset!(task_signal)) + offset!(signal_thread_head) as u64;
    let mut link = head;
    let mut quiet = Quiet::Idle as u32;
    for _ in 0..THREADS {
        link = word(link, 0);
        if link == head {
            return quiet;
        }
        // Without a branch, which would double what the verifier has to follow.
        quiet &= thread_quiet(link - offset!(task_thread_node) as u64, since);
        if quiet == Quiet::No as u32 {
            break;
        }
    }
    Quiet::No as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn thread_quiet(thread: u64, since: u64) -> u32 {
    // One that sleeps in such a call has not received anything in it, and the fd that an open gives is in the
    // table before that call returns. One that was preempted there may have run when the other call began.
    let calls = CALLS.load();
    let syscall = last_call(thread);
    let receives = (syscall == calls.recvmsg) | (syscall == calls.recvmmsg);
    let receives = receives | (syscall == calls.pidfd_getfd) | is_open_call(syscall);
    if receives && int(thread, offset!(task_state)) == 0 {
        return Quiet::No as u32;
    }
    let known = (since != 0) & (offset!(task_on_cpu) != u32::MAX);
    if known && int(thread, offset!(task_on_cpu)) == 0 && arrival(thread) < since {
        return Quiet::Idle as u32;
    }
    Quiet::NotReceiving as u32
}

/// Whether a task's process is ending while its files are there still: by a fatal signal, and a core
/// dump perhaps.
#[inline(always)]
pub(crate) fn is_ending(task: u64) -> bool {
    let flags = int(task, offset!(task_flags)) & (PF_FATAL | PF_EXITING);
    let group = int(word(task, offset!(task_signal)), offset!(signal_flags)) & SIGNAL_GROUP_EXIT;
    flags != 0 || group != 0
}

/// How many tasks use an fd table.
#[inline(always)]
pub(crate) fn users_of(table: u64) -> u32 {
    int(table, offset!(files_count))
}

/// `OVERLAYFS_SUPER_MAGIC`, include/uapi/linux/magic.h.
const OVERLAYFS: u64 = 0x794c_7630;

/// Whether a description is one of overlayfs, and the file behind it is of this inode: that one
/// is open for writing too, in no table.
///
/// `private_data` is that file up to 6.12, and leads to a `struct ovl_file` since. Which of them
/// is not asked, for overlayfs may be a module, and without BTF: what is found has to be an open
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

/// A description's inode.
#[inline(always)]
pub(crate) fn inode_of(file: u64) -> u64 {
    word(file, offset!(file_f_inode))
}

/// How many links of a task's pending work are looked at.
const WORKS: u32 = 32;

/// Whether the last reference to `file` waits in the task's work: `fput` puts it there
/// (`task_work_add` in fs/file_table.c), and it is dropped when the task returns to user mode.
#[inline(always)]
pub(crate) fn in_works(task: u64, file: u64) -> bool {
    waits(task, file) != 0
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn waits(task: u64, file: u64) -> i32 {
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

/// A task's saved registers of user mode, `struct pt_regs *`; 0 if it is not known where they are.
#[inline(always)]
pub(crate) fn registers(task: u64) -> u64 {
    let Some(at) = CONFIG.get_ptr(Config::Registers as u32) else { return 0 };
    // SAFETY: a map value, see `maps`.
    let at = unsafe { *at };
    if at == 0 { 0 } else { word(task, offset!(task_stack)) + at }
}

/// From `task_struct.stack` to the saved registers, given a task in a system call, the number of
/// that and its first argument; 0 if they are not where they are looked for: at the end of the
/// stack, whose size is a power of two, but for a few words in some configurations
/// (`TOP_OF_KERNEL_STACK_PADDING`).
#[inline(always)]
pub(crate) fn find_registers(task: u64, syscall: i32, first: u64) -> u64 {
    let stack = word(task, offset!(task_stack));
    let mut found = 0;
    for size in 13..18_u32 {
        for padding in 0..8_u32 {
            let at = ((1 << size) - offset!(regs_size) - padding * 8) as u64;
            let number = int(stack + at, offset!(regs_syscall)) as i32;
            if number == syscall && word(stack + at, offset!(regs_first)) == first {
                found = at;
            }
        }
    }
    found
}

/// The `struct pid *` of a task's process; 0 if that has ended.
#[inline(always)]
fn pid_of(task: u64) -> u64 {
    word(word(task, offset!(task_group_leader)), offset!(task_thread_pid))
}

/// One number of a `struct pid`, `struct upid *`: the one `level` namespaces below the machine's
/// first; 0 if it has none there.
#[inline(always)]
fn upid(pid: u64, level: u32) -> u64 {
    // 32: MAX_PID_NS_LEVEL, include/linux/pid_namespace.h.
    if pid == 0 || level > 32 || level > int(pid, offset!(pid_level)) {
        return 0;
    }
    pid + offset!(pid_numbers) as u64 + level as u64 * offset!(upid_size) as u64
}

/// A task's process as its own pid namespace has it; 0 if it has ended.
#[inline(always)]
pub(crate) fn ns_pid(task: u64) -> u32 {
    let pid = pid_of(task);
    int(upid(pid, int(pid, offset!(pid_level))), offset!(upid_nr))
}

/// A task's process as the tracer's pid namespace has it; 0 if that does not have it.
#[inline(always)]
pub(crate) fn local_pid(task: u64) -> u32 {
    let (Some(level), Some(namespace)) =
        (CONFIG.get_ptr(Config::PidLevel as u32), CONFIG.get_ptr(Config::PidNamespace as u32))
    else {
        return 0;
    };
    // SAFETY: map values.
    let (level, namespace) = unsafe { (*level as u32, *namespace) };
    let upid = upid(pid_of(task), level);
    if word(upid, offset!(upid_ns)) != namespace {
        return 0;
    }
    int(upid, offset!(upid_nr))
}

/// A task's pid namespace: how many there are above it, and it, `struct pid_namespace *`.
#[inline(always)]
pub(crate) fn pid_namespace(task: u64) -> (u32, u64) {
    let pid = pid_of(task);
    let level = int(pid, offset!(pid_level));
    (level, word(upid(pid, level), offset!(upid_ns)))
}

/// A task's user.
#[inline(always)]
pub(crate) fn uid(task: u64) -> u32 {
    int(word(task, offset!(task_real_cred)), offset!(cred_uid))
}

/// The id of a task's cgroup in the v2 hierarchy.
#[inline(always)]
pub(crate) fn cgroup(task: u64) -> u64 {
    let cgroup = word(word(task, offset!(task_cgroups)), offset!(css_set_dfl_cgrp));
    word(word(cgroup, offset!(cgroup_kn)), offset!(kernfs_node_id))
}
