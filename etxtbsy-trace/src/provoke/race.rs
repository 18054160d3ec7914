//! Whether a call that waits takes part in a race: what /proc says of its process.

use super::{
    filter::{Kind, kind_of},
    listener::Call,
};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, open, statat};
use std::{fs, io::IoSliceMut, os::fd::AsFd};

/// How many fds of a process are looked at, so that a process with very many holds nothing up.
const FDS: usize = 4096;

/// What the content of a program begins with.
const PROGRAM: [&[u8]; 2] = [b"#!", b"\x7fELF"];

/// Whether a delay of the call makes a race more likely.
///
/// Believe it only if the call still waits afterwards: else the thread may have ended, and its tid may have
/// been reused.
pub(super) fn is_raced(call: &Call) -> bool {
    let is_first_write = |fd: u64, is_program: &dyn Fn() -> bool| {
        let file = written_file(CWD, &format!("/proc/{}/fd/{}", call.tid, fd as u32));
        file.is_some_and(|file| file.st_size == 0 && (is_executable(&file) || is_program()))
    };
    match kind_of(call.number) {
        None => false,
        Some(Kind::Exec | Kind::Chmod { .. }) => writes_a_file(call.tid),
        Some(Kind::Write { list }) => is_first_write(call.arguments[0], &|| {
            let buffer = call.arguments[1] as usize;
            let data =
                if list { memory::<8>(call.tid, buffer) } else { Some(buffer.to_ne_bytes()) };
            data.and_then(|data| memory::<4>(call.tid, usize::from_ne_bytes(data)))
                .is_some_and(|start| PROGRAM.iter().any(|program| start.starts_with(program)))
        }),
        Some(Kind::Copy { to }) => is_first_write(call.arguments[to], &|| false),
    }
}

/// Bytes of a process's memory; `None` if they cannot be read.
///
/// The process may change them before the kernel reads them. Then a call is delayed, or not, without need.
fn memory<const N: usize>(tid: u32, address: usize) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let mut ours = [IoSliceMut::new(&mut bytes)];
    let theirs = [RemoteIoVec { base: address, len: N }];
    let read = process_vm_readv(Pid::from_raw(tid.cast_signed()), &mut ours, &theirs);
    (read == Ok(N)).then_some(bytes)
}

/// Whether the process has a regular file open for writing that an exec closes, or that can be executed.
///
/// A child has such an fd from its parent, because its own redirections are not close-on-exec. A log
/// to which the output of all processes goes is neither.
fn writes_a_file(tid: u32) -> bool {
    let directory = format!("/proc/{tid}/fd");
    // Fails if the process has ended, or may not be read.
    let Ok(fds) = open(&directory, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
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
