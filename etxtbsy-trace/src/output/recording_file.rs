//! The file of `--output`, if it is a regular one: it is rotated, opened again, and survives a full disk.

pub use super::rotation::Rotation;
use super::{
    Output, json,
    rotation::{Compression, hidden, remove_oldest, replace, shift},
};
use crate::{
    event::Line,
    host::{
        owned_output::{self, Content, Place},
        user::Invoker,
    },
    text::shown,
};
use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

/// The recording. Whatever happens, it has whole lines, and the first line of this session is its `meta` line.
pub struct RecordingFile {
    path: PathBuf,
    owner: Option<Invoker>,
    file: File,
    place: Place,
    rotation: Option<Rotation>,
    /// A rotation is tried again only beyond this size.
    rotates_beyond: u64,
    /// The `meta` line.
    meta: Vec<u8>,
    /// Whether the file has that line.
    has_meta: bool,
    /// Whether the file ends in a part of a line that could not be removed.
    is_torn: bool,
    compression: Option<Compression>,
    message: Option<String>,
    buffer: Vec<u8>,
}

impl RecordingFile {
    /// Takes over the file at `path`, which is open for appending. `owner` is who opens it again.
    pub fn new(
        path: &Path,
        owner: Option<&Invoker>,
        file: File,
        place: Place,
        rotation: Option<Rotation>,
    ) -> io::Result<Self> {
        end_last_line(&file, &place)?;
        Ok(Self {
            path: path.to_owned(),
            owner: owner.cloned(),
            file,
            place,
            rotation,
            rotates_beyond: 0,
            meta: Vec::new(),
            has_meta: false,
            is_torn: false,
            compression: None,
            message: None,
            buffer: Vec::new(),
        })
    }

    /// Writes the line in the buffer, and before it, in a new file, the first line.
    fn write(&mut self) -> io::Result<()> {
        self.write_meta()?;
        append(&mut self.file, &self.buffer, &mut self.is_torn)
    }

    fn write_meta(&mut self) -> io::Result<()> {
        if !self.has_meta {
            append(&mut self.file, &self.meta, &mut self.is_torn)?;
            self.has_meta = true;
        }
        Ok(())
    }

    /// Rotates the file if the line in the buffer would make it exceed its size.
    fn rotate_if_due(&mut self) -> io::Result<()> {
        let Some(rotation) = self.rotation else { return Ok(()) };
        let size = self.file.metadata()?.len();
        let is_due = size + self.buffer.len() as u64 > rotation.bytes
            && size > self.meta.len() as u64
            && size >= self.rotates_beyond;
        if !is_due {
            return Ok(());
        }
        match self.rotate(rotation.keep) {
            Ok(()) => self.rotates_beyond = 0,
            Err(error) if is_full(&error) => return Err(error),
            // The lines are worth more than the size.
            Err(error) => {
                self.rotates_beyond = size + rotation.bytes;
                self.message = Some(format!(
                    "cannot rotate {}: {error}; it continues to grow",
                    shown(self.path.as_os_str())
                ));
            }
        }
        Ok(())
    }

    /// The new file has its first line before it takes the place of the old one.
    fn rotate(&mut self, keep: u32) -> io::Result<()> {
        self.end_compression(Duration::ZERO);
        // First: a full disk has room then.
        remove_oldest(&self.place, keep)?;
        let name = hidden(self.place.name(), ".new");
        let mut new = self.place.create(&name, &self.file)?;
        let replaced = new
            .write_all(&self.meta)
            .and_then(|()| shift(&self.place, keep))
            .and_then(|()| replace(&self.place, &name));
        if let Err(error) = replaced {
            self.place.remove(&name)?;
            return Err(error);
        }
        let old = std::mem::replace(&mut self.file, new);
        self.has_meta = true;
        match Compression::start(self.place.clone(), old) {
            Ok(compression) => self.compression = Some(compression),
            Err(error) => self.note_compression(&error),
        }
        Ok(())
    }

    fn end_compression(&mut self, patience: Duration) {
        if let Some(Err(error)) = self.compression.take().map(|it| it.end(patience)) {
            self.note_compression(&error);
        }
    }

    fn note_compression(&mut self, error: &io::Error) {
        self.message = Some(format!(
            "cannot compress {}.1: {error}; it stays as it is",
            shown(self.path.as_os_str())
        ));
    }

    /// Opens the file anew, unless the name still is that of the file that is open.
    fn try_reopen(&mut self) -> Result<(), String> {
        let opened = owned_output::open(&self.path, self.owner.as_ref(), Content::Append);
        let owned_output::OutputFile { file, place } = opened.map_err(|error| error.to_string())?;
        let Some(place) = place else { return Err("it is no longer a regular file".to_owned()) };
        let id = |file: &File| file.metadata().map(|it| (it.dev(), it.ino()));
        let [new, old] =
            [id(&file), id(&self.file)].map(|id| id.map_err(|error| error.to_string()));
        if new? == old? {
            return Ok(());
        }
        end_last_line(&file, &place).map_err(|error| error.to_string())?;
        self.end_compression(Duration::ZERO);
        (self.file, self.place) = (file, place);
        (self.has_meta, self.is_torn, self.rotates_beyond) = (self.meta.is_empty(), false, 0);
        // If it fails, it is tried again with the next line.
        let _ = self.write_meta();
        Ok(())
    }
}

impl Output for RecordingFile {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        json::encode(line, &mut self.buffer)?;
        if matches!(line, Line::Meta(_)) {
            self.has_meta = false;
            std::mem::swap(&mut self.meta, &mut self.buffer);
            return self.write_meta();
        }
        self.has_meta |= self.meta.is_empty();
        self.rotate_if_due()?;
        self.write()
    }

    fn can_retry(&self, error: &io::Error) -> bool {
        is_full(error) && !self.is_torn
    }

    fn can_reopen(&self) -> bool {
        true
    }

    fn reopen(&mut self) {
        if let Err(error) = self.try_reopen() {
            let path = shown(self.path.as_os_str());
            self.message = Some(format!(
                "cannot open {path} again: {error}; lines go to the file that was open"
            ));
        }
    }

    fn take_message(&mut self) -> Option<String> {
        self.message.take()
    }
}

impl Drop for RecordingFile {
    fn drop(&mut self) {
        if let Some(compression) = self.compression.take() {
            // FILE.1 is complete in any case.
            let _ = compression.end_with_session();
        }
    }
}

/// Whether there was no room.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Appends a line, all of it or nothing. `is_torn` is set if a part of it remains.
fn append(file: &mut File, line: &[u8], is_torn: &mut bool) -> io::Result<()> {
    let mut written = 0;
    while written < line.len() {
        match file.write(&line[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                *is_torn |= written > 0 && !take_back(file, written as u64).unwrap_or(false);
                return Err(error);
            }
        }
    }
    Ok(())
}

/// Removes the last bytes that were written, if they are the last ones of the file.
fn take_back(file: &mut File, bytes: u64) -> io::Result<bool> {
    let end = file.stream_position()?;
    let is_last = file.metadata()?.len() == end;
    if is_last {
        file.set_len(end - bytes)?;
    }
    Ok(is_last)
}

/// Ends the last line of a file that is to be appended to, if a crash has cut it off.
fn end_last_line(file: &File, place: &Place) -> io::Result<()> {
    if file.metadata()?.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    let mut reader = place.reader(file)?;
    reader.seek(SeekFrom::End(-1))?;
    reader.read_exact(&mut last)?;
    if last == *b"\n" { Ok(()) } else { (&*file).write_all(b"\n") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::{recording::Recording, samples};
    use std::{collections::BTreeSet, fs};
    use tempfile::TempDir;

    fn open(path: &Path, content: Content, rotation: Option<Rotation>) -> RecordingFile {
        let opened = owned_output::open(path, None, content).unwrap();
        RecordingFile::new(path, None, opened.file, opened.place.unwrap(), rotation).unwrap()
    }

    fn incident(id: u64) -> Line {
        let mut incident = samples::race();
        incident.id = id;
        incident.into()
    }

    /// The incidents in a file that begins with a `meta` line.
    fn incidents(path: &Path) -> Vec<u64> {
        let lines = Recording::open(path, None).unwrap().map(Result::unwrap);
        let lines: Vec<Line> = lines.collect();
        assert!(matches!(&lines[0], Line::Meta(meta) if *meta == samples::meta()), "{path:?}");
        let ids = lines.iter().filter_map(|line| match line {
            Line::Incident(incident) => Some(incident.id),
            _ => None,
        });
        ids.collect()
    }

    fn names(directory: &TempDir) -> BTreeSet<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Waits for the compression under way.
    fn compressed(file: &mut RecordingFile) {
        file.end_compression(Duration::from_secs(60));
        assert_eq!(file.take_message(), None);
    }

    #[test]
    fn rotation_loses_no_line_and_each_file_can_be_read_by_itself() {
        const LAST: u64 = 40;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.jsonl");
        let rotation = Rotation { bytes: 16 << 10, keep: 100 };
        let mut file = open(&path, Content::Refuse, Some(rotation));
        file.line(&samples::meta().into()).unwrap();
        for id in 1..=LAST {
            file.line(&incident(id)).unwrap();
            assert!(fs::metadata(&path).unwrap().len() <= rotation.bytes);
            compressed(&mut file);
        }
        file.line(&Line::Summary(samples::summary(LAST, &[]))).unwrap();
        drop(file);
        let names = names(&directory);
        assert!(names.len() > 3, "{names:?}");
        let mut all = incidents(&path);
        for number in 1..names.len() {
            let name = format!("trace.jsonl.{number}.zst");
            assert!(names.contains(&name), "{names:?}");
            let mut older = incidents(&directory.path().join(name));
            older.extend(all);
            all = older;
        }
        assert_eq!(all, (1..=LAST).collect::<Vec<_>>());
    }

    #[test]
    fn the_oldest_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.jsonl");
        fs::write(directory.path().join("trace.jsonl.2"), "older").unwrap();
        let mut file = open(&path, Content::Refuse, Some(Rotation { bytes: 4 << 10, keep: 2 }));
        file.line(&samples::meta().into()).unwrap();
        for id in 1..=10 {
            file.line(&incident(id)).unwrap();
            compressed(&mut file);
        }
        let wanted = ["trace.jsonl", "trace.jsonl.1.zst", "trace.jsonl.2.zst"];
        assert_eq!(names(&directory), BTreeSet::from(wanted.map(str::to_owned)));
        let newest = incidents(&path);
        assert_eq!(newest.last(), Some(&10));
    }

    #[test]
    fn a_compression_that_is_cancelled_leaves_the_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.jsonl");
        let mut file = open(&path, Content::Refuse, None);
        file.line(&samples::meta().into()).unwrap();
        file.line(&incident(1)).unwrap();
        file.rotate(5).unwrap();
        file.end_compression(Duration::ZERO);
        assert_eq!(file.take_message(), None);
        let old = ["trace.jsonl.1", "trace.jsonl.1.zst"].map(|name| directory.path().join(name));
        let old = old.iter().find(|old| old.exists()).unwrap();
        assert_eq!((incidents(old), names(&directory).len()), (vec![1], 2));
    }

    #[test]
    fn a_rotation_that_fails_is_reported_and_the_file_grows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.jsonl");
        // A directory cannot be removed as a file.
        fs::create_dir(directory.path().join("trace.jsonl.3")).unwrap();
        let mut file = open(&path, Content::Refuse, Some(Rotation { bytes: 4 << 10, keep: 3 }));
        file.line(&samples::meta().into()).unwrap();
        for id in 1..=9 {
            file.line(&incident(id)).unwrap();
        }
        let message = file.take_message().unwrap();
        assert!(message.starts_with("cannot rotate "), "{message}");
        drop(file);
        assert_eq!(incidents(&path), (1..=9).collect::<Vec<_>>());
        assert!(!names(&directory).iter().any(|name| name.starts_with('.')));
    }

    #[test]
    fn a_file_that_was_moved_away_is_created_again() {
        let directory = tempfile::tempdir().unwrap();
        let [path, moved] = ["trace.jsonl", "moved"].map(|name| directory.path().join(name));
        let mut file = open(&path, Content::Refuse, None);
        file.line(&samples::meta().into()).unwrap();
        file.line(&incident(1)).unwrap();
        // Without a move, nothing changes.
        file.reopen();
        file.line(&incident(2)).unwrap();
        fs::rename(&path, &moved).unwrap();
        file.line(&incident(3)).unwrap();
        file.reopen();
        file.line(&incident(4)).unwrap();
        assert_eq!(file.take_message(), None);
        assert_eq!((incidents(&moved), incidents(&path)), (vec![1, 2, 3], vec![4]));
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        file.reopen();
        let message = file.take_message().unwrap();
        assert!(message.contains("Is a directory"), "{message}");
        file.line(&incident(5)).unwrap();
    }

    #[test]
    fn an_appended_recording_begins_in_a_line_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("trace.jsonl");
        open(&path, Content::Refuse, None).line(&samples::meta().into()).unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let cut = &whole[..whole.len() - 9];
        fs::write(&path, cut).unwrap();
        open(&path, Content::Append, None).line(&samples::meta().into()).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{cut}\n{whole}"));
    }

    #[test]
    fn a_line_is_written_as_a_whole_or_not_at_all() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"one\ntwo").unwrap();
        assert!(take_back(&mut file, 3).unwrap());
        assert_eq!(file.metadata().unwrap().len(), 4);
        // What another process wrote after it stays.
        file.seek(SeekFrom::Start(2)).unwrap();
        assert!(!take_back(&mut file, 2).unwrap());
        assert_eq!(file.metadata().unwrap().len(), 4);
    }
}
