//! The race of go22315 in which the holders of every failure are known: each child says what it
//! has inherited, and when it went on to its exec.
//!
//! Each thread writes a new file each time, so that an inode number names one description, closes
//! it, and forks a child that execs it. A description is therefore held by children of other
//! threads only, and by each from its fork until it is through its exec, or ends.

use super::child::{Program, fork, wait};
use super::race::{self, Counts, Course, Crowd};
use super::report::{FailedExec, GroundTruth, Inheritor, Race, Task};
use super::{elf, stage};
use crate::clock::now_ns;
use anyhow::{Context, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::collections::{HashMap, HashSet};
use std::ffi::{c_int, c_void};
use std::fs;
use std::mem::MaybeUninit;
use std::num::NonZero;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

/// Arguments of `ground-truth`.
#[derive(Clone, Debug, PartialEq, clap::Args)]
pub struct Args {
    #[command(flatten)]
    crowd: Crowd,
    /// Where to make the directory for the programs: on a tmpfs, so that inode numbers are not
    /// used twice.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
}

/// Every how often a thread lets others run while it has its file open: a file on a tmpfs is
/// written too soon else. (Always would make a third of all execs fail.)
const LINGER: u32 = 4;

/// What one thread knows.
struct Known {
    tid: u32,
    children: Vec<Child>,
    failures: Vec<Failure>,
}

/// A child that has inherited what other threads had open.
struct Child {
    pid: u32,
    /// Just before its exec; it had the fds until then.
    before_exec_ns: u64,
    /// Just after its exec failed, or the same as that.
    held_until_ns: u64,
    /// It had been waited for.
    gone_by_ns: u64,
    /// Fds that are open for writing, and their inode numbers.
    fds: Vec<(u32, u64)>,
}

/// An exec that failed.
struct Failure {
    victim: u32,
    ino: u64,
    /// Just before the call.
    enter_ns: u64,
    /// Just after it.
    exit_ns: u64,
}

pub(super) fn run(args: &Args) -> Result<GroundTruth> {
    let Crowd { threads, course } = &args.crowd;
    let dir = stage::directory(&args.dir)?;
    let program = elf::exit()?;
    // The lowest free fd is taken, so those of the threads' files are below this.
    let fds = fs::read_dir("/proc/self/fd")?.count() as u32 + *threads;
    let words = WORDS + 2 * fds as usize;
    let shared = Shared::new(*threads as usize * words)?;
    let notes = shared.words();
    let outcome = race::run(
        *threads,
        course,
        || Ok(()),
        |index, counts| {
            let notes = &notes[index as usize * words..][..words];
            let path = dir.path().join(format!("fork-exec-{index}"));
            write_and_run(&path, &program, course, notes, counts)
        },
    )?;
    Ok(GroundTruth {
        failed: failed(&outcome.threads),
        race: Race {
            scenario: "ground-truth".into(),
            pid: Task::current().pid,
            dir: dir.path().into(),
            attempts: outcome.attempts,
            failures: outcome.failures,
            seconds: outcome.seconds,
            threads: outcome.threads.iter().map(|known| known.tid).collect(),
        },
    })
}

fn write_and_run(
    path: &Path,
    program: &[u8],
    course: &Course,
    notes: &[AtomicU64],
    counts: &Counts,
) -> Result<Known> {
    let tid = Task::current().tid;
    let mut known = Known { tid, children: Vec::new(), failures: Vec::new() };
    let target = Program::new(path)?;
    for round in 0_u32.. {
        if !counts.goes_on() {
            break;
        }
        let file = stage::executable(path, program)?;
        if round.is_multiple_of(LINGER) {
            thread::yield_now();
        }
        course.write();
        drop(file);
        let ino = path.metadata()?.ino();

        let child = fork(|| {
            note_fds(notes);
            notes[BEFORE].store(now_ns(), Relaxed);
            let errno = target.exec() as c_int;
            notes[AFTER].store(now_ns(), Relaxed);
            errno
        })?;
        let errno = wait(child)?;
        let gone_by_ns = now_ns();
        fs::remove_file(path)?;

        let pid = child.as_raw().cast_unsigned();
        let [before_exec_ns, after_ns, count] =
            [BEFORE, AFTER, COUNT].map(|at| notes[at].load(Relaxed));
        let failed = counts.attempt(errno)?;
        if failed {
            let failure = Failure { victim: pid, ino, enter_ns: before_exec_ns, exit_ns: after_ns };
            known.failures.push(failure);
        }
        if count > 0 {
            known.children.push(Child {
                pid,
                before_exec_ns,
                held_until_ns: if failed { after_ns } else { before_exec_ns },
                gone_by_ns,
                fds: notes[WORDS..]
                    .chunks_exact(2)
                    .take(count as usize)
                    .map(|pair| (pair[0].load(Relaxed) as u32, pair[1].load(Relaxed)))
                    .collect(),
            });
        }
    }
    Ok(known)
}

/// What a child notes, in words that it shares with its parent: when it called exec, when that
/// returned, how many fds it has inherited that are open for writing; then the fd and the inode
/// number of each.
const BEFORE: usize = 0;
const AFTER: usize = 1;
const COUNT: usize = 2;
const WORDS: usize = 3;

/// In a child: notes the fds that it has inherited and that are open for writing.
fn note_fds(notes: &[AtomicU64]) {
    let fds = (notes.len() - WORDS) / 2;
    let mut places = notes[WORDS..].chunks_exact(2);
    let mut count = 0;
    for fd in 3..fds as c_int {
        if let Some(ino) = written_file(fd)
            && let Some(place) = places.next()
        {
            place[0].store(u64::from(fd.cast_unsigned()), Relaxed);
            place[1].store(ino, Relaxed);
            count += 1;
        }
    }
    notes[COUNT].store(count, Relaxed);
}

/// The inode number of a regular file that is open for writing at an fd.
fn written_file(fd: c_int) -> Option<u64> {
    // SAFETY: fcntl(2) without an argument, on an fd that may well not be open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags == -1 || flags & libc::O_ACCMODE == libc::O_RDONLY {
        return None;
    }
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `stat` has the size that the call writes.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has passed.
    let stat = unsafe { stat.assume_init() };
    (stat.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(stat.st_ino)
}

/// What is true of each failure, from what all threads know.
fn failed(threads: &[Known]) -> Vec<FailedExec> {
    let failures = || {
        threads.iter().flat_map(|known| known.failures.iter().map(|failure| (known.tid, failure)))
    };
    let busy: HashSet<u64> = failures().map(|(_, failure)| failure.ino).collect();
    let mut inheritors: HashMap<u64, Vec<(u32, &Child)>> = HashMap::new();
    for known in threads {
        for child in &known.children {
            for ino in child.fds.iter().map(|(_, ino)| *ino).filter(|ino| busy.contains(ino)) {
                inheritors.entry(ino).or_default().push((known.tid, child));
            }
        }
    }
    let of = |(writer, failure): (u32, &Failure)| {
        let inherited = inheritors.get(&failure.ino).into_iter().flatten();
        let in_time = inherited.filter(|(_, child)| child.gone_by_ns >= failure.enter_ns);
        FailedExec {
            victim: failure.victim,
            ino: failure.ino,
            writer,
            enter_ns: failure.enter_ns,
            exit_ns: failure.exit_ns,
            inheritors: in_time
                .map(|(forked_by, child)| Inheritor {
                    pid: child.pid,
                    fds: fds_of(child, failure.ino),
                    forked_by: *forked_by,
                    before_exec_ns: child.before_exec_ns,
                    gone_by_ns: child.gone_by_ns,
                    // Its copy is older than the victim, whose parent had closed the file.
                    sure: child.held_until_ns >= failure.exit_ns,
                })
                .collect(),
        }
    };
    failures().map(of).collect()
}

fn fds_of(child: &Child, ino: u64) -> Vec<u32> {
    child.fds.iter().filter(|fd| fd.1 == ino).map(|fd| fd.0).collect()
}

/// Zeroed words that the process has in common with its children.
struct Shared {
    start: NonNull<c_void>,
    words: usize,
}

impl Shared {
    fn new(words: usize) -> Result<Self> {
        let length = NonZero::new(words * size_of::<AtomicU64>()).context("no words to share")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice.
        let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self { start, words })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is that long, page-aligned, zeroed, and lives as long as `self`; it
        // is written through these atomics only.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.words) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.start, self.words * size_of::<AtomicU64>()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
