//! The helper process: resolves copies with the files that the worker passes to it.

use std::{
    cell::Cell,
    collections::HashMap,
    fmt::Write as _,
    fs::File,
    io::{self, Read as _},
    os::fd::AsFd,
    process::ExitCode,
};

use memmap2::Mmap;
use rustix::fs::{Mode, OFlags, open};

use crate::{
    confine::confine,
    open::PERF_MAP_BYTES,
    resolve::{Module, Storage, Unwinding, resolve},
    wire::{Answer, Request, receive_request, send_answer},
};

/// The most files that one helper maps, and their bytes. It never unmaps one: the worker replaces it.
const MODULES: usize = 256;
const MAPPED_BYTES: u64 = 1 << 30;

/// The helper's main: reads requests from the socket that is its stdin, until the worker closes it.
#[must_use]
pub fn main() -> ExitCode {
    let served = confine().and_then(|()| Modules::default().serve(&io::stdin()));
    if served.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The files so far, by their numbers: `None` for what is no ELF file of this machine.
#[derive(Default)]
struct Modules {
    parsed: HashMap<u64, Option<&'static Module<'static>>>,
    mapped_bytes: Cell<u64>,
}

impl Modules {
    fn serve(&mut self, socket: &impl AsFd) -> io::Result<()> {
        let mut unwinding = Unwinding::default();
        while let Some((request, stack, files)) = receive_request(socket)? {
            let Request { number, code, new, has_perf_map } = request;
            let mut files = files.into_iter();
            for number in new {
                let file = files.next().ok_or(io::ErrorKind::InvalidData)?;
                self.parsed.insert(number, self.parse(&file));
            }
            let perf_map = files.next().filter(|_| has_perf_map).map(content).unwrap_or_default();
            let module = |number| self.parsed.get(&number).copied().flatten();
            let (frames, unknown) = resolve(&stack, &code, module, &perf_map, &mut unwinding);
            let is_full = self.parsed.len() >= MODULES || self.mapped_bytes.get() >= MAPPED_BYTES;
            send_answer(socket, Answer { number, frames, unknown, is_full })?;
        }
        Ok(())
    }

    fn parse(&self, file: &File) -> Option<&'static Module<'static>> {
        let data = self.map(file)?;
        let storage: &Storage = Box::leak(Box::default());
        let separate = |build_id: &[u8]| self.map(&separate_debug_file(build_id)?);
        let module = Module::parse(data, storage, separate)?;
        Some(Box::leak(Box::new(module)))
    }

    /// Maps a file for as long as this process lives.
    fn map(&self, file: &File) -> Option<&'static [u8]> {
        let found = file.metadata().ok().filter(|found| found.is_file() && found.len() > 0)?;
        let total = self.mapped_bytes.get().checked_add(found.len())?;
        if total > MAPPED_BYTES {
            // The next helper has room for it, unless it is too large for any.
            self.mapped_bytes.set(MAPPED_BYTES);
            return None;
        }
        // SAFETY: another process can write to the file. All that reads it takes it for bytes that can be anything, and
        // reads past a truncated end are SIGBUS, which ends this process only.
        let map = unsafe { Mmap::map(file) }.ok()?;
        self.mapped_bytes.set(total);
        Some(Box::leak(Box::new(map)))
    }
}

/// Opens the file with the debug information of a build id, if it is installed.
fn separate_debug_file(build_id: &[u8]) -> Option<File> {
    let (first, rest) = build_id.split_first().filter(|_| build_id.len() <= 64)?;
    let mut path = format!("/usr/lib/debug/.build-id/{first:02x}/");
    for byte in rest {
        write!(path, "{byte:02x}").ok()?;
    }
    path.push_str(".debug");
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    open(path, flags, Mode::empty()).ok().map(File::from)
}

fn content(file: File) -> Vec<u8> {
    let mut content = Vec::new();
    let _ = file.take(PERF_MAP_BYTES).read_to_end(&mut content);
    content
}
