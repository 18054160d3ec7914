//! The other direction: which file a call was refused, and which processes ran it then.
//!
//! The failing call shows the file and those who run it. Where it cannot (a link on the path has no
//! text in its inode, as on overlayfs), the file is looked up here by its path, as the victim sees
//! it, and is believed only if nothing on the way has changed since, and it is being run.

use std::{
    collections::BTreeMap,
    fs,
    os::{fd::AsRawFd as _, unix::ffi::OsStringExt as _},
    path::{Component, Path, PathBuf},
};

use etxtbsy_trace_common::{self as common, How, Stance, TextOf};

use crate::{
    analysis::case::{Case, Runner, Running},
    host::{
        fs_view::{self, FileSystem, Found, Sight},
        pids::Pids,
        process,
    },
    tracer::records::path_of,
};

/// How far the time at which a file was changed can lag behind: a tick of the kernel's clock
/// (`ktime_get_coarse_real_ts64`, at 100 a second).
const TICK_NS: i128 = 10_000_000;

/// For how long after it began to run a new program a process may have been in that exec, and so twice in
/// the count.
const EXEC_NS: u64 = 1_000_000;

/// How long before a call returns its refusal can be: some microseconds.
const REFUSAL_NS: u64 = 50_000;

/// Who ran the file of a case, by what the failing call showed; `None` if it did not show the file.
#[must_use]
pub fn shown(case: &Case) -> Option<Running> {
    let refused = case.refused?;
    let (runners, count, explained) = at_refusal(&case.named, refused.count, case.failure.exit_ns);
    Some(Running {
        path: case.text(TextOf::BusyFile).map(path_of).unwrap_or_default(),
        dev: refused.dev,
        ino: refused.ino,
        count,
        explained,
        runners,
    })
}

/// Which of the processes that were reported ran the file when the call was refused, its
/// `i_writecount` then, and how many of it they account for: never more than it has.
///
/// The call was refused before `failed_ns`, a microsecond as a rule. Who ran the file then, and still
/// did when the processes were looked through, is a runner. One in its exec may have opened the file
/// only after the refusal: it is one if the count, which is older, has room for it. So is, of those
/// that had ended by then, each that ended after `failed_ns`; if nobody was left to be counted, the one that
/// ended last, if that was just before.
#[must_use]
pub fn at_refusal(
    shown: &[common::Runner],
    count: i32,
    failed_ns: u64,
) -> (Vec<Runner>, Option<i32>, u32) {
    let wanted = u32::try_from(-i64::from(count)).unwrap_or(0);
    let is_sure = |runner: &common::Runner| {
        let had_begun = runner.exec_ns != 0 && runner.exec_ns <= failed_ns;
        runner.stance() != Some(Stance::InExec) || had_begun
    };
    // The memory of one that is ending, where a younger program of another process has it by now.
    let is_reused = |runner: &common::Runner| {
        let is_ending = runner.stance() == Some(Stance::Exiting);
        let since = |it: &common::Runner| it.exec_ns.max(it.began_ns);
        let has_it = |other: &common::Runner| {
            other.mm == runner.mm && other.tgid != runner.tgid && since(other) > since(runner)
        };
        is_ending && shown.iter().any(has_it)
    };
    let is_live = |it: &&common::Runner| it.ended_ns == 0 && !is_reused(it);
    let mut live: Vec<&common::Runner> = shown.iter().filter(is_live).collect();
    live.sort_by_key(|runner| !is_sure(runner));
    let mut runners = Vec::new();
    // By their memory, which several processes can share.
    let mut shares: BTreeMap<u64, u32> = BTreeMap::new();
    let mut found = 0;
    for runner in live {
        if !is_sure(runner) && found >= wanted {
            continue;
        }
        let share = shares.entry(runner.mm).or_default();
        found = found.saturating_add(runner.denials.saturating_sub(*share));
        *share = (*share).max(runner.denials);
        runners.push(runner);
    }
    let mut ended: Vec<&common::Runner> = shown.iter().filter(|it| it.ended_ns != 0).collect();
    ended.sort_by_key(|runner| std::cmp::Reverse(runner.ended_ns));
    for runner in ended {
        let was_there = runner.ended_ns >= failed_ns && found < wanted;
        let was_just_before =
            wanted == 0 && runner.ended_ns.saturating_add(REFUSAL_NS) >= failed_ns;
        if was_there || (was_just_before && runners.is_empty()) {
            found += 1;
            runners.push(runner);
        }
    }
    // One whose exec was done a moment ago was counted twice, and found once.
    let is_new = |runner: &common::Runner| {
        let execs = runner.stance() == Some(Stance::InExec) && runner.ended_ns == 0;
        execs || (runner.exec_ns != 0 && runner.exec_ns.saturating_add(EXEC_NS) > failed_ns)
    };
    let new = runners.iter().filter(|runner| is_new(runner) && runner.denials == 1).count();
    found += u32::try_from(new).unwrap_or(0).min(wanted.saturating_sub(found));
    let runners: Vec<Runner> = runners.into_iter().map(|it| of_record(it, failed_ns)).collect();
    if wanted == 0 {
        let explained = u32::from(!runners.is_empty());
        return (runners, None, explained);
    }
    (runners, Some(count), found.min(wanted))
}

fn of_record(shown: &common::Runner, failed_ns: u64) -> Runner {
    let how = if shown.how() == Some(How::Exec) { How::Exec } else { How::Exit };
    let left = (shown.ended_ns != 0).then_some((how, shown.ended_ns));
    let mut shown = *shown;
    if shown.stance() == Some(Stance::Runs) && shown.exec_ns > failed_ns {
        // Its program did not run yet when the call failed.
        shown.stance = Stance::InExec as u32;
    }
    Runner { tgid: shown.tgid, shown: Some(shown), left, in_tree: false, script: None }
}

/// A file that was found by its path, after the call.
#[derive(Debug)]
pub struct Refused {
    /// Its path, links resolved.
    pub path: Vec<u8>,
    /// It.
    pub file: Found,
    /// The processes that run it, by their pids in the machine's first namespace, and what the kernel
    /// shown of them.
    pub runners: BTreeMap<u32, Option<common::Runner>>,
}

/// Finds the file that the call of a case was about, and who runs it now; `None` if it is not there any
/// more, or something on its path has been changed since: then it may be another. `failed_ns` is the
/// time of the failure by CLOCK_REALTIME.
#[must_use]
pub fn look_up(case: &Case, failed_ns: i128, pids: &Pids) -> Option<Refused> {
    let whole = whole_path(case)?;
    let exe = |runner: &common::Runner| case.exes.get(&runner.tgid).map(|names| path_of(names));
    let (file, path) = find(case, &whole, pids)?;
    if file.changed_ns + TICK_NS >= failed_ns {
        return None;
    }
    let mut runners = BTreeMap::new();
    for runner in case.named.iter().filter(|runner| runner.ino == file.ino) {
        // On some file systems stat(2) gives another device than the kernel has.
        if runner.dev == file.kernel_dev() || exe(runner).as_deref() == Some(&path) {
            runners.insert(runner.tgid, Some(*runner));
        }
    }
    // By another name than the path's.
    for local in running((file.dev, file.ino)) {
        if let Some(pid) = pids.machine(local) {
            runners.entry(pid).or_default();
        }
    }
    Some(Refused { path, file, runners })
}

/// The file that the path of a case leads to now, and its path.
#[must_use]
pub fn there_now(case: &Case, pids: &Pids) -> Option<(Found, Vec<u8>)> {
    find(case, &whole_path(case)?, pids)
}

/// The file system that refused the call of a case, if something else than this kernel serves the one that its
/// path leads to.
#[must_use]
pub fn refusing(case: &Case, pids: &Pids) -> Option<FileSystem> {
    let path = as_path(case.text(TextOf::Path)?.to_vec());
    let is_up = path.components().any(|component| component == Component::ParentDir);
    // Of a link's `..` the name does not show where it leads, and of execveat not which directory it began at.
    if is_up || i64::from(case.failure.syscall) == libc::SYS_execveat && path.is_relative() {
        return None;
    }
    let whole = whole_path(case)?;
    // The victim may have ended; its parent sees the same, as a rule.
    let seen =
        [case.failure.tgid, case.failure.ppid].map(|pid| pids.local(pid).and_then(Sight::of));
    let sight = seen.into_iter().flatten().next().or_else(Sight::ours)?;
    sight.served(&whole)
}

/// Whether a process that can be seen from here runs a program of a file system.
#[must_use]
pub fn is_any_on(found: &FileSystem) -> bool {
    let device = libc::makedev(found.dev >> 20, found.dev & 0xf_ffff);
    processes().any(|pid| fs_view::exe(pid).is_some_and(|(dev, _)| dev == device))
}

/// The path from the root, `.` and `..` taken out by their names.
fn whole_path(case: &Case) -> Option<PathBuf> {
    let bytes = |of| case.text(of).map(<[u8]>::to_vec);
    let names = bytes(TextOf::Directory).or_else(|| bytes(TextOf::VictimCwd))?;
    let whole = as_path(path_of(&names)).join(as_path(bytes(TextOf::Path)?));
    let mut plain = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// Finds the file as the victim sees it, while that lives; else from here, if the victim was not
/// confined to a root of its own. With it, its path.
fn find(case: &Case, whole: &Path, pids: &Pids) -> Option<(Found, Vec<u8>)> {
    let seen = || Sight::of(pids.local(case.failure.tgid)?)?.find(whole);
    let found = seen().or_else(|| Sight::ours()?.find(whole))?;
    let path = process::path_behind(&format!("/proc/self/fd/{}", found.file.as_raw_fd()))?;
    Some((found, path))
}

fn as_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

/// The processes that run a file, by their pids here; the file by its device as stat(2) gives it, and its inode number.
fn running(file: (u64, u64)) -> Vec<u32> {
    processes().filter(|pid| fs_view::exe(*pid) == Some(file)).collect()
}

/// The processes, by their pids here.
fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When the call returned.
    const FAILED_NS: u64 = 10_000_000_000;

    /// A process that runs the file since long ago.
    fn runs(tgid: u32) -> common::Runner {
        common::Runner { tgid, exec_ns: 10, mm: tgid.into(), denials: 1, ..<_>::default() }
    }

    fn in_exec(tgid: u32, denials: u32) -> common::Runner {
        let stance = Stance::InExec as u32;
        common::Runner { exec_ns: 0, stance, denials, ..runs(tgid) }
    }

    fn ended(tgid: u32, ended_ns: u64) -> common::Runner {
        common::Runner { ended_ns, how: How::Exit as u32, ..runs(tgid) }
    }

    #[track_caller]
    fn assert_at_refusal(
        shown: &[common::Runner],
        count: i32,
        named: &[u32],
        known: Option<i32>,
        explained: u32,
    ) {
        let (runners, count, found) = at_refusal(shown, count, FAILED_NS);
        let pids: Vec<u32> = runners.iter().map(|runner| runner.tgid).collect();
        assert_eq!((&pids[..], count, found), (named, known, explained));
    }

    #[test]
    fn each_that_runs_it_is_named() {
        assert_at_refusal(&[runs(1), runs(2)], -2, &[1, 2], Some(-2), 2);
        // Another one was not found.
        assert_at_refusal(&[runs(1)], -2, &[1], Some(-2), 1);
    }

    #[test]
    fn memory_that_another_program_has_by_now_is_not_of_the_one_that_ends() {
        let ending = |exec_ns| {
            let stance = Stance::Exiting as u32;
            common::Runner { mm: 2, exec_ns, stance, ..runs(1) }
        };
        let younger = common::Runner { exec_ns: 30, ..runs(2) };
        assert_at_refusal(&[ending(20), younger], -1, &[2], Some(-1), 1);
        // A child that shares its parent's memory.
        assert_at_refusal(&[ending(40), younger], -1, &[1, 2], Some(-1), 1);
    }

    #[test]
    fn one_in_its_exec_counts_twice_and_is_one_runner() {
        assert_at_refusal(&[in_exec(1, 2)], -2, &[1], Some(-2), 2);
        assert_at_refusal(&[in_exec(1, 2)], -1, &[1], Some(-1), 1);
        // It dropped one of the two before it was looked at.
        assert_at_refusal(&[in_exec(1, 1)], -2, &[1], Some(-2), 2);
        assert_at_refusal(&[in_exec(1, 1)], -3, &[1], Some(-3), 2);
    }

    #[test]
    fn a_program_that_did_not_run_yet_was_in_its_exec() {
        let shown = common::Runner { exec_ns: FAILED_NS + 1, ..runs(1) };
        let (runners, _, explained) = at_refusal(&[shown], -2, FAILED_NS);
        let shown = runners[0].shown.unwrap();
        assert_eq!((shown.stance, explained), (Stance::InExec as u32, 2));
    }

    #[test]
    fn an_exec_that_the_count_has_no_room_for_came_later() {
        assert_at_refusal(&[in_exec(2, 1), runs(1)], -1, &[1], Some(-1), 1);
        assert_at_refusal(&[in_exec(2, 1)], 0, &[], None, 0);
    }

    #[test]
    fn processes_that_share_their_memory_count_once() {
        let child = common::Runner { mm: 1, ..runs(2) };
        assert_at_refusal(&[runs(1), child], -1, &[1, 2], Some(-1), 1);
        assert_at_refusal(&[runs(1), child, runs(3)], -2, &[1, 2, 3], Some(-2), 2);
    }

    #[test]
    fn who_ended_after_the_failure_ran_it() {
        assert_at_refusal(&[runs(1), ended(2, FAILED_NS + 1)], -2, &[1, 2], Some(-2), 2);
        assert_at_refusal(&[runs(1), ended(2, FAILED_NS + 1)], -1, &[1], Some(-1), 1);
        assert_at_refusal(&[runs(1), ended(2, FAILED_NS - 1)], -2, &[1], Some(-2), 1);
    }

    #[test]
    fn where_nobody_is_left_the_last_one_ran_it() {
        assert_at_refusal(&[ended(1, FAILED_NS - 100), ended(2, FAILED_NS - 10)], 0, &[2], None, 1);
        assert_at_refusal(&[ended(1, FAILED_NS - 100), ended(2, FAILED_NS + 10)], 0, &[2], None, 1);
        assert_at_refusal(&[], 0, &[], None, 0);
    }

    #[test]
    fn who_had_ended_before_is_not_in_the_count() {
        assert_at_refusal(&[ended(1, FAILED_NS - 10)], -1, &[], Some(-1), 0);
        assert_at_refusal(&[ended(1, FAILED_NS - 37_000_000)], -1, &[], Some(-1), 0);
        assert_at_refusal(&[ended(1, FAILED_NS - 37_000_000)], 0, &[], None, 0);
        // Whose memory was there for longer because another process read it, perhaps: nothing shows it.
        assert_at_refusal(&[ended(1, FAILED_NS - 209_224)], 0, &[], None, 0);
    }
}
