//! A child still being made has a copy of the fd: it holds the file and has no pid yet.
//!
//! `fork` copies the fd table first and the page tables then, which takes milliseconds if there
//! are many. In between, the opener closes the file and another process execs it.

use super::Busy;
use crate::child::{Program, close, fork, hear, tell, wait, wait_success};
use crate::clock::now_ns;
use crate::report::{Holder, Scene, Task};
use anyhow::{Context, Result, anyhow, bail};
use etxtbsy_trace_event::{How, Role, State, VerdictKind, Via};
use nix::errno::Errno;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::unistd::{Pid, getpid, gettid};
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, PipeWriter, Write};
use std::num::NonZero;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{io, thread};

/// How often to try; the first try nearly always does.
const TRIES: u32 = 20;

/// Arguments of `fork-in-progress`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// The size of the mapping whose page tables the fork copies; takes 1/512 of it in memory.
    #[arg(long, default_value_t = 1500, value_parser = clap::value_parser!(u32).range(64..))]
    megabytes: u32,
}

pub(crate) fn run(args: &Args) -> Result<Scene> {
    let busy = Busy::new()?;
    let victims = Victims::start(&busy.path)?;
    let size = map_many_pages(args.megabytes)?;
    let bystander = Path::new("/bin/true");
    let program = Program::new(bystander)?;

    for _ in 0..TRIES {
        if let Some(seen) = attempt(&busy.path, &program, &victims, size)? {
            let opener = Task::current();
            let holder = Holder {
                state: State::InFork,
                forked: Some(Task { tid: seen.forker, ..opener }),
                released: How::CloseOnExec,
                exec: Some(bystander.into()),
                ancestors: vec![opener.pid],
                ..Holder::other(Task::main_of(seen.child.as_raw()), Via::Fork, opener, [seen.fd])
            };
            return Ok(Scene {
                scenario: "fork-in-progress".into(),
                syscall: "execve".into(),
                path: busy.path.clone(),
                busy: busy.path.clone(),
                ino: busy.ino,
                role: Some(Role::Target),
                writers: 1,
                victim: Task::main_of(seen.victim),
                holders: vec![holder],
                unheld: Vec::new(),
                verdict: VerdictKind::ForkExecRace,
            });
        }
    }
    bail!("in {TRIES} tries no exec fell into a fork: try more than --megabytes {}", args.megabytes)
}

/// A failure that fell into a fork.
struct Seen {
    victim: i32,
    child: Pid,
    forker: u32,
    fd: RawFd,
}

/// One fork in another thread, one exec in it; `None` if the exec did not fall into the fork, in
/// which case it did not fail either.
fn attempt(path: &Path, program: &Program, victims: &Victims, size: u64) -> Result<Option<Seen>> {
    let meminfo = File::open("/proc/meminfo")?;
    let victim = victims.prepare()?;
    let file = OpenOptions::new().write(true).open(path)?;
    let fd = file.as_raw_fd();
    let enough = committed(&meminfo)? + size / 2;
    let over_ns = AtomicU64::new(0);

    thread::scope(|scope| {
        let forker = thread::Builder::new().name("forker".into()).spawn_scoped(scope, || {
            let child = fork(|| program.exec() as i32);
            over_ns.store(now_ns(), Ordering::SeqCst);
            child.map(|child| (child, gettid().as_raw().cast_unsigned()))
        })?;
        let join = |forker: thread::ScopedJoinHandle<'_, Result<(Pid, u32)>>| {
            let (child, tid) = forker.join().map_err(|_| anyhow!("the forker panicked"))??;
            wait_success(child)?;
            Ok::<_, anyhow::Error>((child, tid))
        };

        // From here until the exec this thread writes to its own stack only: all that the fork
        // has copied already is copy-on-write, and a page fault would wait for the fork's end.
        while committed(&meminfo)? < enough {
            if over_ns.load(Ordering::SeqCst) != 0 {
                join(forker)?;
                drop(file);
                victims.exec()?;
                return Ok(None);
            }
        }
        // The fork is at the large mapping, so it has copied the fd table.
        drop(file);
        let (errno, failed_ns) = victims.exec()?;
        let (child, forker) = join(forker)?;
        let in_time = failed_ns < over_ns.load(Ordering::SeqCst);
        match errno {
            libc::ETXTBSY if in_time => Ok(Some(Seen { victim, child, forker, fd })),
            libc::ETXTBSY => bail!("the fork was over too soon: it takes more --megabytes"),
            0 => Ok(None),
            errno => bail!("the exec failed with {} instead of ETXTBSY", Errno::from_raw(errno)),
        }
    })
}

/// A mapping that takes long to copy: all its pages are mapped, to the zero page for the most
/// part. In KiB.
fn map_many_pages(megabytes: u32) -> Result<u64> {
    const PAGE: usize = 4096;
    let kib = u64::from(megabytes) * 1024;
    let length = NonZero::new(kib as usize * 1024).context("an empty mapping")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice.
    let mapping = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }
        .with_context(|| format!("cannot map --megabytes {megabytes}"))?;
    // SAFETY: the mapping is as long as that. A kernel without huge pages refuses: as well.
    let _ = unsafe { madvise(mapping, length.get(), MmapAdvise::MADV_NOHUGEPAGE) };
    let start = mapping.cast::<u8>();
    // SAFETY: within the mapping. One write, or the fork would leave the pages out altogether.
    unsafe { start.write_volatile(1) };
    for offset in (0..length.get()).step_by(PAGE) {
        // SAFETY: within the mapping.
        unsafe { start.add(offset).read_volatile() };
    }
    Ok(kib)
}

/// How much memory all processes may write to, in KiB, proc_meminfo(5): a fork adds a mapping to
/// it as it comes to copy it, which is the one sign of how far it is. Does not allocate.
fn committed(meminfo: &File) -> io::Result<u64> {
    const KEY: &[u8] = b"Committed_AS:";
    let mut buffer = [0; 4096];
    let length = meminfo.read_at(&mut buffer, 0)?;
    let text = &buffer[..length];
    let start = text.windows(KEY.len()).position(|window| window == KEY);
    let digits = start.map_or(&[][..], |start| &text[start + KEY.len()..]);
    let digits = digits.trim_ascii_start().iter().take_while(|byte| byte.is_ascii_digit());
    Ok(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

/// A process that had been forked before the file was opened, and forks the victims.
struct Victims {
    orders: PipeWriter,
    go: PipeWriter,
    ready: PipeReader,
    ended: PipeReader,
}

impl Victims {
    fn start(path: &Path) -> Result<Self> {
        let program = Program::new(path)?;
        let (order, orders) = io::pipe()?;
        let (gate, go) = io::pipe()?;
        let (ready, tell_ready) = io::pipe()?;
        let (ended, tell_ended) = io::pipe()?;
        fork(|| {
            close(orders.as_raw_fd());
            close(go.as_raw_fd());
            // Ends with the pipe of orders, that is, with the workload.
            while hear::<1>(&order).is_ok() {
                let victim = fork(|| {
                    tell(&tell_ready, [getpid().as_raw().into()]);
                    let errno = match hear::<1>(&gate) {
                        Ok(_) => program.exec() as i32,
                        Err(_) => libc::EPIPE,
                    };
                    let failed_ns = now_ns();
                    tell(&tell_ended, [errno.into(), failed_ns.cast_signed()]);
                    errno
                });
                match victim.and_then(wait) {
                    Ok(0) => tell(&tell_ended, [0, 0]),
                    Ok(_) => {}
                    Err(_) => tell(&tell_ended, [libc::ECHILD.into(), 0]),
                }
            }
            0
        })?;
        Ok(Self { orders, go, ready, ended })
    }

    /// Forks one, which will wait, and gives its pid.
    fn prepare(&self) -> Result<i32> {
        (&self.orders).write_all(&1_i64.to_ne_bytes())?;
        let [pid] = hear(&self.ready)?;
        Ok(pid as i32)
    }

    /// Lets it exec; gives the errno, or 0, and when it had failed.
    fn exec(&self) -> Result<(i32, u64)> {
        (&self.go).write_all(&1_i64.to_ne_bytes())?;
        let [errno, failed_ns] = hear(&self.ended)?;
        Ok((errno as i32, failed_ns.cast_unsigned()))
    }
}
