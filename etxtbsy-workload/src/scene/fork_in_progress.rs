//! A child of a fork in progress has a copy of the fd: it holds the file, but has no pid yet.
//!
//! `fork` first copies the fd table and then the page tables, which takes milliseconds if there are many.
//! In between, the opener closes the file and another process execs it.

use super::Busy;
use crate::child::{Program, close, fork, receive_numbers, send_numbers, wait, wait_success};
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

/// The maximum number of tries; the first one nearly always succeeds.
const TRIES: u32 = 20;

/// Arguments of `fork-in-progress`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    /// Size of the mapping whose page tables the fork copies; needs 1/512 of it in memory.
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
        if let Some(caught) = attempt(&busy.path, &program, &victims, size)? {
            let opener = Task::current();
            let holder = Holder {
                state: State::InFork,
                forked: Some(Task { tid: caught.forker, ..opener }),
                released: How::CloseOnExec,
                exec: Some(bystander.into()),
                ancestors: vec![opener.pid],
                ..Holder::other(
                    Task::main_of(caught.child.as_raw()),
                    Via::Fork,
                    opener,
                    [caught.fd],
                )
            };
            return Ok(Scene {
                scenario: "fork-in-progress".into(),
                syscall: "execve".into(),
                path: busy.path.clone(),
                busy: busy.path.clone(),
                ino: busy.ino,
                role: Some(Role::Target),
                writers: 1,
                victim: Task::main_of(caught.victim),
                holders: vec![holder],
                unheld: Vec::new(),
                verdict: VerdictKind::ForkExecRace,
            });
        }
    }
    bail!(
        "no exec failed during a fork in {TRIES} tries: use more than --megabytes {}",
        args.megabytes
    )
}

/// A failure during a fork.
struct FailureInFork {
    victim: i32,
    child: Pid,
    forker: u32,
    fd: RawFd,
}

/// Forks in another thread, and execs during that; `None` if the exec missed the fork, and so did not
/// fail.
fn attempt(
    path: &Path,
    program: &Program,
    victims: &Victims,
    size: u64,
) -> Result<Option<FailureInFork>> {
    let meminfo = File::open("/proc/meminfo")?;
    let victim = victims.prepare()?;
    let file = OpenOptions::new().write(true).open(path)?;
    let fd = file.as_raw_fd();
    let enough = committed(&meminfo)? + size / 2;
    let fork_end_ns = AtomicU64::new(0);

    thread::scope(|scope| {
        let forker = thread::Builder::new().name("forker".into()).spawn_scoped(scope, || {
            let child = fork(|| program.exec() as i32);
            fork_end_ns.store(now_ns(), Ordering::SeqCst);
            child.map(|child| (child, gettid().as_raw().cast_unsigned()))
        })?;
        let join = |forker: thread::ScopedJoinHandle<'_, Result<(Pid, u32)>>| {
            let (child, tid) = forker.join().map_err(|_| anyhow!("the forker panicked"))??;
            wait_success(child)?;
            Ok::<_, anyhow::Error>((child, tid))
        };

        // Until the exec, this thread may only write to its own stack: pages that the fork has copied are
        // copy-on-write, and a page fault would wait for the end of the fork.
        while committed(&meminfo)? < enough {
            if fork_end_ns.load(Ordering::SeqCst) != 0 {
                join(forker)?;
                drop(file);
                victims.exec()?;
                return Ok(None);
            }
        }
        // The fork has reached the large mapping, so it has copied the fd table.
        drop(file);
        let (errno, failed_ns) = victims.exec()?;
        let (child, forker) = join(forker)?;
        let in_time = failed_ns < fork_end_ns.load(Ordering::SeqCst);
        match errno {
            libc::ETXTBSY if in_time => Ok(Some(FailureInFork { victim, child, forker, fd })),
            libc::ETXTBSY => bail!("the fork ended too soon: use more --megabytes"),
            0 => Ok(None),
            errno => bail!("the exec failed with {} instead of ETXTBSY", Errno::from_raw(errno)),
        }
    })
}

/// Creates a mapping that takes long to copy: all its pages are mapped, most to the zero page. Returns
/// its size in KiB.
fn map_many_pages(megabytes: u32) -> Result<u64> {
    const PAGE: usize = 4096;
    let kib = u64::from(megabytes) * 1024;
    let length = NonZero::new(kib as usize * 1024).context("an empty mapping")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address that the kernel chooses replaces no other.
    let mapping = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE) }
        .with_context(|| format!("cannot map --megabytes {megabytes}"))?;
    // SAFETY: the range is the mapping. A kernel without huge pages refuses, which does not matter.
    let _ = unsafe { madvise(mapping, length.get(), MmapAdvise::MADV_NOHUGEPAGE) };
    let start = mapping.cast::<u8>();
    // SAFETY: within the mapping. Without a write, the fork would not copy the page tables.
    unsafe { start.write_volatile(1) };
    for offset in (0..length.get()).step_by(PAGE) {
        // SAFETY: the offset is within the mapping.
        unsafe { start.add(offset).read_volatile() };
    }
    Ok(kib)
}

/// The memory that all processes may write to, in KiB, see proc_meminfo(5). A fork adds each mapping when
/// it copies it, so this shows the fork's progress. Does not allocate.
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

/// A process that was forked before the file was opened, and forks the victims.
struct Victims {
    order_writer: PipeWriter,
    exec_writer: PipeWriter,
    ready: PipeReader,
    ended: PipeReader,
}

impl Victims {
    fn start(path: &Path) -> Result<Self> {
        let program = Program::new(path)?;
        let (order_reader, order_writer) = io::pipe()?;
        let (exec_reader, exec_writer) = io::pipe()?;
        let (ready, ready_writer) = io::pipe()?;
        let (ended, ended_writer) = io::pipe()?;
        fork(|| {
            close(order_writer.as_raw_fd());
            close(exec_writer.as_raw_fd());
            // Ends when the order pipe ends, that is, with the workload.
            while receive_numbers::<1>(&order_reader).is_ok() {
                let victim = fork(|| {
                    send_numbers(&ready_writer, [getpid().as_raw().into()]);
                    let errno = match receive_numbers::<1>(&exec_reader) {
                        Ok(_) => program.exec() as i32,
                        Err(_) => libc::EPIPE,
                    };
                    let failed_ns = now_ns();
                    send_numbers(&ended_writer, [errno.into(), failed_ns.cast_signed()]);
                    errno
                });
                match victim.and_then(wait) {
                    Ok(0) => send_numbers(&ended_writer, [0, 0]),
                    Ok(_) => {}
                    Err(_) => send_numbers(&ended_writer, [libc::ECHILD.into(), 0]),
                }
            }
            0
        })?;
        Ok(Self { order_writer, exec_writer, ready, ended })
    }

    /// Forks a victim, which waits, and returns its pid.
    fn prepare(&self) -> Result<i32> {
        (&self.order_writer).write_all(&1_i64.to_ne_bytes())?;
        let [pid] = receive_numbers(&self.ready)?;
        Ok(pid as i32)
    }

    /// Resumes the victim; returns the errno of its exec, or 0, and when it failed.
    fn exec(&self) -> Result<(i32, u64)> {
        (&self.exec_writer).write_all(&1_i64.to_ne_bytes())?;
        let [errno, failed_ns] = receive_numbers(&self.ended)?;
        Ok((errno as i32, failed_ns.cast_unsigned()))
    }
}
