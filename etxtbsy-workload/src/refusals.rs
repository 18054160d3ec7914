//! Programs run for a moment each, while threads try to write them.
//!
//! Each thread records the times of its calls. From these the workload computes which processes may have
//! run the program during each refused call, and which certainly did.

use super::child::{Span, timed, wait};
use super::race::RaceLimits;
use super::report::{PossibleRunner, Refusal, Refusals};
use super::{elf, stage};
use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, getpid, gettid, truncate};
use std::ffi::{CString, c_char};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Arguments of `refusals`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    #[command(flatten)]
    limits: RaceLimits,
    /// Number of threads that run programs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    runners: u32,
    /// Number of threads that open the programs for writing; one more thread truncates them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    openers: u32,
    /// Average pause of a thread between its calls.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 500)]
    pause: u64,
    /// How many times longer than usual each program runs, up to 100: for processors that are slow.
    #[arg(long, value_name = "FACTOR", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    longer: u32,
    /// Where to create the directory for the programs.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
}

/// How long each program runs at least, in nanoseconds.
const NAPS_NS: [u32; 3] = [200_000, 1_000_000, 5_000_000];
/// How often to check whether to stop.
const POLL: Duration = Duration::from_millis(2);

/// A program that is run and written.
struct Target {
    path: PathBuf,
    name: CString,
    ino: u64,
    length: i64,
    nap_ns: u32,
}

/// One run of a program.
struct Run {
    target: usize,
    pid: u32,
    /// From before the fork until after the process was waited for.
    span: Span,
    /// A time by which the exec had certainly succeeded; 0 if unknown.
    execed_ns: u64,
}

/// A refused call.
struct RefusedCall {
    target: usize,
    tid: u32,
    span: Span,
}

/// What the threads share.
struct Shared {
    targets: Vec<Target>,
    pause: u64,
    limit: u64,
    refused: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.refused.load(Ordering::Relaxed) >= self.limit
    }
}

/// Random numbers (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }

    /// Sleeps for a random time of `average` microseconds on average.
    fn nap(&mut self, average: u64) {
        thread::sleep(Duration::from_micros(self.below(2 * average)));
    }
}

pub(super) fn run(args: &Args) -> Result<Refusals> {
    stage::catch_interrupts()?;
    let dir = stage::directory(&args.dir)?;
    let shared = Shared {
        targets: NAPS_NS
            .iter()
            .map(|nap| target(dir.path(), nap * args.longer))
            .collect::<Result<_>>()?,
        pause: args.pause,
        limit: args.limits.failures.unwrap_or(u64::MAX),
        refused: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let start = Instant::now();
    let until = Duration::from_secs(args.limits.seconds);
    let shared = &shared;
    let (runs, refused) = thread::scope(|scope| {
        let runners: Vec<_> = (0..args.runners)
            .map(|seed| scope.spawn(move || run_programs(shared, random(seed))))
            .collect();
        let writers: Vec<_> = (0..=args.openers)
            .map(|at| {
                let truncates = at == 0;
                scope.spawn(move || write_programs(shared, random(100 + at), truncates))
            })
            .collect();
        while !shared.is_over() && start.elapsed() < until && !stage::interrupted() {
            thread::sleep(POLL);
        }
        shared.stop.store(true, Ordering::Relaxed);
        let mut runs = Vec::new();
        for runner in runners {
            runs.extend(joined(runner.join())?);
        }
        let mut refused = Vec::new();
        for writer in writers {
            refused.extend(joined(writer.join())?);
        }
        anyhow::Ok((runs, refused))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let failed_execs = runs.iter().filter(|run| run.pid == 0).count() as u64;
    let refused = refused.iter().map(|one| refusal(one, &runs, &shared.targets)).collect();
    Ok(Refusals {
        scenario: "refusals".into(),
        pid: getpid().as_raw().cast_unsigned(),
        runs: runs.len() as u64 - failed_execs,
        failed_execs,
        seconds,
        refused,
    })
}

fn random(seed: u32) -> Random {
    Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(seed) << 17 | 1)
}

/// The result of a thread.
fn joined<T>(outcome: thread::Result<Result<T>>) -> Result<T> {
    outcome.unwrap_or_else(|_| bail!("a thread of the workload panicked"))
}

fn target(dir: &Path, nap_ns: u32) -> Result<Target> {
    let (program, nap_ns) = elf::nap(nap_ns)?;
    let path = dir.join(format!("naps-{nap_ns}"));
    drop(stage::executable(&path, &program)?);
    Ok(Target {
        name: CString::new(path.as_os_str().as_bytes())?,
        ino: path.metadata()?.ino(),
        length: program.len() as i64,
        path,
        nap_ns,
    })
}

/// Runs the programs, one after the other, by fork, vfork and posix_spawn.
fn run_programs(shared: &Shared, mut random: Random) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    while !shared.is_over() {
        let target = random.below(shared.targets.len() as u64) as usize;
        let way = random.below(3);
        let mut execed_ns = 0;
        let (pid, span) = timed(|| -> Result<u32> {
            let (pid, (_, after)) = timed(|| start(way, &shared.targets[target].name));
            let Some(pid) = pid? else { return Ok(0) };
            // vfork and posix_spawn return when the child's exec has succeeded or failed.
            execed_ns = if way == 0 { 0 } else { after };
            match wait(pid)? {
                0 => Ok(pid.as_raw().cast_unsigned()),
                libc::ETXTBSY => Ok(0),
                status => bail!("cannot run a program: {}", Errno::from_raw(status)),
            }
        });
        runs.push(Run { target, pid: pid?, span, execed_ns });
        random.nap(shared.pause);
    }
    Ok(runs)
}

/// Starts a program; `None` if posix_spawn failed with ETXTBSY. After fork and vfork, the exit status of
/// the process is the errno.
fn start(way: u64, name: &CString) -> Result<Option<Pid>> {
    let argv = [name.as_ptr().cast_mut(), ptr::null_mut()];
    let envp: [*mut c_char; 1] = [ptr::null_mut()];
    if way == 2 {
        let mut pid = 0;
        // SAFETY: a C string and two null-terminated lists of C strings, which outlive the call.
        let error = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                name.as_ptr(),
                ptr::null(),
                ptr::null(),
                argv.as_ptr(),
                envp.as_ptr(),
            )
        };
        return match error {
            0 => Ok(Some(Pid::from_raw(pid))),
            libc::ETXTBSY => Ok(None),
            error => Err(Errno::from_raw(error)).context("posix_spawn"),
        };
    }
    // SAFETY: the child only makes system calls. A child that shares this memory writes only to the errno
    // of this thread, which waits.
    #[allow(deprecated, reason = "the workload tests vfork")]
    let pid = unsafe {
        let pid = if way == 0 { libc::fork() } else { libc::vfork() };
        if pid == 0 {
            libc::execve(name.as_ptr(), argv.as_ptr().cast(), envp.as_ptr().cast());
            libc::_exit(*libc::__errno_location());
        }
        pid
    };
    Ok(Some(Pid::from_raw(Errno::result(pid).context("fork")?)))
}

/// Opens the programs for writing, or truncates them to their own length.
fn write_programs(
    shared: &Shared,
    mut random: Random,
    truncates: bool,
) -> Result<Vec<RefusedCall>> {
    let tid = gettid().as_raw().cast_unsigned();
    let mut refused = Vec::new();
    while !shared.is_over() {
        let target = random.below(shared.targets.len() as u64) as usize;
        let Target { path, length, .. } = &shared.targets[target];
        let (outcome, span) = timed(|| {
            if truncates {
                truncate(path, *length)
            } else {
                open(path, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).map(drop)
            }
        });
        match outcome {
            Ok(()) => {}
            Err(Errno::ETXTBSY) => {
                refused.push(RefusedCall { target, tid, span });
                shared.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(errno) => return Err(errno).context("cannot write to a program"),
        }
        random.nap(shared.pause);
    }
    Ok(refused)
}

/// The processes that may have run the program during a refused call, and which certainly did.
fn refusal(refused: &RefusedCall, runs: &[Run], targets: &[Target]) -> Refusal {
    let (enter_ns, exit_ns) = refused.span;
    let target = &targets[refused.target];
    let of_target = runs.iter().filter(|run| run.target == refused.target && run.pid != 0);
    let runners = of_target.filter(|run| run.span.0 <= exit_ns && run.span.1 >= enter_ns);
    let is_certain = |run: &Run| {
        // The program sleeps for `nap_ns` after its exec, which came after the fork.
        let until = run.span.0 + u64::from(target.nap_ns);
        run.execed_ns != 0 && run.execed_ns <= enter_ns && exit_ns <= until
    };
    let runners = runners.map(|run| PossibleRunner {
        pid: run.pid,
        from_ns: run.span.0,
        until_ns: run.span.1,
        sure: is_certain(run),
    });
    let runners = runners.collect();
    Refusal { tid: refused.tid, ino: target.ino, enter_ns, exit_ns, runners }
}
