//! Loading the programs and attaching them.

use std::{
    cell::OnceCell,
    collections::BTreeMap,
    fs::File,
    num::NonZero,
    panic::resume_unwind,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread::{self, ScopedJoinHandle},
    time::Instant,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{HashMap, Map, MapData, MapError, ProgramArray, RingBuf},
    programs::{
        Iter, Program, ProgramError, RawTracePoint, TracePoint, raw_trace_point::RawTracePointLink,
    },
};
use aya_log::EbpfLogger;
use etxtbsy_trace_common::{Calls, Config, Count, Interest, Lineage, Lost, Offsets, TailCall};
use tokio::io::unix::AsyncFd;

use super::{
    backend::Backend as _,
    calibrate,
    dormant::Dormant,
    features::{self, Cast, RingCompletion},
    layout,
    numbers::Numbers,
    object, offsets,
    programs::{COMPAT_RETURNS, Entry, PIDS, PROGRAMS, RECEIVING, Runs, SNAPSHOT, Start},
    stack_copies::{StackCopies, StacksWanted},
    tracefs::with_tracefs,
};
use crate::event::TreeRole as Role;

/// How many failures are made at the most for the programs to learn from.
const LESSONS: u32 = 16;

/// The running programs; they stop when this is dropped.
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct Tracer {
    pub(super) ebpf: Ebpf,
    /// The ring buffer, once [`Backend::listen`](super::Backend::listen) was called.
    pub(super) records: Option<AsyncFd<RingBuf<MapData>>>,
    /// Where the records are copied to ([`Options::copy_to`]).
    pub(super) copy: Option<File>,
    /// By [`Config`], [`Count`] and [`Lost`].
    pub(super) config: Numbers,
    pub(super) counts: Numbers,
    pub(super) lost: Numbers,
    pub(super) stacks: StackCopies,
    pub(super) stacks_wanted: StacksWanted,
    pub(super) filtered: bool,
    /// Whether opens by io_uring can be followed.
    pub(super) ring: bool,
    /// Whether the system calls of 32-bit programs are followed.
    pub(super) compat: bool,
    /// Whether programs can be preempted.
    pub(super) preempted: bool,
    /// The attachment of `call_returns`, while that is waited for.
    pub(super) call_returns: Option<RawTracePointLink>,
    /// Whether this process's pid namespace is another than the machine's first.
    pub(super) is_contained: bool,
    /// Where the program for fds from other processes is attached once it is needed.
    pub(super) passed: Dormant,
    /// What [`Self::entry_fields`] has found, once it was asked.
    pub(super) entry_fields: OnceCell<Option<(u32, u32)>>,
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
    /// Whose stacks are copied.
    pub stacks: StacksWanted,
    /// A new file for a copy of all records, each behind its length: what the tests of the session replay.
    pub copy_to: Option<PathBuf>,
    /// Whether the programs' own diagnostics are shown.
    pub verbose: bool,
}

/// What BTF says about the running kernel.
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
        let copy = options.copy_to.as_ref().map(File::create_new);
        let mut tracer = Self {
            config: Numbers::of(&ebpf, "CONFIG", Config::ALL)?,
            counts: Numbers::of(&ebpf, "COUNTS", Count::ALL)?,
            lost: Numbers::of(&ebpf, "LOST", Lost::ALL.len() as u32)?,
            stacks: StackCopies::of(&ebpf, options.stacks)?,
            stacks_wanted: options.stacks,
            ebpf,
            records: None,
            copy: copy.transpose().context("cannot copy the records")?,
            filtered: options.roots.is_some(),
            ring: kernel.ring_completion != RingCompletion::Unknown,
            compat: false,
            preempted: kernel.preempts_programs,
            call_returns: None,
            is_contained: false,
            passed: with_tracefs(|| Dormant::open(RECEIVING))??,
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
        tracer.snapshot()?;
        log::debug!("open files noted after {:?}", began.elapsed());
        tracer.follow_compat()?;
        tracer.learn()?;
        tracer.config.set(Config::Stacks as u32, options.stacks.bits());
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

    /// Tells the programs which others they go on with.
    fn link(&mut self) -> anyhow::Result<()> {
        for entry in PROGRAMS.iter().filter(|entry| entry.start == Start::Loaded) {
            match entry.runs {
                Runs::TailCall(next) => {
                    let program: &mut TracePoint = program_of(&mut self.ebpf, entry.program)?;
                    let program = program.fd()?.try_clone()?;
                    let mut map: ProgramArray<_> =
                        ProgramArray::try_from(self.map_mut("TAIL_CALLS")?)?;
                    map.set(next as u32, &program, 0)?;
                }
                Runs::RawTailCall(next) => self.link_raw(entry.program, next)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// The same for a program on a raw tracepoint.
    pub(super) fn link_raw(&mut self, name: &str, next: TailCall) -> anyhow::Result<()> {
        let program: &mut RawTracePoint = program_of(&mut self.ebpf, name)?;
        let program = program.fd()?.try_clone()?;
        let mut map: ProgramArray<_> = ProgramArray::try_from(self.map_mut("RAW_TAIL_CALLS")?)?;
        Ok(map.set(next as u32, &program, 0)?)
    }

    fn attach(&mut self) -> anyhow::Result<()> {
        for entry in PROGRAMS {
            let tracepoint = match entry.runs {
                Runs::Raw(tracepoint) if entry.start == Start::Attached => tracepoint,
                Runs::IoUring(tracepoint) if self.ring => tracepoint,
                _ => continue,
            };
            let program: &mut RawTracePoint = program_of(&mut self.ebpf, entry.program)?;
            program
                .attach(tracepoint)
                .with_context(|| format!("cannot attach to the tracepoint {tracepoint}"))?;
        }
        with_tracefs(|| -> anyhow::Result<()> {
            for entry in PROGRAMS.iter().filter(|entry| entry.start.is_attached(self.preempted)) {
                let Runs::Calls { tracepoints, optional } = entry.runs else { continue };
                let program: &mut TracePoint = program_of(&mut self.ebpf, entry.program)?;
                for tracepoint in tracepoints {
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
    fn snapshot(&mut self) -> anyhow::Result<()> {
        // Reading drives the iterator; the program itself writes nothing.
        std::io::copy(&mut self.iterate(SNAPSHOT)?, &mut std::io::sink())
            .context("cannot list the open files")?;
        Ok(())
    }

    /// A run of an iterator, to be read.
    pub(super) fn iterate(&mut self, name: &str) -> anyhow::Result<File> {
        let program: &mut Iter = program_of(&mut self.ebpf, name)?;
        let link =
            program.attach().with_context(|| format!("cannot attach the iterator {name}"))?;
        Ok(program.take_link(link)?.into_file()?)
    }

    /// Whether programs may have to be loaded yet, by [`Tracer::follow_compat`].
    #[must_use]
    pub fn may_load(&self) -> bool {
        cfg!(target_arch = "x86_64") && !self.compat
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

    pub(super) fn change_found(&self, by: i64) {
        let found = self.config.get(Config::TreeFound as u32);
        self.config.set(Config::TreeFound as u32, found.wrapping_add_signed(by));
    }

    /// Whether the kernel lets us read maps by bpf(2).
    #[must_use]
    pub fn reads_maps(&self) -> bool {
        let Some(map) = self.ebpf.map("LINEAGE") else { return false };
        let Ok(map) = HashMap::<_, u32, Lineage>::try_from(map) else { return false };
        // There is no process 0.
        matches!(map.get(&0, 0), Ok(_) | Err(MapError::KeyNotFound))
    }

    /// Shows the programs' own diagnostics from now on, through the `log` crate.
    ///
    /// `None` if they are switched off ([`Options::verbose`]).
    #[must_use]
    pub fn take_log(&mut self) -> Option<EbpfLogger<&'static dyn log::Log>> {
        EbpfLogger::init(&mut self.ebpf).ok()
    }

    /// The records, to be read while the tracer lives.
    pub(super) fn take_records(&mut self) -> anyhow::Result<RingBuf<MapData>> {
        let map = self.ebpf.take_map("EVENTS").context("the eBPF object has no map EVENTS")?;
        Ok(RingBuf::try_from(map)?)
    }

    pub(super) fn map_mut(&mut self, name: &str) -> anyhow::Result<&mut Map> {
        self.ebpf.map_mut(name).with_context(|| format!("the eBPF object has no map {name}"))
    }
}

/// The error for a program that the kernel does not load: one line of what may be a long verifier log.
pub(super) fn refusal(name: &str, error: ProgramError) -> anyhow::Error {
    let refused = format!("the kernel refuses the eBPF program {name}");
    let ProgramError::LoadError { io_error, verifier_log } = error else {
        return anyhow::Error::new(error).context(refused);
    };
    match reason(&verifier_log.to_string()) {
        Some(reason) => anyhow!("{refused}: {io_error}: its verifier says: {reason}"),
        None => anyhow!("{refused}: {io_error}"),
    }
}

/// The line with the verifier's reason: the last but for its statistics.
fn reason(log: &str) -> Option<String> {
    let is_statistic = |line: &&str| {
        ["processed ", "verification time ", "stack depth "]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let mut lines = log.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    lines.find(|line| !is_statistic(line)).map(|line| line.replace(char::is_control, "?"))
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
    loader.map_max_entries("STACKS", options.stacks.places());
    let mut ebpf = loader.load(&object).context("cannot load the eBPF programs")?;
    log::debug!("maps made");
    let wanted = PROGRAMS.iter().filter(|entry| entry.start.is_loaded(kernel.preempts_programs));
    // Those first that the verifier takes longest for.
    let is_long = |entry: &&Entry| {
        matches!(entry.runs, Runs::TailCall(_) | Runs::RawTailCall(_))
            || entry.program == COMPAT_RETURNS
    };
    let (long, short): (Vec<&Entry>, Vec<&Entry>) = wanted.partition(is_long);
    load(&mut ebpf, btf, long.into_iter().chain(short).map(|entry| entry.program))?;
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

pub(super) fn program_of<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> anyhow::Result<&'a mut P>
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
}
