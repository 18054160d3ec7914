//! The race of go22315 with known holders: each child records which fds it inherited, and when it
//! called exec.
//!
//! Each thread writes a new file each time, so that an inode number identifies one description. It
//! closes the file, and forks a child that execs it. So only children of other threads hold a
//! description, from their fork until their exec has succeeded or they end.

use super::child::{Program, fork, wait};
use super::race::{self, Counts, RaceArgs, RaceLimits};
use super::report::{FailedExec, GroundTruth, Inheritor, Race, Task, WonExec};
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
    race: RaceArgs,
    /// Where to create the directory for the programs: on a tmpfs, which does not reuse inode numbers.
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    dir: PathBuf,
}

/// A thread yields in every Nth round while it has its file open, because writing to a tmpfs is too
/// fast for failures. (Yielding in every round would make a third of all execs fail.)
const YIELD_EVERY: u32 = 4;

/// What one thread recorded.
struct ThreadRecord {
    tid: u32,
    children: Vec<Child>,
    failures: Vec<FailedCall>,
    successes: Vec<Success>,
}

/// A child that inherited fds that other threads had open.
struct Child {
    pid: u32,
    /// Just before its exec; it had the fds at least until then.
    before_exec_ns: u64,
    /// Just after its exec failed; if it succeeded, the same as `before_exec_ns`.
    held_until_ns: u64,
    /// A time by which it had been waited for.
    gone_by_ns: u64,
    /// The inherited fds that are open for writing, with their inode numbers.
    fds: Vec<(u32, u64)>,
}

/// An exec that succeeded.
struct Success {
    victim: u32,
    ino: u64,
    /// Just before the fork of the victim.
    fork_begins_ns: u64,
    /// Just after it, in the parent.
    fork_ended_ns: u64,
    /// Just before the exec.
    enter_ns: u64,
}

/// An exec that failed.
struct FailedCall {
    victim: u32,
    ino: u64,
    /// Just before the call.
    enter_ns: u64,
    /// Just after it.
    exit_ns: u64,
}

pub(super) fn run(args: &Args) -> Result<GroundTruth> {
    let RaceArgs { threads, limits } = &args.race;
    let dir = stage::directory(&args.dir)?;
    let program = elf::exit()?;
    // The kernel assigns the lowest free fd, so the threads' files have fds below this.
    let fds = fs::read_dir("/proc/self/fd")?.count() as u32 + *threads;
    let words = WORDS + 2 * fds as usize;
    let shared = Shared::new(*threads as usize * words)?;
    let shared_words = shared.words();
    let outcome = race::run(
        *threads,
        limits,
        || Ok(()),
        |index, counts| {
            let shared_words = &shared_words[index as usize * words..][..words];
            let path = dir.path().join(format!("fork-exec-{index}"));
            write_and_run(&path, &program, limits, shared_words, counts)
        },
    )?;
    let children = children_by_file(&outcome.threads);
    Ok(GroundTruth {
        failed: failed(&outcome.threads, &children),
        won: won(&outcome.threads, &children),
        race: Race {
            scenario: "ground-truth".into(),
            pid: Task::current().pid,
            dir: dir.path().into(),
            attempts: outcome.attempts,
            failures: outcome.failures,
            seconds: outcome.seconds,
            threads: outcome.threads.iter().map(|record| record.tid).collect(),
        },
    })
}

fn write_and_run(
    path: &Path,
    program: &[u8],
    limits: &RaceLimits,
    shared_words: &[AtomicU64],
    counts: &Counts,
) -> Result<ThreadRecord> {
    let tid = Task::current().tid;
    let mut record =
        ThreadRecord { tid, children: Vec::new(), failures: Vec::new(), successes: Vec::new() };
    let target = Program::new(path)?;
    for round in 0_u32.. {
        if !counts.should_continue() {
            break;
        }
        let file = stage::executable(path, program)?;
        if round.is_multiple_of(YIELD_EVERY) {
            thread::yield_now();
        }
        limits.pause_while_open();
        drop(file);
        let ino = path.metadata()?.ino();

        let fork_begins_ns = now_ns();
        let child = fork(|| {
            record_fds(shared_words);
            shared_words[BEFORE].store(now_ns(), Relaxed);
            let errno = target.exec() as c_int;
            shared_words[AFTER].store(now_ns(), Relaxed);
            errno
        })?;
        let fork_ended_ns = now_ns();
        let errno = wait(child)?;
        let gone_by_ns = now_ns();
        fs::remove_file(path)?;

        let pid = child.as_raw().cast_unsigned();
        let [before_exec_ns, after_ns, count] =
            [BEFORE, AFTER, COUNT].map(|at| shared_words[at].load(Relaxed));
        let failed = counts.attempt(errno)?;
        if failed {
            let failure =
                FailedCall { victim: pid, ino, enter_ns: before_exec_ns, exit_ns: after_ns };
            record.failures.push(failure);
        } else {
            record.successes.push(Success {
                victim: pid,
                ino,
                fork_begins_ns,
                fork_ended_ns,
                enter_ns: before_exec_ns,
            });
        }
        if count > 0 {
            record.children.push(Child {
                pid,
                before_exec_ns,
                held_until_ns: if failed { after_ns } else { before_exec_ns },
                gone_by_ns,
                fds: shared_words[WORDS..]
                    .chunks_exact(2)
                    .take(count as usize)
                    .map(|pair| (pair[0].load(Relaxed) as u32, pair[1].load(Relaxed)))
                    .collect(),
            });
        }
    }
    Ok(record)
}

/// Indices of the words that a child shares with its parent: when it called exec, when exec returned,
/// how many inherited fds are open for writing; then the fd and the inode number of each.
const BEFORE: usize = 0;
const AFTER: usize = 1;
const COUNT: usize = 2;
const WORDS: usize = 3;

/// In a child: records the inherited fds that are open for writing.
fn record_fds(shared_words: &[AtomicU64]) {
    let fds = (shared_words.len() - WORDS) / 2;
    let mut places = shared_words[WORDS..].chunks_exact(2);
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
    shared_words[COUNT].store(count, Relaxed);
}

/// The inode number of the fd's file, if it is a regular file that is open for writing.
fn written_file(fd: c_int) -> Option<u64> {
    // SAFETY: F_GETFL has no argument, and fails on an fd that is not open.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFL) };
    if flags == -1 || flags & libc::O_ACCMODE == libc::O_RDONLY {
        return None;
    }
    let mut stat = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: the pointer refers to a `struct stat` that outlives the call.
    if unsafe { libc::fstat(fd, stat.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: fstat(2) succeeded, so it has filled in `stat`.
    let stat = unsafe { stat.assume_init() };
    (stat.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(stat.st_ino)
}

/// The children that inherited a file, with the threads that forked them, by inode number.
type Children<'a> = HashMap<u64, Vec<(u32, &'a Child)>>;

fn children_by_file(threads: &[ThreadRecord]) -> Children<'_> {
    let mut children = Children::new();
    for record in threads {
        for child in &record.children {
            let files: HashSet<u64> = child.fds.iter().map(|(_, ino)| *ino).collect();
            for ino in files {
                children.entry(ino).or_default().push((record.tid, child));
            }
        }
    }
    children
}

/// The children that inherited a file and had not surely been waited for at `since`. `is_sure` says which of them
/// certainly had it when that mattered.
fn inheritors(
    children: &Children<'_>,
    ino: u64,
    since: u64,
    is_sure: impl Fn(&Child) -> bool,
) -> Vec<Inheritor> {
    let inherited = children.get(&ino).into_iter().flatten();
    inherited
        .filter(|(_, child)| child.gone_by_ns >= since)
        .map(|(forked_by, child)| Inheritor {
            pid: child.pid,
            fds: fds_of(child, ino),
            forked_by: *forked_by,
            before_exec_ns: child.before_exec_ns,
            gone_by_ns: child.gone_by_ns,
            sure: is_sure(child),
        })
        .collect()
}

/// Combines the records of all threads into the facts of each success that could have been a failure.
fn won(threads: &[ThreadRecord], children: &Children<'_>) -> Vec<WonExec> {
    let won = |(writer, success): (u32, &Success)| {
        let inheritors = inheritors(children, success.ino, success.fork_begins_ns, |child| {
            child.before_exec_ns >= success.fork_ended_ns
        });
        (!inheritors.is_empty()).then_some(WonExec {
            victim: success.victim,
            ino: success.ino,
            writer,
            fork_begins_ns: success.fork_begins_ns,
            enter_ns: success.enter_ns,
            inheritors,
        })
    };
    let successes = threads
        .iter()
        .flat_map(|record| record.successes.iter().map(|success| (record.tid, success)));
    successes.filter_map(won).collect()
}

/// Combines the records of all threads into the facts of each failure.
fn failed(threads: &[ThreadRecord], children: &Children<'_>) -> Vec<FailedExec> {
    let failures = || {
        threads
            .iter()
            .flat_map(|record| record.failures.iter().map(|failure| (record.tid, failure)))
    };
    let failed_exec = |(writer, failure): (u32, &FailedCall)| FailedExec {
        victim: failure.victim,
        ino: failure.ino,
        writer,
        enter_ns: failure.enter_ns,
        exit_ns: failure.exit_ns,
        // They inherited the file before the victim's parent closed it and forked the victim.
        inheritors: inheritors(children, failure.ino, failure.enter_ns, |child| {
            child.held_until_ns >= failure.exit_ns
        }),
    };
    failures().map(failed_exec).collect()
}

fn fds_of(child: &Child, ino: u64) -> Vec<u32> {
    child.fds.iter().filter(|fd| fd.1 == ino).map(|fd| fd.0).collect()
}

/// Zeroed words that the process shares with its children.
struct Shared {
    start: NonNull<c_void>,
    words: usize,
}

impl Shared {
    fn new(words: usize) -> Result<Self> {
        let length = NonZero::new(words * size_of::<AtomicU64>()).context("no words to share")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address that the kernel chooses replaces no other.
        let start = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_SHARED) }?;
        Ok(Self { start, words })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has `words` zeroed words, is page-aligned, and lives as long as `self`; all
        // access is through these atomics.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.words) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: references into the mapping borrow `self`, so none is left.
        let unmapped = unsafe { munmap(self.start, self.words * size_of::<AtomicU64>()) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
