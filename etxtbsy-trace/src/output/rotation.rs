//! Names and steps of a rotation: FILE becomes FILE.1, FILE.1 becomes FILE.2, and so on.

use crate::host::owned_output::Place;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read as _, Write as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// When a file is rotated, and how many old ones are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The size that a file does not exceed, in bytes.
    pub bytes: u64,
    /// How many old files are kept.
    pub keep: u32,
}

/// What an old file may be called after its number.
const SUFFIXES: [&str; 2] = ["", COMPRESSED];
const COMPRESSED: &str = ".zst";
/// How much is compressed at a time, as a frame of its own.
const CHUNK: u64 = 4 << 20;
/// How long the end waits for a compression.
const PATIENCE: Duration = Duration::from_secs(1);

/// The name of an old file.
fn old(name: &OsStr, number: u32, suffix: &str) -> OsString {
    let mut name = name.to_owned();
    name.push(format!(".{number}{suffix}"));
    name
}

/// The name of a file that is not complete yet. A pattern such as `FILE*` does not match it.
pub(super) fn hidden(name: &OsStr, what: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(what);
    hidden
}

/// Removes the oldest file, whose place the next one takes.
pub(super) fn remove_oldest(place: &Place, keep: u32) -> io::Result<()> {
    SUFFIXES.iter().try_for_each(|suffix| place.remove(&old(place.name(), keep, suffix)).map(drop))
}

/// Makes room for FILE.1: each old file gets the next number.
pub(super) fn shift(place: &Place, keep: u32) -> io::Result<()> {
    for number in (1..keep).rev() {
        for suffix in SUFFIXES {
            let from = old(place.name(), number, suffix);
            place.rename(&from, &old(place.name(), number + 1, suffix))?;
        }
    }
    Ok(())
}

/// Puts the file `new` in the place of FILE, which becomes FILE.1. If it fails, FILE is what it was.
pub(super) fn replace(place: &Place, new: &OsStr) -> io::Result<()> {
    let first = old(place.name(), 1, "");
    place.rename(place.name(), &first)?;
    place.rename(new, place.name()).map(drop).inspect_err(|_| {
        let _ = place.rename(&first, place.name());
    })
}

/// A thread that compresses FILE.1, and renames it to FILE.1.zst.
pub(super) struct Compression {
    thread: JoinHandle<io::Result<()>>,
    cancelled: Arc<AtomicBool>,
}

impl Compression {
    /// Starts to compress `file`, which is FILE.1.
    pub(super) fn start(place: Place, file: File) -> io::Result<Self> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&cancelled);
        let thread = thread::Builder::new()
            .name("compression".to_owned())
            .spawn(move || compress(&place, &file, &theirs))?;
        Ok(Self { thread, cancelled })
    }

    /// Ends it, mostly after its end; an unfinished one leaves FILE.1 as it is.
    pub(super) fn end(self, patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        while !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        self.cancelled.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the compression panicked")))
    }

    /// The same at the end of the session.
    pub(super) fn end_with_session(self) -> io::Result<()> {
        self.end(PATIENCE)
    }
}

/// FILE.1 is plain or compressed at any time, and complete. Readers recognise the format by its first bytes.
fn compress(place: &Place, file: &File, cancelled: &AtomicBool) -> io::Result<()> {
    let (partial, first) = (hidden(place.name(), COMPRESSED), old(place.name(), 1, ""));
    let compressed = write_compressed(place, &partial, file, cancelled);
    if !matches!(compressed, Ok(true)) {
        place.remove(&partial)?;
        return compressed.map(drop);
    }
    place.rename(&partial, &first)?;
    place.rename(&first, &old(place.name(), 1, COMPRESSED)).map(drop)
}

/// Writes the compressed file; false if that was cancelled.
fn write_compressed(
    place: &Place,
    name: &OsStr,
    file: &File,
    cancelled: &AtomicBool,
) -> io::Result<bool> {
    let mut input = place.reader(file)?;
    let mut output = place.create(name, file)?;
    let mut chunk = Vec::new();
    loop {
        chunk.clear();
        if (&mut input).take(CHUNK).read_to_end(&mut chunk)? == 0 {
            return Ok(true);
        }
        if cancelled.load(Ordering::Relaxed) {
            return Ok(false);
        }
        output.write_all(&compress_to_vec(&chunk[..], CompressionLevel::Fastest))?;
    }
}
