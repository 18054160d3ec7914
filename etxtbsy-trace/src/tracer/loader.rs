//! Loading the programs, attaching them, and speaking with their maps.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    num::NonZero,
    os::fd::{AsFd as _, AsRawFd},
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread::{self, ScopedJoinHandle},
    time::Instant,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{HashMap, Map, MapData, MapError, ProgramArray, RingBuf},
    programs::{
        Iter, Program, ProgramError, RawTracePoint, RawTracePointRunOptions, TestRun as _,
        TracePoint, raw_trace_point::RawTracePointLink,
    },
};
use etxtbsy_trace_common::{
    CallCount, CallKey, Calls, Compat32, Config, Count, ExecCall, ExecName, Hold, Intake, Interest,
    Lineage, Lingering, Lost, Next, Offsets, PidPair, Run, Watch,
};

use aya_log::EbpfLogger;
use nix::time::ClockId;
use zerocopy::FromBytes as _;

use super::{features, layout, object, offsets};
use crate::tracer::{
    dormant::Dormant,
    features::{Cast, RingCompletion},
    layout::Layout as _,
    numbers::Numbers,
    tracefs::with_tracefs,
};
use crate::{
    event::TreeRole as Role,
    host::{clock::now_ns, pids::Pids},
    tracer::calibrate,
};

/// A program and the system call tracepoints it stands on; those the kernel does not have
/// (older architectures' calls) are left out, if `optional`.
struct Syscall {
    program: &'static str,
    tracepoints: &'static [&'static str],
    optional: bool,
}

/// The programs on system calls. Releases are attached before acquisitions, so that whatever is
/// seen to begin is seen to end.
const SYSCALLS: [Syscall; 13] = [
    Syscall { program: "closing", tracepoints: &["sys_enter_close"], optional: false },
    // 5.9 on.
    Syscall { program: "closed_range", tracepoints: &["sys_exit_close_range"], optional: true },
    Syscall { program: "refused", tracepoints: &["sys_exit_truncate"], optional: false },
    Syscall {
        program: "slow_call_returns",
        tracepoints: &[
            "sys_exit_munmap",
            "sys_exit_mremap",
            "sys_exit_flock",
            "sys_exit_fsync",
            "sys_exit_fdatasync",
            "sys_exit_fallocate",
            "sys_exit_ftruncate",
        ],
        optional: false,
    },
    Syscall {
        program: "other_call_returns",
        tracepoints: &[
            "sys_exit_swapon",
            "sys_exit_finit_module",
            "sys_exit_copy_file_range",
            "sys_exit_unlinkat",
            "sys_exit_renameat",
            "sys_exit_renameat2",
        ],
        optional: true,
    },
    // arm64 has none of the last two; the first needs CONFIG_KEXEC_FILE.
    Syscall {
        program: "other_call_returns",
        tracepoints: &["sys_exit_kexec_file_load", "sys_exit_unlink", "sys_exit_rename"],
        optional: true,
    },
    Syscall { program: "unshared", tracepoints: &["sys_exit_unshare"], optional: false },
    Syscall {
        program: "exec_returns",
        tracepoints: &["sys_exit_execve", "sys_exit_execveat"],
        optional: false,
    },
    Syscall { program: "enter_execve", tracepoints: &["sys_enter_execve"], optional: false },
    Syscall { program: "enter_execveat", tracepoints: &["sys_enter_execveat"], optional: false },
    Syscall {
        program: "duplicated",
        tracepoints: &["sys_exit_dup", "sys_exit_dup3", "sys_exit_fcntl"],
        optional: false,
    },
    Syscall {
        program: "opened",
        tracepoints: &["sys_exit_openat", "sys_exit_openat2", "sys_exit_open_by_handle_at"],
        optional: false,
    },
    // arm64 has none of these calls.
    Syscall {
        program: "opened",
        tracepoints: &["sys_exit_open", "sys_exit_creat"],
        optional: true,
    },
];

/// `dup2`, which arm64 does not have.
const DUP2: Syscall =
    Syscall { program: "duplicated", tracepoints: &["sys_exit_dup2"], optional: true };

/// The program that is attached once an fd from another process has made an exec fail.
const PASSED: Syscall = Syscall {
    program: "received",
    tracepoints: &["sys_exit_recvmsg", "sys_exit_recvmmsg", "sys_exit_pidfd_getfd"],
    optional: false,
};

/// Where programs are preempted, what an exec's return means is not left to one: what the second
/// is for ([`features::preempts_programs`]).
const AGAIN: Syscall = Syscall {
    program: "exec_returns_again",
    tracepoints: &["sys_exit_execve", "sys_exit_execveat"],
    optional: false,
};

/// The programs on raw tracepoints, releases first.
const RAW: [(&str, &str); 5] = [
    ("parent_told", "signal_generate"),
    ("freed", "sched_process_free"),
    ("exiting", "sched_process_exit"),
    ("execed", "sched_process_exec"),
    ("forked", "sched_process_fork"),
];

/// The programs on system calls' tracepoints that others go on with.
const GONE_ON_WITH: [(&str, Next); 4] = [
    ("search", Next::Search),
    ("runners", Next::Runners),
    ("refused", Next::Refused),
    ("resolve", Next::Resolve),
];

/// The program on io_uring, whose tracepoint tells of which request since 6.0 only.
const RING: (&str, &str) = ("ring_completes", "io_uring_complete");

/// The program that is attached while the end of a call is waited for.
const CALL_RETURNS: (&str, &str) = ("call_returns", "sys_exit");

/// The program that is attached once a 32-bit program runs.
const COMPAT_RETURNS: (&str, &str) = ("compat_returns", "sys_exit");

/// The program that it continues with after an exec, which is loaded then.
const COMPAT_SEARCH: (&str, Next) = ("compat_search", Next::Search);

/// The programs that it continues with after a refused call, as does the one on io_uring.
const RAW_NEXT: [(&str, Next); 2] =
    [("compat_runners", Next::Runners), ("compat_resolve", Next::Resolve)];

/// Those that are run on demand, or attached for a while.
const UNATTACHED: [&str; 10] = [
    "introduce",
    "lives",
    "still_open",
    "still_there",
    "write_count",
    "keeps",
    "is_swap_file",
    "inode_at",
    CALL_RETURNS.0,
    RING.0,
];

/// The iterator over all open files, at the start.
const SEED: &str = "seed";

/// The iterator over the processes of our pid namespace.
const PIDS: &str = "pids";

/// A tracepoint that a program stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracepoint {
    /// Its name, such as `sys_exit_execve`.
    pub name: &'static str,
    /// The program.
    pub program: &'static str,
    /// How it is attached to.
    pub kind: TracepointKind,
}

/// How a tracepoint is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TracepointKind {
    /// Of a system call, by its number in tracefs. Without one there is no such call, if it is
    /// `optional`.
    Syscall {
        /// Whether a kernel need not have that call.
        optional: bool,
    },
    /// By its name.
    Raw,
    /// By its name, where it has the shape that is known ([`features::ring_completion`]).
    Ring,
}

/// Every tracepoint that the programs stand on, from the tables by which they are attached.
pub fn tracepoints() -> impl Iterator<Item = Tracepoint> {
    let calls = SYSCALLS.into_iter().chain([DUP2, PASSED]).flat_map(|call| {
        let Syscall { program, tracepoints, optional } = call;
        let kind = TracepointKind::Syscall { optional };
        tracepoints.iter().map(move |name| Tracepoint { name, program, kind })
    });
    let by_name = |kind| move |(program, name)| Tracepoint { name, program, kind };
    let raw = RAW.into_iter().chain([CALL_RETURNS, COMPAT_RETURNS]);
    calls.chain(raw.map(by_name(TracepointKind::Raw))).chain([by_name(TracepointKind::Ring)(RING)])
}

/// How many failures are made at the most for the programs to learn from.
const LESSONS: u32 = 16;

/// `BPF_NOEXIST`, include/uapi/linux/bpf.h.
const BPF_NOEXIST: u64 = 1;

/// The running programs; they stop when this is dropped.
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct Tracer {
    ebpf: Ebpf,
    /// By [`Config`], [`Count`] and [`Lost`].
    config: Numbers,
    counts: Numbers,
    lost: Numbers,
    filtered: bool,
    /// Whether opens by io_uring can be followed.
    ring: bool,
    /// Whether the system calls of 32-bit programs are followed.
    compat: bool,
    /// Whether programs can be preempted.
    preempted: bool,
    /// The attachment of `call_returns`, while that is waited for.
    call_returns: Option<RawTracePointLink>,
    /// Whether this process's pid namespace is another than the machine's first.
    is_contained: bool,
    /// Where the program for fds from other processes is attached once it is needed.
    passed: Dormant,
    /// What [`Self::entry_fields`] has found, once it was asked.
    entry_fields: OnceCell<Option<(u32, u32)>>,
}

/// Options of [`Tracer::start`].
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Only failures in these processes and their descendants are of interest; pids of the
    /// tracer's namespace.
    pub roots: Option<Vec<u32>>,
    /// Whether failures are of interest that the processes of the tree had, or caused.
    pub role: Role,
    /// The size of the ring buffer in bytes, a power of two of at least one page; `None` for the
    /// size the programs have.
    pub ring_bytes: Option<u32>,
    /// Whether the programs' own diagnostics are shown.
    pub verbose: bool,
}

/// What its BTF tells of the running kernel.
struct Kernel {
    offsets: Offsets,
    ring_completion: RingCompletion,
    maps_allocate_late: bool,
    preempts_programs: bool,
    current_is_typed: bool,
    cast: Option<Cast>,
}

impl Kernel {
    fn read() -> anyhow::Result<Self> {
        let btf = layout::running_kernel()?;
        Ok(Self {
            offsets: offsets::resolve(&btf)?,
            ring_completion: features::ring_completion(&btf),
            maps_allocate_late: features::maps_allocate_late(&btf),
            preempts_programs: features::preempts_programs(&btf),
            current_is_typed: features::current_is_typed(&btf),
            cast: features::cast(&btf),
        })
    }
}

impl Tracer {
    /// Loads and attaches the programs, notes the write fds that are open already, and learns
    /// from a failure of its own making what a failing exec looks like on this kernel. Failures are
    /// seen once they are taken ([`Self::take`]).
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let began = Instant::now();
        let (kernel, btf) = thread::scope(|scope| {
            let kernel = thread::Builder::new().spawn_scoped(scope, Kernel::read);
            let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF");
            // Where there is no memory for a thread, there may be some without.
            (kernel.map_or_else(|_| Kernel::read(), joined), btf)
        });
        let (kernel, btf) = (kernel?, btf?);
        let loaded = load_object(&kernel, &btf, options, kernel.cast);
        let ebpf = match loaded {
            // What the cast takes cannot all be known before: where programs are not compiled, say.
            Err(error) if kernel.cast.is_some() => {
                log::info!("{error:#}; reading the kernel by the helper");
                load_object(&kernel, &btf, options, None)?
            }
            loaded => loaded?,
        };
        log::debug!("programs loaded after {:?}", began.elapsed());
        let mut tracer = Self {
            config: Numbers::of(&ebpf, "CONFIG", Config::ALL)?,
            counts: Numbers::of(&ebpf, "COUNTS", Count::ALL)?,
            lost: Numbers::of(&ebpf, "LOST", Lost::ALL.len() as u32)?,
            ebpf,
            filtered: options.roots.is_some(),
            ring: kernel.ring_completion != RingCompletion::Unknown,
            compat: false,
            preempted: kernel.preempts_programs,
            call_returns: None,
            is_contained: false,
            passed: with_tracefs(|| Dormant::open(PASSED.tracepoints))??,
            entry_fields: OnceCell::new(),
        };
        tracer.introduce(&btf)?;
        let pids = tracer.pids()?;
        for root in options.roots.iter().flatten().filter_map(|root| pids.machine(*root)) {
            tracer.add_to_tree(root)?;
        }
        tracer.link()?;
        tracer.attach()?;
        log::debug!("programs attached after {:?}", began.elapsed());
        tracer.seed()?;
        log::debug!("open files noted after {:?}", began.elapsed());
        tracer.follow_compat()?;
        tracer.learn()?;
        log::debug!("ready after {:?}", began.elapsed());
        Ok(tracer)
    }

    /// Tells the programs who the tracer is, and finds out whether its pids are the machine's.
    fn introduce(&mut self, btf: &Btf) -> anyhow::Result<()> {
        self.is_contained = self.ask("introduce", &[])? != 0;
        if self.is_contained {
            let pids: &mut Iter = program_of(&mut self.ebpf, PIDS)?;
            pids.load("task", btf).map_err(|error| refusal(PIDS, error))?;
        }
        Ok(())
    }

    /// The processes that can be seen from here, by their pids here and in the machine's first
    /// namespace.
    pub fn pids(&mut self) -> anyhow::Result<Pids> {
        if !self.is_contained {
            return Ok(Pids::same());
        }
        let mut bytes = Vec::new();
        self.iterate(PIDS)?.read_to_end(&mut bytes).context("cannot list the processes")?;
        let pairs = bytes.chunks_exact(size_of::<PidPair>());
        let pairs: Vec<_> = pairs.filter_map(|pair| PidPair::read_from_bytes(pair).ok()).collect();
        Ok(Pids::of(&pairs))
    }

    /// Tells the programs which others they go on with.
    fn link(&mut self) -> anyhow::Result<()> {
        for (name, next) in GONE_ON_WITH {
            let program: &mut TracePoint = program_of(&mut self.ebpf, name)?;
            let program = program.fd()?.try_clone()?;
            let mut map: ProgramArray<_> = ProgramArray::try_from(self.map_mut("NEXT")?)?;
            map.set(next as u32, &program, 0)?;
        }
        RAW_NEXT.into_iter().try_for_each(|(name, next)| self.link_raw(name, next))
    }

    /// The same for a program on a raw tracepoint.
    fn link_raw(&mut self, name: &str, next: Next) -> anyhow::Result<()> {
        let program: &mut RawTracePoint = program_of(&mut self.ebpf, name)?;
        let program = program.fd()?.try_clone()?;
        let mut map: ProgramArray<_> = ProgramArray::try_from(self.map_mut("COMPAT_NEXT")?)?;
        Ok(map.set(next as u32, &program, 0)?)
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        let again = self.preempted.then_some(&AGAIN);
        let ebpf = &mut self.ebpf;
        if self.ring {
            let program: &mut RawTracePoint = program_of(ebpf, RING.0)?;
            program.attach(RING.1).context("cannot attach to io_uring_complete")?;
        }
        for (program, tracepoint) in RAW {
            let program: &mut RawTracePoint = program_of(ebpf, program)?;
            program
                .attach(tracepoint)
                .with_context(|| format!("cannot attach to the tracepoint {tracepoint}"))?;
        }
        with_tracefs(|| -> anyhow::Result<()> {
            for Syscall { program, tracepoints, optional } in
                SYSCALLS.iter().chain([&DUP2]).chain(again)
            {
                let program: &mut TracePoint = program_of(ebpf, program)?;
                for tracepoint in *tracepoints {
                    match program.attach("syscalls", tracepoint) {
                        Err(error) if !optional => {
                            return Err(error).with_context(|| {
                                format!("cannot attach to the tracepoint syscalls:{tracepoint}")
                            });
                        }
                        _ => {}
                    }
                }
            }
            Ok(())
        })?
    }

    /// Runs the `task_file` iterator, which notes every write fd that is open.
    fn seed(&mut self) -> anyhow::Result<()> {
        // Reading drives the iterator; the program itself writes nothing.
        std::io::copy(&mut self.iterate(SEED)?, &mut std::io::sink())
            .context("cannot list the open files")?;
        Ok(())
    }

    /// A run of an iterator, to be read.
    fn iterate(&mut self, name: &str) -> anyhow::Result<File> {
        let program: &mut Iter = program_of(&mut self.ebpf, name)?;
        let link =
            program.attach().with_context(|| format!("cannot attach the iterator {name}"))?;
        Ok(program.take_link(link)?.into_file()?)
    }

    /// Follows the system calls of 32-bit programs from now on, if one was seen to run. Running it
    /// again repeats nothing.
    pub fn follow_compat(&mut self) -> anyhow::Result<()> {
        if !self.has_seen_compat() {
            return Ok(());
        }
        let followed = Compat32::Followed as u64;
        if self.compat {
            // Two processors may have seen the first one, the second after it was followed.
            self.config.set(Config::Compat as u32, followed);
            return Ok(());
        }
        log::info!("a 32-bit program runs: following all system calls");
        // This one is loaded already, for loading takes longer than many a program runs.
        let program: &mut RawTracePoint = program_of(&mut self.ebpf, COMPAT_RETURNS.0)?;
        program.attach(COMPAT_RETURNS.1).context("cannot attach to the tracepoint sys_exit")?;
        self.compat = true;
        self.config.set(Config::Compat as u32, followed);
        log::debug!("32-bit programs are followed");
        let (name, next) = COMPAT_SEARCH;
        let program: &mut RawTracePoint = program_of(&mut self.ebpf, name)?;
        program.load().map_err(|error| refusal(name, error))?;
        self.link_raw(name, next)
    }

    /// Whether a 32-bit program was seen to run.
    #[must_use]
    pub fn has_seen_compat(&self) -> bool {
        self.config.get(Config::Compat as u32) != Compat32::Unseen as u64
    }

    /// Whether programs may have to be loaded yet, by [`Tracer::follow_compat`].
    #[must_use]
    pub fn may_load(&self) -> bool {
        cfg!(target_arch = "x86_64") && !self.compat
    }

    /// Since when fds that come from other processes are followed; 0 if they are not.
    #[must_use]
    pub fn passed_since_ns(&self) -> u64 {
        self.config.get(Config::Passed as u32)
    }

    /// Follows fds that come from other processes, from now on: once one of them has made an exec fail,
    /// for it costs every message that brings control data.
    pub fn follow_passed(&mut self) -> anyhow::Result<()> {
        log::info!("an fd came from another process: following messages that bring fds");
        let program: &mut TracePoint = program_of(&mut self.ebpf, PASSED.program)?;
        self.passed.attach(program.fd()?.as_fd()).context("cannot attach to recvmsg")?;
        self.config.set(Config::Passed as u32, now_ns(ClockId::CLOCK_MONOTONIC));
        Ok(())
    }

    /// Makes an exec fail, and lets the programs learn from it. More than once if need be: the kernel
    /// passes over programs while another process is in bpf(2) on the same processor.
    fn learn(&self) -> anyhow::Result<()> {
        for _ in 0..LESSONS {
            ensure!(calibrate::busy_exec()?, calibrate::ALLOWED);
            if self.config.get(Config::Fput as u32) != 0 {
                return Ok(());
            }
        }
        let teacher = std::process::id();
        bail!("the eBPF programs did not see the failing execs of process {teacher}");
    }

    /// Adds a process to those whose failures are of interest; false if it was there already.
    pub fn add_to_tree(&mut self, pid: u32) -> anyhow::Result<bool> {
        let mut tree: HashMap<_, u32, u32> = HashMap::try_from(self.map_mut("TREE")?)?;
        match tree.insert(pid, 1, BPF_NOEXIST) {
            Ok(()) => {
                self.change_found(1);
                Ok(true)
            }
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).with_context(|| format!("cannot note process {pid}")),
        }
    }

    /// Takes a process out again that was added when it had ended already.
    pub fn remove_from_tree(&mut self, pid: u32) -> anyhow::Result<()> {
        let mut tree: HashMap<_, u32, u32> = HashMap::try_from(self.map_mut("TREE")?)?;
        // If it is not there any more, the programs have seen its end, and counted it.
        if tree.remove(&pid).is_ok() {
            self.change_found(-1);
        }
        Ok(())
    }

    fn change_found(&self, by: i64) {
        let found = self.config.get(Config::TreeFound as u32);
        self.config.set(Config::TreeFound as u32, found.wrapping_add_signed(by));
    }

    /// Whether only the processes of a tree are of interest.
    #[must_use]
    pub fn is_filtered(&self) -> bool {
        self.filtered
    }

    /// The processes of the tree, as the programs know them.
    pub fn tree(&mut self) -> anyhow::Result<Vec<u32>> {
        let tree: HashMap<_, u32, u32> = HashMap::try_from(self.map_mut("TREE")?)?;
        Ok(tree.keys().collect::<Result<_, _>>()?)
    }

    /// Whether a process is of the tree.
    #[must_use]
    pub fn is_in_tree(&self, pid: u32) -> bool {
        let tree = self.ebpf.map("TREE").and_then(|map| HashMap::<_, u32, u32>::try_from(map).ok());
        tree.is_some_and(|tree| tree.get(&pid, 0).is_ok())
    }

    /// How many processes of the tree live.
    #[must_use]
    pub fn tree_size(&self) -> u64 {
        let found = self.config.get(Config::TreeFound as u32);
        found.wrapping_add(self.counts.get(Count::Tree as u32))
    }

    /// How many calls of interest have failed so far, told or not.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.counts.get(Count::Failures as u32)
    }

    /// How many calls failed that are only counted.
    #[must_use]
    pub fn other_calls(&self) -> u64 {
        self.counts.get(Count::OtherCalls as u32)
    }

    /// The same by process and call.
    pub fn other_calls_by_process(&mut self) -> anyhow::Result<Vec<(CallKey, CallCount)>> {
        let map: HashMap<_, CallKey, CallCount> = HashMap::try_from(self.map_mut("CALLS_FAILED")?)?;
        Ok(map.iter().collect::<Result<_, _>>()?)
    }

    /// How many execs outside the tree failed while a process of the tree held the file.
    #[must_use]
    pub fn elsewhere(&self) -> u64 {
        self.counts.get(Count::Elsewhere as u32)
    }

    /// Says what is to become of failures from now on.
    pub fn take(&self, intake: Intake) {
        self.config.set(Config::Intake as u32, intake as u64);
    }

    /// How much of a kind has been lost so far.
    #[must_use]
    pub fn lost(&self, what: Lost) -> u64 {
        self.lost.get(what as u32)
    }

    /// How often the kernel has passed over a program so far because it, or another, was under way
    /// on that processor: interrupted, or (7.2 on) preempted. Counted from 5.12 on.
    #[must_use]
    pub fn missed(&self) -> u64 {
        // What the second one has done was not missed.
        let mended = |name: &str| self.preempted && name == "exec_returns";
        let programs = self.ebpf.programs().filter(|(name, _)| !mended(name));
        let missed = programs.filter_map(|(name, program)| {
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let told = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let missed = misses(&told).filter(|missed| *missed > 0)?;
            log::debug!("{name} was passed over {missed} times");
            Some(missed)
        });
        missed.sum()
    }

    /// Who forked a process, if it inherited a write fd then.
    #[must_use]
    pub fn lineage(&self, pid: u32) -> Option<Lineage> {
        let map: HashMap<_, u32, Lineage> = HashMap::try_from(self.ebpf.map("LINEAGE")?).ok()?;
        map.get(&pid, 0).ok()
    }

    /// When a process last executed a program, if that was seen and is not long ago; else 0.
    #[must_use]
    pub fn last_exec_ns(&self, pid: u32) -> u64 {
        self.run(pid).map_or(0, |run| run.exec_ns)
    }

    /// Whether the kernel lets us read maps by bpf(2).
    #[must_use]
    pub fn reads_maps(&self) -> bool {
        let Some(map) = self.ebpf.map("LINEAGE") else { return false };
        let Ok(map) = HashMap::<_, u32, Lineage>::try_from(map) else { return false };
        // There is no process 0.
        matches!(map.get(&0, 0), Ok(_) | Err(MapError::KeyNotFound))
    }

    /// The script that a process was asked to execute, which runs its interpreter.
    #[must_use]
    pub fn script(&self, tgid: u32) -> Option<Vec<u8>> {
        let map: HashMap<_, u32, ExecName> = HashMap::try_from(self.ebpf.map("SCRIPTS")?).ok()?;
        let kept = map.get(&tgid, 0).ok().filter(|kept| kept.tgid == tgid)?;
        let name = kept.name.split(|byte| *byte == 0).next()?;
        (!name.is_empty()).then(|| name.to_vec())
    }

    /// What a process runs, if it was forked or has exec'd since tracing began.
    #[must_use]
    pub fn run(&self, tgid: u32) -> Option<Run> {
        let map: HashMap<_, u32, Run> = HashMap::try_from(self.ebpf.map("RUNS")?).ok()?;
        map.get(&tgid, 0).ok()
    }

    /// Whether a thread, by its `struct task_struct *`, is in an exec.
    #[must_use]
    pub fn is_in_exec(&self, task: u64) -> bool {
        let map = self.ebpf.map("EXECS").map(HashMap::<_, u64, ExecCall>::try_from);
        map.is_some_and(|map| map.is_ok_and(|map| map.get(&task, 0).is_ok()))
    }

    /// What a process that closed write fds in an exec was asked to execute; `task` is
    /// [`etxtbsy_trace_common::Hold::task`].
    #[must_use]
    pub fn exec_name(&self, task: u64, tgid: u32) -> Option<Vec<u8>> {
        let map: HashMap<_, u64, ExecName> =
            HashMap::try_from(self.ebpf.map("EXEC_NAMES")?).ok()?;
        let kept = map.get(&task, 0).ok().filter(|kept| kept.tgid == tgid)?;
        let name = kept.name.split(|byte| *byte == 0).next()?;
        (!name.is_empty()).then(|| name.to_vec())
    }

    /// Whether a description still has write access to its inode.
    ///
    /// Or whether its last reference waits in the work of `task`, a `struct task_struct *`.
    pub fn still_open(&mut self, task: u64, lingering: &Lingering) -> anyhow::Result<bool> {
        let Lingering { file, inode } = *lingering;
        Ok(self.ask("still_open", &[task, file, inode])? != 0)
    }

    /// Whether the process of `task`, a `struct task_struct *` that started at `start_ns`, lives.
    pub fn lives(&mut self, task: u64, start_ns: u64) -> anyhow::Result<bool> {
        Ok(self.ask("lives", &[task, start_ns])? != 0)
    }

    /// The `i_writecount` of a file's inode: below zero, by how many it is being run.
    pub fn write_count(&mut self, file: &impl AsRawFd) -> anyhow::Result<i32> {
        let fd = u64::try_from(file.as_raw_fd())?;
        Ok(self.ask("write_count", &[fd])?.cast_signed())
    }

    /// Whether the kernel swaps to a file.
    pub fn is_swap_file(&mut self, file: &impl AsRawFd) -> anyhow::Result<bool> {
        let fd = u64::try_from(file.as_raw_fd())?;
        Ok(self.ask("is_swap_file", &[fd])? != 0)
    }

    /// The `struct inode *` of a file.
    pub fn inode_at(&mut self, file: &impl AsRawFd) -> anyhow::Result<u64> {
        let fd = u64::try_from(file.as_raw_fd())?;
        let [lower, upper] = [0, 1].map(|half| self.ask("inode_at", &[fd, half]));
        Ok(u64::from(upper?) << 32 | u64::from(lower?))
    }

    /// Whether the binfmt_misc entry with that file in its file system has an inode open, by its address
    /// and number; `None` if this kernel does not show it.
    pub fn is_kept_by(&mut self, inode: (u64, u64), entry: &impl AsRawFd) -> Option<bool> {
        let (private, interpreter) = self.entry_fields()?;
        let entry = u64::try_from(entry.as_raw_fd()).ok()?;
        let args = [inode.0, inode.1, entry, private.into(), interpreter.into()];
        Some(self.ask("keeps", &args).ok()? != 0)
    }

    /// Where an inode of binfmt_misc leads to its entry, and that to its interpreter's file.
    fn entry_fields(&self) -> Option<(u32, u32)> {
        let find = || {
            let kernel = layout::running_kernel().ok()?;
            let field = |of: &layout::Kernel| of.offset("Node", "interp_file");
            let found = field(&kernel).or_else(|| field(&kernel.module("binfmt_misc").ok()?))?;
            Some((kernel.offset("inode", "i_private")?, found))
        };
        *self.entry_fields.get_or_init(find)
    }

    /// Whether an fd still refers to the description of a hold.
    pub fn still_there(&mut self, hold: &Hold) -> anyhow::Result<bool> {
        let args = [hold.table, u64::from(hold.fd), hold.file, hold.inode];
        Ok(self.ask("still_there", &args)? != 0)
    }

    /// Runs a program that is attached to nothing.
    fn ask(&mut self, name: &str, args: &[u64]) -> anyhow::Result<u32> {
        let program: &mut RawTracePoint = program_of(&mut self.ebpf, name)?;
        let mut options = RawTracePointRunOptions::default();
        options.args[..args.len()].copy_from_slice(args);
        Ok(program.test_run(options)?.return_value)
    }

    /// Has it told at once when `tgid` lets go of a description.
    pub fn await_end(&mut self, tgid: u32, lingering: &Lingering) -> anyhow::Result<()> {
        let mut map: HashMap<_, u32, Lingering> = HashMap::try_from(self.map_mut("LINGERING")?)?;
        map.insert(tgid, lingering, 0)?;
        if self.call_returns.is_none() {
            let program: &mut RawTracePoint = program_of(&mut self.ebpf, CALL_RETURNS.0)?;
            let link = program.attach(CALL_RETURNS.1).context("cannot attach to sys_exit")?;
            self.call_returns = Some(program.take_link(link)?);
        }
        Ok(())
    }

    /// Has no such thing told any more.
    pub fn await_no_end(&mut self) {
        self.call_returns = None;
    }

    /// Ends the watch over an inode that last made an exec fail at `failed_ns`; or not, if it may
    /// have made another fail of which no record was read yet. Whether it is over.
    pub fn unwatch(&mut self, inode: u64, failed_ns: u64) -> anyhow::Result<bool> {
        let before = self.failures();
        let mut watched: HashMap<_, u64, Watch> = HashMap::try_from(self.map_mut("WATCHED")?)?;
        // It is not there if it could not be put there, which was counted.
        let watch = watched.get(&inode, 0).ok();
        if watch.is_some_and(|watch| watch.failed_ns > failed_ns) {
            return Ok(false);
        }
        let _ = watched.remove(&inode);
        // A failure is counted before its inode is watched.
        let is_over = self.failures() == before;
        if !is_over {
            let mut watched: HashMap<_, u64, Watch> = HashMap::try_from(self.map_mut("WATCHED")?)?;
            watched.insert(inode, Watch { failed_ns, ..watch.unwrap_or_default() }, 0)?;
        }
        Ok(is_over)
    }

    /// Shows the programs' own diagnostics from now on, through the `log` crate.
    ///
    /// `None` if they are switched off ([`Options::verbose`]).
    #[must_use]
    pub fn take_log(&mut self) -> Option<EbpfLogger<&'static dyn log::Log>> {
        EbpfLogger::init(&mut self.ebpf).ok()
    }

    /// The records, to be read while the tracer lives.
    pub fn take_records(&mut self) -> anyhow::Result<RingBuf<MapData>> {
        let map = self.ebpf.take_map("EVENTS").context("the eBPF object has no map EVENTS")?;
        Ok(RingBuf::try_from(map)?)
    }

    fn map_mut(&mut self, name: &str) -> anyhow::Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the eBPF object has no map {name}"))
    }
}

/// What to say of a program that the kernel does not load: in one line, though the verifier tells
/// all that it looked at.
fn refusal(name: &str, error: ProgramError) -> anyhow::Error {
    let refused = format!("the kernel refuses the eBPF program {name}");
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow::Error::new(error).context(refused);
    };
    match reason(&verifier_log.to_string()) {
        Some(reason) => anyhow!("{refused}: {io_error}: its verifier says: {reason}"),
        None => anyhow!("{refused}: {io_error}"),
    }
}

/// The line in which the verifier tells why, which is the last but for its statistics.
fn reason(log: &str) -> Option<String> {
    let is_statistic = |line: &&str| {
        ["processed ", "verification time ", "stack depth "]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let mut lines = log.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines.find(|line| !is_statistic(line)).map(|line| line.replace(char::is_control, "?"))
}

/// The number in what /proc/PID/fdinfo tells of a program (`bpf_prog_show_fdinfo`,
/// kernel/bpf/syscall.c).
fn misses(told: &str) -> Option<u64> {
    told.lines().find_map(|line| line.strip_prefix("recursion_misses:")?.trim().parse().ok())
}

/// Makes the maps and loads the programs, those that read by the cast or by the helper.
fn load_object(
    kernel: &Kernel,
    btf: &Btf,
    options: &Options,
    cast: Option<Cast>,
) -> anyhow::Result<Ebpf> {
    let object = object::for_kernel(!kernel.maps_allocate_late, cast)?;
    let typed = u32::from(kernel.current_is_typed);
    let interest = match (&options.roots, options.role) {
        (None, _) => Interest::All,
        (Some(_), Role::Victim) => Interest::Victims,
        (Some(_), Role::Holder | Role::Either | Role::Other(_)) => Interest::Anyone,
    } as u32;
    let calls = calls()?;
    let log_level = if options.verbose { u8::MAX } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(btf))
        // Where a program is refused, it is loaded once more, for the verifier's reason.
        .verifier_log_level(VerifierLogLevel::DEBUG)
        .override_global("OFFSETS", &kernel.offsets, true)
        .override_global("CALLS", &calls, true)
        .override_global("FILTERED", &interest, true)
        .override_global("TYPED", &typed, cast.is_none())
        .override_global(aya_log::LEVEL, &log_level, false);
    if let Some(bytes) = options.ring_bytes {
        loader.map_max_entries("EVENTS", bytes);
    }
    let mut ebpf = loader.load(&object).context("cannot load the eBPF programs")?;
    log::debug!("maps made");
    // Those first that the verifier takes longest for.
    let gone_on_with = GONE_ON_WITH.iter().map(|(program, _)| *program);
    let calls = SYSCALLS.iter().chain(kernel.preempts_programs.then_some(&AGAIN));
    let raw = RAW.iter().map(|(program, _)| *program).chain(UNATTACHED);
    let compat = cfg!(target_arch = "x86_64").then_some(COMPAT_RETURNS.0);
    load(
        &mut ebpf,
        btf,
        gone_on_with
            .chain(RAW_NEXT.map(|(program, _)| program))
            .chain(compat)
            .chain(calls.map(|call| call.program))
            .chain(raw)
            .chain([SEED, PASSED.program]),
    )?;
    Ok(ebpf)
}

/// Has the kernel take programs, as many at a time as there are processors for its verifier, which
/// a start spends most of its time in.
fn load<'a>(
    ebpf: &mut Ebpf,
    btf: &Btf,
    names: impl Iterator<Item = &'a str>,
) -> anyhow::Result<()> {
    let mut programs: BTreeMap<_, _> = ebpf.programs_mut().collect();
    let wanted: Vec<_> = names.filter_map(|name| Some((name, programs.remove(name)?))).collect();
    let processors = thread::available_parallelism().map_or(1, NonZero::get).min(wanted.len());
    let wanted = Mutex::new(wanted.into_iter());
    let next = || wanted.lock().unwrap_or_else(PoisonError::into_inner).next();
    let load_all = || -> anyhow::Result<()> {
        while let Some((name, program)) = next() {
            match program {
                Program::RawTracePoint(program) => program.load(),
                Program::TracePoint(program) => program.load(),
                Program::Iter(program) => program.load("task_file", btf),
                _ => Err(ProgramError::UnexpectedProgramType),
            }
            .map_err(|error| refusal(name, error))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        // This one does what the others cannot.
        let others = (1..processors).map(|_| thread::Builder::new().spawn_scoped(scope, load_all));
        let others: Vec<_> = others.flatten().collect();
        others.into_iter().map(joined).fold(load_all(), Result::and)
    })
}

/// The numbers of the system calls that the programs ask for.
fn calls() -> anyhow::Result<Calls> {
    #[cfg(target_arch = "x86_64")]
    let (open, creat, fork, vfork) = (
        i32::try_from(libc::SYS_open)?,
        i32::try_from(libc::SYS_creat)?,
        i32::try_from(libc::SYS_fork)?,
        i32::try_from(libc::SYS_vfork)?,
    );
    #[cfg(not(target_arch = "x86_64"))]
    let (open, creat, fork, vfork) = (-1, -1, -1, -1);
    Ok(Calls {
        openat: i32::try_from(libc::SYS_openat)?,
        openat2: i32::try_from(libc::SYS_openat2)?,
        open_by_handle_at: i32::try_from(libc::SYS_open_by_handle_at)?,
        execveat: i32::try_from(libc::SYS_execveat)?,
        execve: i32::try_from(libc::SYS_execve)?,
        close: i32::try_from(libc::SYS_close)?,
        truncate: i32::try_from(libc::SYS_truncate)?,
        acct: i32::try_from(libc::SYS_acct)?,
        open,
        creat,
        fork,
        vfork,
        clone: i32::try_from(libc::SYS_clone)?,
        clone3: i32::try_from(libc::SYS_clone3)?,
        recvmsg: i32::try_from(libc::SYS_recvmsg)?,
        recvmmsg: i32::try_from(libc::SYS_recvmmsg)?,
        pidfd_getfd: i32::try_from(libc::SYS_pidfd_getfd)?,
    })
}

/// What a thread comes to; it panics as the thread did.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| resume_unwind(panic))
}

fn program_of<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut P>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program =
        ebpf.program_mut(name).with_context(|| format!("the eBPF object has no program {name}"))?;
    Ok(program.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifiers_reason_is_one_line() {
        let log = "0: R1=ctx() R10=fp0\n; let x = 1;\n3: (85) call pc+4\n\
                   combined stack size of 9 calls is 544. Too large\n\
                   verification time 12 usec\nstack depth 8+0\n\
                   processed 12 insns (limit 1000000) max_states_per_insn 0\n\n";
        let reason = reason(log);
        assert_eq!(reason.as_deref(), Some("combined stack size of 9 calls is 544. Too large"));
        assert_eq!(super::reason("processed 12 insns (limit 1000000)\n"), None);
    }

    #[test]
    fn misses_are_read() {
        let told =
            "pos:\t0\nflags:\t02000002\nrun_cnt:\t0\nrecursion_misses:\t17\nverified_insns:\t85\n";
        assert_eq!(misses(told), Some(17));
        assert_eq!(misses("pos:\t0\nrun_cnt:\t0\n"), None, "before 5.12");
    }
}
