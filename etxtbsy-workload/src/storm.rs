//! Storms: one thing on all CPUs as fast as possible.
//!
//! Each storm, except that of execs, ends with one failed exec with known facts: this process is the
//! opener, and has the file open at one fd.

use super::child::{self, Actor, Program};
use super::report::{Storm, Task};
use super::stage;
use anyhow::{Context, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZero;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Arguments of `storm`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// What to do.
    #[arg(value_enum)]
    of: Of,
    /// How often in all.
    #[arg(long, default_value_t = u64::MAX)]
    count: u64,
    /// Maximum duration in seconds.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Where to create the directory for the files.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
    /// Print a line and wait for a line on stdin; at the end, wait for the end of stdin.
    #[arg(long)]
    wait_for_go: bool,
}

/// Fds that a process needs for other files.
const SPARE_FDS: u64 = 64;

/// What a storm does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Of {
    /// Execs of a file that this process has open for writing; each fails.
    Execs,
    /// Forks of this process, which has a file open for writing.
    Forks,
    /// Opens for writing, each closed again.
    Opens,
    /// Many files open for writing at once, also in children if this process may not have so many.
    Held,
    /// Threads of this process, which has a file open for writing.
    Threads,
}

pub(super) fn run(args: &Args, print: impl FnOnce(&Storm) -> Result<()>) -> Result<()> {
    stage::catch_interrupts()?;
    let dir = stage::directory(&args.dir)?;
    let path = dir.path().join("busy");
    let target = Program::new(&path)?;
    if args.wait_for_go {
        stage::wait_for_go()?;
    }
    // Stays open until the end.
    let writer = stage::script(&path)?;
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    let should_continue = || Instant::now() < until && !stage::interrupted();
    let each =
        |body: &(dyn Fn() -> Result<()> + Sync)| on_all_cpus(args.count, should_continue, body);
    let mut held = None;
    let done = match args.of {
        Of::Execs => each(&|| fail(&target))?,
        Of::Forks => each(&|| child::wait_success(child::fork(|| 0)?))?,
        Of::Opens => each(&|| hold(dir.path()).map(drop))?,
        Of::Held => {
            held = Some(hold_many(args.count, dir.path(), &writer)?);
            args.count
        }
        Of::Threads => {
            each(&|| thread::spawn(|| ()).join().map_err(|_| anyhow!("a thread panicked")))?
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    if args.of != Of::Execs {
        fail(&target)?;
    }
    let failures = if args.of == Of::Execs { done } else { 1 };
    let scenario = "storm".into();
    print(&Storm { scenario, pid: Task::current().pid, path, done, failures, seconds })?;
    if args.wait_for_go {
        io::stdin().read_to_end(&mut Vec::new())?;
    }
    let (_files, others) = held.unwrap_or_default();
    others.into_iter().try_for_each(|other| other.end().map(drop))
}

/// Runs `body` up to `count` times in one thread per CPU, while `should_continue`; returns how often.
fn on_all_cpus(
    count: u64,
    should_continue: impl Fn() -> bool + Sync,
    body: &(dyn Fn() -> Result<()> + Sync),
) -> Result<u64> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get) as u64;
    let work = |share| {
        let mut done = 0;
        while done < share && should_continue() {
            body()?;
            done += 1;
        }
        anyhow::Ok(done)
    };
    thread::scope(|scope| {
        let start = |index| {
            let (work, share) = (&work, count / threads + u64::from(index < count % threads));
            thread::Builder::new().spawn_scoped(scope, move || work(share))
        };
        let started = (0..threads).map(start).collect::<io::Result<Vec<_>>>()?;
        started.into_iter().map(|it| it.join().map_err(|_| anyhow!("a thread panicked"))?).sum()
    })
}

/// An exec in this process, which must fail.
fn fail(target: &Program) -> Result<()> {
    let errno = target.exec();
    ensure!(errno == Errno::ETXTBSY, "the exec failed with {errno} instead of ETXTBSY");
    Ok(())
}

/// Opens a new unnamed file for writing.
fn hold(dir: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_TMPFILE | OFlag::O_CLOEXEC;
    open(dir, flags, Mode::S_IRWXU).context("cannot open a file for writing")
}

/// Files open for writing, and children with more of them.
type OpenFiles = (Vec<OwnedFd>, Vec<Actor>);

/// Opens `count` files: in this process, and those beyond its limit in children.
fn hold_many(count: u64, dir: &Path, writer: &File) -> Result<OpenFiles> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.max(count + SPARE_FDS);
    // Raising the hard limit needs CAP_SYS_RESOURCE.
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted)
        .or_else(|_| setrlimit(Resource::RLIMIT_NOFILE, hard, hard))?;
    let (most, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let share = most.saturating_sub(SPARE_FDS);
    let (mut left, mut others) = (count, Vec::new());
    while left > share {
        let other = Actor::start(|control| {
            child::close(writer.as_raw_fd());
            let files: Result<Vec<_>> = (0..share).map(|_| hold(dir)).collect();
            control.send([files.is_ok().into()]);
            control.wait().map(drop)
        })?;
        ensure!(other.receive()? == [1], "a child cannot open {share} files for writing");
        others.push(other);
        left -= share;
    }
    let files = (0..left).map(|_| hold(dir)).collect::<Result<_>>()?;
    Ok((files, others))
}
