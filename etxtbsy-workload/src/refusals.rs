//! Programs that run for a moment each, while threads want to write them.
//!
//! Each thread records when it made which call: who can have run which program when a call was refused,
//! and who surely did, is worked out from that. The report has it for every refused call.

use super::child::{Span, timed, wait};
use super::race::Course;
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
    course: Course,
    /// How many threads run programs.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=64))]
    runners: u32,
    /// How many threads open them for writing; one more truncates them.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    openers: u32,
    /// How long a thread naps between its calls, on average.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 500)]
    pause: u64,
    /// Where to make the directory for the programs.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
}

/// How long the programs run at least, in nanoseconds; each is a file of its own.
const NAPS_NS: [u32; 3] = [200_000, 1_000_000, 5_000_000];
/// How often to look whether to stop.
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
    /// Before the fork, and after the process was waited for.
    span: Span,
    /// When the exec had surely passed; 0 if that is not known.
    execed_ns: u64,
}

/// One call that was refused.
struct Refused {
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

/// Numbers that are random enough (xorshift64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }

    /// Naps for a while, `average` microseconds of it.
    fn nap(&mut self, average: u64) {
        thread::sleep(Duration::from_micros(self.below(2 * average)));
    }
}

pub(super) fn run(args: &Args) -> Result<Refusals> {
    stage::catch_interrupts()?;
    let dir = stage::directory(&args.dir)?;
    let shared = Shared {
        targets: NAPS_NS.iter().map(|nap| target(dir.path(), *nap)).collect::<Result<_>>()?,
        pause: args.pause,
        limit: args.course.failures.unwrap_or(u64::MAX),
        refused: AtomicU64::new(0),
        stop: AtomicBool::new(false),
    };
    let start = Instant::now();
    let until = Duration::from_secs(args.course.seconds);
    let shared = &shared;
    let (runs, refused) = thread::scope(|scope| {
        let runners: Vec<_> = (0..args.runners)
            .map(|seed| scope.spawn(move || run_programs(shared, dice(seed))))
            .collect();
        let writers: Vec<_> = (0..=args.openers)
            .map(|at| {
                let truncates = at == 0;
                scope.spawn(move || write_programs(shared, dice(100 + at), truncates))
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

fn dice(seed: u32) -> Dice {
    Dice(0x9e37_79b9_7f4a_7c15 ^ u64::from(seed) << 17 | 1)
}

/// What a thread comes to.
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
fn run_programs(shared: &Shared, mut dice: Dice) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    while !shared.is_over() {
        let target = dice.below(shared.targets.len() as u64) as usize;
        let way = dice.below(3);
        let mut execed_ns = 0;
        let (pid, span) = timed(|| -> Result<u32> {
            let (pid, (_, after)) = timed(|| start(way, &shared.targets[target].name));
            let Some(pid) = pid? else { return Ok(0) };
            // vfork and posix_spawn return when the child has exec'd, or has failed to.
            execed_ns = if way == 0 { 0 } else { after };
            match wait(pid)? {
                0 => Ok(pid.as_raw().cast_unsigned()),
                libc::ETXTBSY => Ok(0),
                status => bail!("a program could not be run: {}", Errno::from_raw(status)),
            }
        });
        runs.push(Run { target, pid: pid?, span, execed_ns });
        dice.nap(shared.pause);
    }
    Ok(runs)
}

/// Starts a program; `None` if that failed with ETXTBSY, as the exit status of its process may say too.
fn start(way: u64, name: &CString) -> Result<Option<Pid>> {
    let argv = [name.as_ptr().cast_mut(), ptr::null_mut()];
    let envp: [*mut c_char; 1] = [ptr::null_mut()];
    if way == 2 {
        let mut pid = 0;
        // SAFETY: a C string and two lists of them that end with a null pointer.
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
    // SAFETY: the child makes system calls only, and a child that shares this memory writes none of it
    // but its own errno.
    #[allow(deprecated, reason = "vfork is what is to be seen")]
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

/// Opens the programs for writing, or truncates them to the length that they have.
fn write_programs(shared: &Shared, mut dice: Dice, truncates: bool) -> Result<Vec<Refused>> {
    let tid = gettid().as_raw().cast_unsigned();
    let mut refused = Vec::new();
    while !shared.is_over() {
        let target = dice.below(shared.targets.len() as u64) as usize;
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
                refused.push(Refused { target, tid, span });
                shared.refused.fetch_add(1, Ordering::Relaxed);
            }
            Err(errno) => return Err(errno).context("writing a program"),
        }
        dice.nap(shared.pause);
    }
    Ok(refused)
}

/// Who can have run the program when a call was refused, and who surely did.
fn refusal(refused: &Refused, runs: &[Run], targets: &[Target]) -> Refusal {
    let (enter_ns, exit_ns) = refused.span;
    let target = &targets[refused.target];
    let of_target = runs.iter().filter(|run| run.target == refused.target && run.pid != 0);
    let runners = of_target.filter(|run| run.span.0 <= exit_ns && run.span.1 >= enter_ns);
    let is_sure = |run: &Run| {
        // It naps that long after its exec, which came after the fork.
        let until = run.span.0 + u64::from(target.nap_ns);
        run.execed_ns != 0 && run.execed_ns <= enter_ns && exit_ns <= until
    };
    let runners = runners.map(|run| PossibleRunner {
        pid: run.pid,
        from_ns: run.span.0,
        until_ns: run.span.1,
        sure: is_sure(run),
    });
    let runners = runners.collect();
    Refusal { tid: refused.tid, ino: target.ino, enter_ns, exit_ns, runners }
}
