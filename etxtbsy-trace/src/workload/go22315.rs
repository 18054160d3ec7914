//! golang/go#22315: threads that each write a script of their own, close it, fork, and exec it.
//! The child that one thread forks has a copy of what another has open at that moment.

use super::child::Program;
use super::report::{Race, Task};
use super::stage::{self, SCRIPT};
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{io, thread};

/// Arguments of `go22315`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// How many threads.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    threads: u32,
    /// How long.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Stop when that many execs have failed.
    #[arg(long, value_name = "N")]
    failures: Option<u64>,
    /// Where to make the directory for the scripts.
    #[arg(long, value_name = "DIR", default_value = stage::PLACE)]
    dir: PathBuf,
    /// Once the threads have started, print a line and wait for a line on stdin.
    #[arg(long)]
    wait_for_go: bool,
}

#[derive(Default)]
struct Counts {
    attempts: AtomicU64,
    failures: AtomicU64,
    /// When to stop; the threads wait for it to be set.
    end: OnceLock<Instant>,
    /// Stop before that: there were failures enough, or something else than ETXTBSY went wrong.
    stop: AtomicBool,
}

impl Counts {
    fn goes_on(&self) -> bool {
        Instant::now() < *self.end.wait()
            && !self.stop.load(Ordering::Relaxed)
            && !stage::interrupted()
    }
}

pub(super) fn run(args: &Args) -> Result<Race> {
    stage::catch_interrupts()?;
    let dir = stage::directory(&args.dir)?;
    let counts = Counts::default();
    let (threads, elapsed) = thread::scope(|scope| {
        let start_thread = |index| {
            let path = dir.path().join(format!("fork-exec-{index}"));
            let counts = &counts;
            let body = move || {
                let outcome = write_and_run(&path, counts, args.failures);
                counts.stop.store(true, Ordering::Relaxed);
                outcome.map(|()| Task::current().tid)
            };
            thread::Builder::new().name(format!("fork-exec-{index}")).spawn_scoped(scope, body)
        };
        let started = (0..args.threads).map(start_thread).collect::<io::Result<Vec<_>>>();
        let ready = match &started {
            Ok(_) if args.wait_for_go => stage::wait_for_go(),
            _ => Ok(()),
        };
        counts.stop.store(started.is_err() || ready.is_err(), Ordering::Relaxed);
        let start = Instant::now();
        counts.end.get_or_init(|| start + Duration::from_secs(args.seconds));
        ready?;
        let threads = started?
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow!("a thread panicked"))?)
            .collect::<Result<Vec<u32>>>()?;
        anyhow::Ok((threads, start.elapsed()))
    })?;
    Ok(Race {
        scenario: "go22315".into(),
        pid: Task::current().pid,
        dir: dir.path().into(),
        attempts: counts.attempts.into_inner(),
        failures: counts.failures.into_inner(),
        seconds: elapsed.as_secs_f64(),
        threads,
    })
}

fn write_and_run(path: &Path, counts: &Counts, limit: Option<u64>) -> Result<()> {
    let program = Program::new(path)?;
    while counts.goes_on() {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o777)
            .open(path)
            .with_context(|| path.display().to_string())?;
        file.write_all(SCRIPT)?;
        drop(file);

        counts.attempts.fetch_add(1, Ordering::Relaxed);
        match fork_and_exec(&program)? {
            0 => {}
            libc::ETXTBSY => {
                let failures = counts.failures.fetch_add(1, Ordering::Relaxed) + 1;
                if limit.is_some_and(|limit| failures >= limit) {
                    break;
                }
            }
            errno => bail!("the exec of {} failed: {}", path.display(), Errno::from_raw(errno)),
        }
    }
    Ok(())
}

/// The status of a child that exits with the errno of its exec, or 0 from the script.
fn fork_and_exec(program: &Program) -> Result<i32> {
    // SAFETY: the child makes two system calls.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let errno = program.exec() as i32;
        // SAFETY: always sound.
        unsafe { libc::_exit(errno) }
    }
    ensure!(child > 0, "fork: {}", Errno::last());
    super::child::wait(nix::unistd::Pid::from_raw(child))
}
