//! Whether a call that waits takes part in a race: what /proc says of its process.

use super::{filter::is_exec, listener::Call};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, open, statat};
use std::{fs, os::fd::AsFd};

/// Of an exec: how many fds are looked at, so that a process with very many holds nothing up.
const FDS: usize = 4096;

/// Whether a delay of the call makes a race more likely.
///
/// Believe it only if the call still waits afterwards: else the thread may have ended, and its tid may have
/// been reused.
pub(super) fn is_raced(call: &Call) -> bool {
    let directory = format!("/proc/{}/fd", call.tid);
    if is_exec(call.number) {
        holds_what_it_wrote(&directory, call.tid)
    } else {
        let fd = call.argument as u32;
        written_file(CWD, &format!("{directory}/{fd}")).is_some_and(|file| is_executable(&file))
    }
}

/// Whether the process has a regular file open for writing that its exec closes, or that can be executed.
///
/// A child has such an fd from its parent, because its own redirections are not close-on-exec. A log
/// to which the output of all processes goes is neither.
fn holds_what_it_wrote(directory: &str, tid: u32) -> bool {
    // Fails if the process has ended, or may not be read.
    let Ok(fds) = open(directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
        return false;
    };
    let Ok(entries) = fs::read_dir(directory) else { return false };
    entries.take(FDS).flatten().any(|entry| {
        let name = entry.file_name();
        let Some(fd) = name.to_str() else { return false };
        written_file(&fds, fd).is_some_and(|file| is_executable(&file) || is_close_on_exec(tid, fd))
    })
}

/// The regular file to which the link of an fd in /proc leads, if the fd has write access.
fn written_file(fds: impl AsFd, link: &str) -> Option<Stat> {
    // The mode of the link shows the access of the fd.
    let access = statat(&fds, link, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    if !Mode::from_raw_mode(access.st_mode).contains(Mode::WUSR) {
        return None;
    }
    // Follows the link to the open file itself, whatever its path is now.
    let file = statat(&fds, link, AtFlags::empty()).ok()?;
    (FileType::from_raw_mode(file.st_mode) == FileType::RegularFile).then_some(file)
}

fn is_executable(file: &Stat) -> bool {
    Mode::from_raw_mode(file.st_mode).intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH)
}

fn is_close_on_exec(tid: u32, fd: &str) -> bool {
    let flags = fs::read_to_string(format!("/proc/{tid}/fdinfo/{fd}")).ok().and_then(|text| {
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(flags.trim(), 8).ok()
    });
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC.cast_unsigned() != 0)
}
