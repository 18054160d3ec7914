//! The maps, their values, and the counters of what found no room in them.
//!
//! Why a pointer to a map's value can be read and written, which SAFETY comments refer to: the verifier
//! checks that it was compared with null and stays within the value, and the kernel frees no element
//! while a program runs that may have found it (RCU). Values are integers, for which every pattern is
//! one. Two things nothing rules out: another processor may write the value at the same time, and the element
//! of a hash map may be deleted and serve another key at once (BPF_F_NO_PREALLOC or not). Then what a program
//! reads belongs to another inode, table or task, in part or as a whole. That is harmless because each value
//! names what it belongs to, and the program compares that at the end with the kernel's own structures: a
//! hold with the file that its table has at its fd, a run with its process's start time, a table's entry with
//! its owner. The values of `SEARCHES`, `PATH_WALKS` and `SCRATCH` are one task's own, which takes them out
//! itself.

use core::arch::asm;

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, LruHashMap, ProgramArray, RingBuf},
};
use etxtbsy_trace_common::{
    CallCount, CallKey, Config, Count, ExecCall, ExecName, Exiting, FdWord, FdWordKey, Hold,
    HoldKey, Lineage, Lost, PendingRelease, ReapKey, Reaped, Repair, Run, STACK_PLACES, Stack,
    TEXT_MAX, Table, Watch,
};

/// Update flags of `bpf_map_update_elem`, include/uapi/linux/bpf.h.
pub(crate) const ANY: u64 = 0;
/// Fails with −EEXIST if the key is there: so only one can take a place in [`HOLDS`].
pub(crate) const NOEXIST: u64 = 1;
/// −EEXIST.
pub(crate) const EEXIST: i32 = -17;
/// Memory for an element when it is needed, not all of it at the start.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_MMAPABLE` (5.5): user space reads and writes the map without a system call. While a task is in
/// bpf(2), the kernel runs no program on its CPU, not even for a task that preempts it.
const MMAPABLE: u32 = 1 << 10;

/// Every fd known to hold an inode open for writing.
#[map]
pub(crate) static HOLDS: HashMap<HoldKey, Hold> = HashMap::with_max_entries(65_536, NO_PREALLOC);

/// Holds that have ended, the youngest: a hold can end between the refusal of an exec and the program that
/// sees its failure, and the kernel drops the last reference a little later still.
#[map]
pub(crate) static ENDED: LruHashMap<HoldKey, Hold> = LruHashMap::with_max_entries(8_192, 0);

/// Where in [`HOLDS`] the holds of a table's fds are.
#[map]
pub(crate) static FD_WORDS: HashMap<FdWordKey, FdWord> =
    HashMap::with_max_entries(32_768, NO_PREALLOC);

/// The tables that have holds.
#[map]
pub(crate) static TABLES: HashMap<u64, Table> = HashMap::with_max_entries(32_768, NO_PREALLOC);

/// The openers' own holds of descriptions that outlived them, by description (`struct file *`): they show
/// who opened what other processes got unseen. LRU: no program removes an entry, and an entry counts only
/// while description, inode and flags agree.
#[map]
pub(crate) static ORPHANS: LruHashMap<u64, Hold> = LruHashMap::with_max_entries(4_096, 0);

/// The descriptions by inode, for a search: some of them, at a place that a hash of each gives.
#[map]
pub(crate) static ORPHANS_OF: LruHashMap<HoldKey, u64> = LruHashMap::with_max_entries(4_096, 0);

/// Descriptions whose release is to be reported, by the process that holds each. User space adds some.
#[map]
pub(crate) static PENDING_RELEASE: HashMap<u32, PendingRelease> =
    HashMap::with_max_entries(1_024, NO_PREALLOC);

/// Who forked the processes that inherited write fds, or share their parent's table, by process.
#[map]
pub(crate) static LINEAGE: LruHashMap<u32, Lineage> = LruHashMap::with_max_entries(8_192, 0);

/// The execs under way, by `struct task_struct *`: a thread's id changes in an exec. LRU, because
/// an exec that is killed beyond the point of no return never reports its exit.
#[map]
pub(crate) static EXECS: LruHashMap<u64, ExecCall> = LruHashMap::with_max_entries(4_096, 0);

/// The paths of successful execs that closed write fds, by
/// `struct task_struct *`.
#[map]
pub(crate) static EXEC_NAMES: LruHashMap<u64, ExecName> = LruHashMap::with_max_entries(1_024, 0);

/// What processes run, of those that were forked or have exec'd since tracing began. LRU: the end
/// of one can be missed.
#[map]
pub(crate) static RUNS: LruHashMap<u32, Run> = LruHashMap::with_max_entries(8_192, 0);

/// Runs that have ended, the youngest, by inode: a process that ran a file can have ended by the exit of the
/// call that was refused.
#[map]
pub(crate) static ENDED_RUNS: LruHashMap<HoldKey, Run> = LruHashMap::with_max_entries(4_096, 0);

/// What scripts were exec'd by processes that run their interpreter, by process.
#[map]
pub(crate) static SCRIPTS: LruHashMap<u32, ExecName> = LruHashMap::with_max_entries(1_024, 0);

/// Processes that run a file which a recent failure was about, and its inode. User space puts some
/// of them in.
#[map]
pub(crate) static RUNNING: HashMap<u32, u64> = HashMap::with_max_entries(4_096, NO_PREALLOC);

/// Processes whose writes were refused recently, and which may replace the file.
#[map]
pub(crate) static REPAIRS: LruHashMap<u32, Repair> = LruHashMap::with_max_entries(1_024, 0);

/// The walks along the paths of refused calls, by task.
#[map]
pub(crate) static PATH_WALKS: HashMap<u64, PathWalk> =
    HashMap::with_max_entries(1_024, NO_PREALLOC);

/// Threads in `do_exit` whose table had holds, by `struct task_struct *`.
#[map]
pub(crate) static EXITING: HashMap<u64, Exiting> = HashMap::with_max_entries(16_384, NO_PREALLOC);

/// Inodes of recent failures: what happens to them is reported. User space takes them out.
#[map]
pub(crate) static WATCHED: HashMap<u64, Watch> = HashMap::with_max_entries(4_096, NO_PREALLOC);

/// Inodes that more fds refer to than have places: their holders are searched for each time.
#[map]
pub(crate) static CROWDED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1_024, 0);

/// When the last message that may have brought fds came to a table, while that is followed.
#[map]
pub(crate) static RECEIVED: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4_096, 0);

/// When the last inherited write fd of an inode ended, and its place in [`ENDED`], by inode: see `copies`.
#[map]
pub(crate) static COPIES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(2_048, 0);

/// The processes that were reaped lately.
#[map]
pub(crate) static REAPED: LruHashMap<ReapKey, Reaped> = LruHashMap::with_max_entries(2_048, 0);

/// A period of time, and how many near misses were reported in it.
#[map]
pub(crate) static PACE: Array<u64> = Array::with_max_entries(2, 0);

/// The failures whose holders are being searched for, by the victim's `struct task_struct *`.
#[map]
pub(crate) static SEARCHES: HashMap<u64, SearchState> =
    HashMap::with_max_entries(1_024, NO_PREALLOC);

/// The targets of tail calls: [`etxtbsy_trace_common::TailCall`].
#[map]
pub(crate) static TAIL_CALLS: ProgramArray = ProgramArray::with_max_entries(4, 0);

/// The same for the programs on raw tracepoints, whose context is of another type.
#[map]
pub(crate) static RAW_TAIL_CALLS: ProgramArray = ProgramArray::with_max_entries(4, 0);

/// How often calls failed with ETXTBSY that are only counted ([`crate::failure::other_calls`]), by process
/// and call.
#[map]
pub(crate) static CALLS_FAILED: HashMap<CallKey, CallCount> =
    HashMap::with_max_entries(1_024, NO_PREALLOC);

/// The processes of the traced trees, when only those are of interest.
#[map]
pub(crate) static TREE: HashMap<u32, u32> = HashMap::with_max_entries(65_536, NO_PREALLOC);

/// Memory for texts, by task: a program may be preempted (7.2 on), so not by CPU.
#[map]
pub(crate) static SCRATCH: HashMap<u64, Scratch> = HashMap::with_max_entries(256, NO_PREALLOC);

/// All zeros, to make elements from that are too large for the stack.
#[map]
pub(crate) static ZERO: Array<Zero> = Array::with_max_entries(1, 0);

/// Copies of user stacks: see [`crate::stacks`]. User space reads them without a system call.
#[map]
pub(crate) static STACKS: Array<Stack> = Array::with_max_entries(STACK_PLACES, MMAPABLE);

/// The programs whose stacks are copied at opens, by the inodes of their files. User space puts them in: LRU, for nothing
/// takes them out.
#[map]
pub(crate) static STACK_PROGRAMS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(1_024, 0);

/// [`Lost`], one counter each.
#[map]
pub(crate) static LOST: Array<u64> = Array::with_max_entries(Lost::ALL.len() as u32, MMAPABLE);

/// [`Count`], one counter each.
#[map]
pub(crate) static COUNTS: Array<u64> = Array::with_max_entries(Count::ALL, MMAPABLE);

/// [`Config`], one value each.
#[map]
pub(crate) static CONFIG: Array<u64> = Array::with_max_entries(Config::ALL, MMAPABLE);

/// The records for user space.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// A failure, as the search needs it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SearchState {
    pub(crate) inode: u64,
    pub(crate) seq: u64,
    /// User pointer to the path, where the inode is not known, and its length.
    pub(crate) path: u64,
    pub(crate) len: u64,
    /// The group leader of the process at which the walk through all processes began.
    pub(crate) first: u64,
    /// Where the walk is: a group leader, and the link of the thread that was looked at last; 0 if none was.
    pub(crate) process: u64,
    pub(crate) thread: u64,
    /// The fd table that is being read or was read last, the thread it was found at, and the next word of its
    /// bitmap.
    pub(crate) table: u64,
    pub(crate) task: u64,
    pub(crate) word: u64,
    /// When the call began and returned, and [`etxtbsy_trace_common::ExecCall::arrival`] at its entry.
    pub(crate) enter_ns: u64,
    pub(crate) exit_ns: u64,
    pub(crate) arrival: u64,
    /// The places in `ENDED` whose description was being dropped when the call returned.
    pub(crate) draining: u64,
    /// The inode of a description of overlayfs that is being reported, whose file behind it is busy;
    /// else 0.
    pub(crate) other: u64,
    /// The fd of the directory that `path` is relative to, and whether the walk along it is over.
    pub(crate) directory: i32,
    pub(crate) walked: u32,
    /// Of a refused call: the inode of its file, if the walk found it.
    pub(crate) refused: u64,
    /// By how many the processes that ran it only later have changed its count.
    pub(crate) later: u64,
    /// The descriptions found so far.
    pub(crate) files: [u64; DESCRIPTIONS],
    /// How many references there were to each when it was found, until the search begins.
    pub(crate) references: [u32; DESCRIPTIONS],
    /// The sockets and io_urings that may pin descriptions, ended by zeros.
    pub(crate) pinners: [Pinner; PINNERS],
    /// The first mappings that the walk through them has counted, ended by zeros.
    pub(crate) mappings: [u64; MAPPINGS],
    /// How many of the references that were found are mappings.
    pub(crate) mapped: u32,
    /// 1 if the call is an exec that succeeded.
    pub(crate) succeeded: u32,
    /// How many references to them were found.
    pub(crate) found: u32,
    /// `i_writecount` at the exit of the call.
    pub(crate) writers: u32,
    /// 0 while the search reads fd tables for the inode, 1 while it reads them for what may pin descriptions.
    pub(crate) pass: u32,
    /// How many holders have no place of their own.
    pub(crate) unplaced: u32,
    /// How many fds and threads were looked at.
    pub(crate) steps: u32,
    /// 1 if some of its records found no room.
    pub(crate) lost: u32,
}

/// A walk along a path.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct PathWalk {
    /// Where the walk is: a mount (`struct vfsmount *`) and an entry in it.
    pub(crate) mnt: u64,
    pub(crate) dentry: u64,
    /// The entry that was found in it, and the mount of that.
    pub(crate) found_mnt: u64,
    pub(crate) found: u64,
    /// The link that is looked at next, of a list of entries or of mounts.
    pub(crate) link: u64,
    /// Where the victim's root is.
    pub(crate) root_mnt: u64,
    pub(crate) root: u64,
    /// The rest of the path (user memory), and of the links that it leads through (kernel memory).
    pub(crate) rest: [u64; TEXTS],
    /// How many of these there are, less one.
    pub(crate) depth: u64,
    /// What comes next, one of `crate::failure::resolve::to`.
    pub(crate) next: u64,
    /// The directory and the name (`hash_len`) of what the path itself ends with.
    pub(crate) directory: u64,
    pub(crate) last: u64,
    /// How many links were followed.
    pub(crate) links: u64,
    /// What procfs shows of the victim's own process: one of `crate::failure::resolve::proc`.
    pub(crate) proc: u64,
    /// The name that is looked for, its length, and the name that it is compared with.
    pub(crate) len: u64,
    pub(crate) name: [u64; NAME_WORDS],
    pub(crate) other: [u64; NAME_WORDS],
}

/// How many links within links a walk follows.
pub(crate) const TEXTS: usize = 8;
/// A name with its NUL (`NAME_MAX` + 1), in words.
pub(crate) const NAME_WORDS: usize = 32;

/// How many descriptions of one inode a search distinguishes.
pub(crate) const DESCRIPTIONS: usize = 16;
/// How many mappings of one inode a search would notice if it passed them twice.
pub(crate) const MAPPINGS: usize = 16;
/// How many sockets with something in their queues, and io_urings, a search looks into.
pub(crate) const PINNERS: usize = 64;

/// A socket or an io_uring, and a thread that has it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Pinner {
    pub(crate) file: u64,
    pub(crate) task: u64,
}

impl SearchState {
    /// Notes that a task searches; `None` if there is no room, which is counted. Written in place: the
    /// stack has no room for it.
    #[inline(always)]
    pub(crate) fn begin(
        task: u64,
        inode: u64,
        seq: u64,
        path: u64,
        lost: u32,
    ) -> Option<*mut Self> {
        let zero = ZERO.get_ptr(0)?;
        // SAFETY: a map value of zeros, larger than this one, for which zeros are a value.
        let _ = SEARCHES.insert(task, unsafe { &*zero.cast::<Self>() }, ANY);
        let search = SEARCHES.get_ptr_mut(task);
        let Some(found) = search else {
            crate::maps::lost(Lost::SearchesFull);
            return None;
        };
        // SAFETY: a map value, which this task alone uses.
        unsafe {
            (*found).inode = inode;
            (*found).seq = seq;
            (*found).path = path;
            (*found).lost = lost;
        }
        search
    }
}

/// One text under construction; a component may begin at the last byte of the usable part.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) bytes: [u8; TEXT_MAX + 512],
    /// Where a climb up a path is. In a map, because the verifier takes what is there for any value, and does
    /// not follow the climb through each.
    pub(crate) dentry: u64,
    pub(crate) mnt: u64,
    pub(crate) len: u64,
}

/// As large as the largest element.
#[repr(C)]
pub(crate) union Zero {
    pub(crate) scratch: core::mem::ManuallyDrop<Scratch>,
    pub(crate) words: FdWord,
}

/// Inserts into an LRU map, or overwrites, what is not to go before what is older. Whether it found room.
///
/// A look-up marks an element as used. Without that, a full map frees the youngest elements among the first: they are
/// put on the list of inactive elements, which is short, because those in use are on the other list
/// (`__bpf_lru_list_shrink`, kernel/bpf/bpf_lru_list.c).
#[inline(always)]
pub(crate) fn keep<K, V>(map: &LruHashMap<K, V>, key: K, value: &V) -> bool {
    let inserted = map.insert(&key, value, ANY).is_ok();
    let _ = map.get_ptr(&key);
    inserted
}

/// Counts something that could not be kept or reported.
#[inline(always)]
pub(crate) fn lost(what: Lost) {
    add(&LOST, what as u32, 1);
}

/// Adds to a [`Count`].
#[inline(always)]
pub(crate) fn count(what: Count, by: i64) {
    add(&COUNTS, what as u32, by);
}

#[inline(always)]
fn add(counters: &Array<u64>, index: u32, by: i64) {
    if let Some(counter) = counters.get_ptr_mut(index) {
        // SAFETY: a map value, see `maps`.
        unsafe { add_to(counter, by) };
    }
}

/// Adds to a number in a map, atomically.
///
/// # Safety
///
/// It is in a map value.
#[inline(always)]
pub(crate) unsafe fn add_to(counter: *mut u64, by: i64) {
    // SAFETY: the caller's promise. The atomic addition without a result (BPF_XADD), which kernels
    // before 5.12 have too; core offers no atomics that change memory on this target.
    unsafe { asm!("lock *(u64 *)({} + 0) += {}", in(reg) counter, in(reg) by) };
}
