//! Whether a call that waits takes part in a race: what /proc says of its process.

use super::{
    filter::{Kind, kind_of},
    listener::Call,
};
use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Statx, StatxFlags, statx};
use std::{
    ffi::OsStr,
    fs,
    io::IoSliceMut,
    path::{Path, PathBuf},
};

/// How many fds of a process are looked at, so that a process with very many holds nothing up.
const FDS: usize = 4096;

/// What the content of a program begins with.
const PROGRAM: [&[u8]; 2] = [b"#!", b"\x7fELF"];

/// Which of two things that race a call does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Raced {
    /// It writes a program, or makes one of a file that it has written: more forks see the fd.
    Write,
    /// It ends what a child has inherited: an exec, or a close_range(2) before it (as Python does): the child has the
    /// write fd for longer. The program may be the very one whose exec would have failed without a delay.
    Release,
}

/// What a call does of which a delay makes a race more likely.
///
/// Believe it only if the call still waits afterwards: else the thread may have ended, and its tid may have
/// been reused.
pub(super) fn raced(call: &Call) -> Option<Raced> {
    let Call { tid, arguments, .. } = call;
    let written = |fd: u64| written_file(&fd_directory(*tid).join((fd as u32).to_string()));
    let is_empty = |file: &Statx| file.stx_size == 0;
    let is_write = match kind_of(call.number)? {
        Kind::Exec | Kind::CloseRange => return is_holder(*tid).then_some(Raced::Release),
        Kind::Fchmod => written(arguments[0]).is_some(),
        Kind::Write { list } => written(arguments[0]).is_some_and(|file| {
            is_empty(&file)
                && (is_executable(&file) || is_program(*tid, arguments[1] as usize, list))
        }),
        Kind::Copy { to } => {
            written(arguments[to]).is_some_and(|file| is_empty(&file) && is_executable(&file))
        }
    };
    is_write.then_some(Raced::Write)
}

/// Whether a process has a regular file open for writing that its exec closes, or that can be executed.
///
/// A child has such an fd from its parent, because its own redirections are not close-on-exec. A log to which the
/// output of all processes goes is neither that nor executable.
fn is_holder(tid: u32) -> bool {
    // Fails if the process has ended, or may not be read.
    let entries = fs::read_dir(fd_directory(tid)).into_iter().flatten().flatten();
    entries.take(FDS).any(|entry| {
        written_file(&entry.path())
            .is_some_and(|file| is_executable(&file) || is_close_on_exec(tid, &entry.file_name()))
    })
}

fn fd_directory(tid: u32) -> PathBuf {
    format!("/proc/{tid}/fd").into()
}

/// The regular file to which the link of an fd in /proc leads, if the fd has write access.
fn written_file(link: &Path) -> Option<Statx> {
    // The mode of the link shows the access of the fd.
    let access = statx(CWD, link, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MODE).ok()?;
    if !Mode::from_raw_mode(access.stx_mode.into()).contains(Mode::WUSR) {
        return None;
    }
    // Follows the link to the open file itself, whatever its path is now. The server of a remote file system or of
    // FUSE, which may be a process that waits for an answer, is not asked.
    let facts = StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::SIZE;
    let file = statx(CWD, link, AtFlags::STATX_DONT_SYNC, facts).ok()?;
    let kind = FileType::from_raw_mode(file.stx_mode.into());
    (kind == FileType::RegularFile).then_some(file)
}

fn is_executable(file: &Statx) -> bool {
    Mode::from_raw_mode(file.stx_mode.into()).intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH)
}

fn is_close_on_exec(tid: u32, fd: &OsStr) -> bool {
    let path = Path::new("/proc").join(tid.to_string()).join("fdinfo").join(fd);
    let flags = fs::read_to_string(path).ok().and_then(|text| {
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
        u32::from_str_radix(flags.trim(), 8).ok()
    });
    flags.is_some_and(|flags| flags & libc::O_CLOEXEC.cast_unsigned() != 0)
}

/// Whether a program begins at an address, or in the first buffer of a list there.
fn is_program(tid: u32, address: usize, list: bool) -> bool {
    let mut start = [0; 4];
    let data = if list {
        let mut first = [0; size_of::<usize>()];
        (read_memory(tid, address, &mut first) == first.len())
            .then_some(usize::from_ne_bytes(first))
    } else {
        Some(address)
    };
    let length = data.map_or(0, |data| read_memory(tid, data, &mut start));
    PROGRAM.iter().any(|program| start[..length].starts_with(program))
}

/// Reads memory of a process; returns how many bytes can be read.
///
/// The process may change them before the kernel reads them. Then a call is delayed, or not, without need.
fn read_memory(tid: u32, address: usize, bytes: &mut [u8]) -> usize {
    let theirs = [RemoteIoVec { base: address, len: bytes.len() }];
    let read =
        process_vm_readv(Pid::from_raw(tid.cast_signed()), &mut [IoSliceMut::new(bytes)], &theirs);
    read.unwrap_or(0)
}
