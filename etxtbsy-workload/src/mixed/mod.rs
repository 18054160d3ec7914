//! Processes and threads hold a few files in all possible ways, while others exec these files.
//!
//! Each process records the times of its calls ([`log`]). From these, [`holds`] computes who may have
//! held which file when, and who certainly did. The report has this for every failed exec.

mod call;
mod holds;
mod log;
mod part;
mod player;

use super::child::{Program, wait};
use super::race::RaceLimits;
use super::report::{BusyExec, Mixed, Race, Task};
use super::{elf, stage};
use anyhow::{Context, Result, ensure};
use call::Caller;
use log::Log;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use player::Worker;
use std::ffi::CString;
use std::num::NonZero;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// Arguments of `mixed`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    #[command(flatten)]
    limits: RaceLimits,
    /// Number of processes, without those that they fork.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    processes: u32,
    /// Number of threads in each process.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    threads: u32,
    /// Number of files that they open, exec and map.
    #[arg(long, default_value_t = NonZero::<u32>::MIN.saturating_add(2))]
    files: NonZero<u32>,
    /// Average pause of a thread between its calls. Without a pause there are thousands of failures a
    /// second.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 500)]
    pause: u64,
    /// Seed of the random choices. What happens also depends on the scheduler.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to create the directory for the files.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
}

/// How long the sleeping program runs.
const NAP_NS: u32 = 1_000_000;
/// How often to check whether to stop.
const POLL: Duration = Duration::from_millis(2);

/// What all processes use.
struct Resources<'a> {
    limits: &'a RaceLimits,
    pause: u64,
    files: Vec<HotFile>,
    /// Sleeps, then exits.
    nap: Program,
    nap_path: CString,
    nap_ns: u32,
    /// The two ends of the socket queue through which fds are passed.
    send: OwnedFd,
    receive: OwnedFd,
}

/// A file that the processes hold and exec.
struct HotFile {
    path: CString,
    program: Program,
    ino: u64,
    length: i64,
}

impl<'a> Resources<'a> {
    fn new(dir: &Path, args: &'a Args) -> Result<Self> {
        let exit = elf::exit()?;
        let make = |path: &Path, content: &[u8]| -> Result<CString> {
            drop(stage::executable(path, content)?);
            Ok(CString::new(path.as_os_str().as_bytes())?)
        };
        let make_hot = |index| {
            let path = dir.join(format!("hot-{index}"));
            let name = make(&path, &exit)?;
            let (program, ino) = (Program::new(&path)?, path.metadata()?.ino());
            Ok(HotFile { path: name, program, ino, length: exit.len() as i64 })
        };
        let (nap, nap_ns) = elf::nap(NAP_NS)?;
        let nap_path = dir.join("nap");
        let (send, receive) = socketpair(
            AddressFamily::Unix,
            SockType::Datagram,
            None,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        )
        .context("socketpair")?;
        Ok(Self {
            limits: &args.limits,
            pause: args.pause,
            files: (0..args.files.get()).map(make_hot).collect::<Result<_>>()?,
            nap_path: make(&nap_path, &nap)?,
            nap: Program::new(&nap_path)?,
            nap_ns,
            send,
            receive,
        })
    }
}

pub(super) fn run(args: &Args) -> Result<Mixed> {
    stage::catch_interrupts()?;
    // SAFETY: the signal is ignored, so no handler runs.
    unsafe { signal(Signal::SIGIO, SigHandler::SigIgn) }.context("cannot ignore SIGIO")?;
    let dir = stage::directory(&args.dir)?;
    let resources = Resources::new(dir.path(), args)?;
    let log = Log::new()?;
    let own = Caller { log: &log, process: log.new_process() };
    let start = Instant::now();
    let mut workers = Vec::new();
    for index in 0..args.processes {
        let seed = args.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(index));
        let worker = own.fork(|caller| run_threads(caller, &resources, args.threads, seed));
        workers.push(worker.inspect_err(|_| log.stop()).context("fork")?);
    }
    let limit = Duration::from_secs(args.limits.seconds);
    while !log.is_stopped() && start.elapsed() < limit && !stage::interrupted() {
        thread::sleep(POLL);
    }
    log.stop();
    for worker in workers {
        let status = wait(worker.pid)?;
        ensure!(status == 0, "a process of the workload panicked");
    }
    let seconds = start.elapsed().as_secs_f64();
    let failed = holds::failures(&log.records()?);
    let [attempts, failures, refused] =
        [&log.counts().attempts, &log.counts().failures, &log.counts().refused]
            .map(|count| count.load(Ordering::Relaxed));
    ensure!(failed.len() as u64 == failures, "{} of {failures} failures recorded", failed.len());
    Ok(Mixed {
        race: Race {
            scenario: "mixed".into(),
            pid: Task::current().pid,
            dir: dir.path().into(),
            attempts,
            failures,
            seconds,
            threads: Vec::new(),
        },
        seed: args.seed,
        refused,
        failed: failed
            .into_iter()
            .map(|failure| BusyExec {
                victim: failure.victim,
                ino: resources.files[failure.file as usize].ino,
                enter_ns: failure.span.0,
                exit_ns: failure.span.1,
                holders: failure.holders,
            })
            .collect(),
    })
}

/// Runs the threads of a process; returns its exit status.
fn run_threads(caller: Caller<'_>, resources: &Resources<'_>, threads: u32, seed: u64) -> i32 {
    let panicked = thread::scope(|scope| {
        let start = |index: u32| {
            let seed = seed.wrapping_mul(1_000_003).wrapping_add(u64::from(index));
            scope.spawn(move || Worker::new(caller, resources, seed).run())
        };
        let threads: Vec<_> = (0..threads).map(start).collect();
        threads.into_iter().filter_map(|thread| thread.join().err()).count()
    });
    caller.log.stop();
    i32::from(panicked > 0)
}

/// Random numbers (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is above 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// Lets other threads run for that many microseconds.
fn nap(microseconds: u64) {
    match microseconds {
        0 => thread::yield_now(),
        _ => thread::sleep(Duration::from_micros(microseconds)),
    }
}
