//! Reads recorded JSON lines, one at a time. Line types and keys of a later version are skipped;
//! unknown words are kept (`Other` of each set of words).

use super::compression;
use crate::{
    event::{Incident, Line, Meta, SCHEMA, TYPES, later_word::Word},
    text::{name, shown},
};
use anyhow::{Context as _, anyhow, bail};
use serde::Deserialize;
use std::{
    fs::File,
    io::{self, BufRead, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// A longer line is an error. No line of this program comes near it.
const LONGEST: u64 = 64 << 20;
/// How a `meta` line begins, as this program writes it.
const META: &[u8] = b"{\"type\":\"meta\",";
/// How the line of an incident begins, as this program writes it.
const INCIDENT: &[u8] = b"{\"type\":\"incident\",";

/// The lines of a recording. [`Recording::notes`] reports the lines that were skipped: a last line
/// that is cut off (by a full disk or a crash), and lines that only a later version can read.
#[allow(clippy::struct_excessive_bools, reason = "the flags are independent")]
pub struct Recording<R> {
    name: String,
    input: R,
    number: u64,
    buffer: Vec<u8>,
    /// The last line that was skipped because it is cut off.
    cut: Option<u64>,
    ended: bool,
    /// Schema and version of a later program that wrote the recording.
    later: Option<(u32, Word)>,
    skipped: Skipped,
    /// Whether a non-empty line was read.
    any: bool,
    /// The first `meta` line, if one was read.
    first: Option<Meta>,
    /// Whether several recordings may follow each other.
    several: bool,
}

/// Lines of a later version that were skipped.
#[derive(Default)]
struct Skipped {
    count: u64,
    /// The type and the line number of the first one.
    first: Option<(Word, u64)>,
}

impl Recording<Box<dyn BufRead + Send>> {
    /// Opens a file (`-`: stdin), which may be compressed. `written` is the output file, which must be another file.
    pub fn open(path: &Path, written: Option<&Path>) -> anyhow::Result<Self> {
        if path == "-" {
            let input = compression::reader(io::stdin()).context("cannot read stdin")?;
            return Ok(Self::new("stdin", input));
        }
        let name = shown(path.as_os_str());
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        let place = file.metadata().with_context(|| format!("cannot look at {name}"))?;
        if place.is_dir() {
            bail!("cannot read {name}: it is a directory");
        }
        // If there is no metadata, the file does not exist yet, or opening it fails later.
        let target = written.and_then(|path| path.metadata().ok());
        if place.is_file()
            && target.is_some_and(|it| (it.dev(), it.ino()) == (place.dev(), place.ino()))
        {
            bail!("--output would overwrite the input {name}: choose another file with -o FILE");
        }
        let input = compression::reader(file).with_context(|| format!("cannot read {name}"))?;
        Ok(Self::new(&name, input))
    }
}

impl<R: BufRead> Recording<R> {
    /// The lines of `input`; errors call it `name`.
    pub fn new(name: &str, input: R) -> Self {
        let name = name.to_owned();
        Self {
            name,
            input,
            number: 0,
            buffer: Vec::new(),
            cut: None,
            ended: false,
            later: None,
            skipped: Skipped::default(),
            any: false,
            first: None,
            several: false,
        }
    }

    /// The same, but several recordings may follow each other, as `cat` joins them.
    #[must_use]
    pub fn several(self) -> Self {
        Self { several: true, ..self }
    }

    /// The number of the line that was read last, and the line.
    #[must_use]
    pub fn last_line(&self) -> (u64, &[u8]) {
        (self.number, &self.buffer)
    }

    /// Messages about the lines that were skipped so far.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let file = &self.name;
        let later = self.later.map(|(schema, version)| {
            format!(
                "{file}: has schema {schema}, this version reads up to {SCHEMA}: new parts are skipped, \
                 changed parts may be shown wrongly; replay it with version {}",
                name(version)
            )
        });
        let skipped = self.skipped.first.map(|(kind, first)| {
            let lines = if self.skipped.count == 1 { "line" } else { "lines" };
            format!(
                "{file}: skipped {} {lines} of a later version, the first of type `{}` in line {first}",
                self.skipped.count,
                name(kind)
            )
        });
        let cut =
            self.cut.map(|number| format!("{file} line {number}: skipped, because it is cut off"));
        [later, skipped, cut].into_iter().flatten().collect()
    }

    /// Passes each line to `take` until it returns false, or after that many incidents.
    pub fn feed(
        &mut self,
        mut incidents: u64,
        mut take: impl FnMut(Line) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        while incidents > 0
            && let Some(line) = self.next().transpose()?
        {
            incidents -= u64::from(matches!(line, Line::Incident(_)));
            if !take(line)? {
                break;
            }
        }
        Ok(())
    }

    /// The next line, `None` at the end.
    fn read(&mut self) -> anyhow::Result<Option<Line>> {
        loop {
            self.buffer.clear();
            let mut limited = (&mut self.input).take(LONGEST);
            let read = limited.read_until(b'\n', &mut self.buffer).context("cannot read")?;
            if read == 0 {
                return if self.any { Ok(None) } else { Err(anyhow!("the recording is empty")) };
            }
            self.number += 1;
            if read as u64 == LONGEST {
                bail!("the line is longer than {LONGEST} bytes");
            }
            if self.buffer.trim_ascii().is_empty() {
                continue;
            }
            self.any = true;
            return match parse(self.buffer.trim_ascii_end()) {
                // A file of a rotated set begins with the line that the first one has.
                Ok(Line::Meta(meta)) if !self.several && self.first.as_ref() == Some(&meta) => {
                    continue;
                }
                Ok(Line::Meta(_)) if self.first.is_some() && !self.several => Err(anyhow!(
                    "a second recording begins here, but replay reads only one: split the file before this \
                     line, or use report, which reads all of them"
                )),
                Ok(line) => {
                    if let Line::Meta(meta) = &line {
                        if self.first.is_none() {
                            self.first = Some(meta.clone());
                        }
                        if meta.schema > SCHEMA {
                            self.later = Some((meta.schema, Word::new(&meta.version)));
                        }
                    }
                    Ok(Some(line))
                }
                Err(error) if error.is_data() && self.skip() => continue,
                Err(error) if self.is_cut(&error) => {
                    self.cut = Some(self.number);
                    Ok(None)
                }
                Err(error) if self.is_part(&error) && self.recording_follows()? => {
                    self.cut = Some(self.number);
                    continue;
                }
                Err(error) => Err(anyhow!(cause(&error))),
            };
        }
    }

    /// Skips the line just read, if a later version can have written it.
    fn skip(&mut self) -> bool {
        #[derive(Deserialize)]
        struct Typed {
            #[serde(rename = "type")]
            kind: String,
        }
        let Ok(Typed { kind }) = serde_json::from_slice(&self.buffer) else { return false };
        let skipped = self.later.is_some() || !TYPES.contains(&kind.as_str());
        if skipped {
            self.skipped.count += 1;
            self.skipped.first.get_or_insert((Word::new(&kind), self.number));
        }
        skipped
    }

    /// Whether another recording begins in the next line: `--append` ends a line that a crash cut off, and goes
    /// on after it.
    fn recording_follows(&mut self) -> anyhow::Result<bool> {
        let next = self.input.fill_buf().context("cannot read")?;
        let common = next.len().min(META.len());
        Ok(common > 0 && next[..common] == META[..common])
    }

    /// Whether the line just read ends in the middle of its JSON or of a character.
    fn is_cut(&self, error: &serde_json::Error) -> bool {
        !self.buffer.ends_with(b"\n") && self.is_part(error)
    }

    /// Whether the line just read is the beginning of a line.
    fn is_part(&self, error: &serde_json::Error) -> bool {
        let text = self.buffer.trim_ascii_end();
        error.is_eof() || str::from_utf8(text).is_err_and(|error| error.error_len().is_none())
    }
}

/// Reads a line. Most are incidents, and reading one as such takes less time: otherwise serde keeps a
/// copy of the whole line until it knows the type.
fn parse(line: &[u8]) -> serde_json::Result<Line> {
    if line.starts_with(INCIDENT)
        && let Ok(incident) = serde_json::from_slice::<Incident>(line)
    {
        return Ok(incident.into());
    }
    serde_json::from_slice(line)
}

/// What is wrong with a line, without serde_json's own line number, which is always 1.
fn cause(error: &serde_json::Error) -> String {
    if !error.is_data() {
        return format!("not JSON at column {}", error.column());
    }
    let text = error.to_string();
    let cause = text.split_once(" at line ").map_or(text.as_str(), |(cause, _)| cause);
    format!("not a line of etxtbsy-trace: {cause}")
}

impl<R: BufRead> Iterator for Recording<R> {
    type Item = anyhow::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let next = self.read();
        self.ended = !matches!(next, Ok(Some(_)));
        next.with_context(|| match self.number {
            0 => self.name.clone(),
            number => format!("{} line {number}", self.name),
        })
        .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::{Reason, Runtime, Suspect},
        output::{Output as _, json::Json, samples},
    };
    use serde_json::Value;
    use std::collections::BTreeSet;

    /// The samples as JSON lines.
    fn recorded() -> Vec<u8> {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        for line in samples::every_line() {
            json.line(&line).unwrap();
        }
        out
    }

    /// The lines read from `bytes`, the error if there is one, and the notes.
    fn read(bytes: &[u8]) -> (Vec<Line>, Option<String>, Vec<String>) {
        let mut recording = Recording::new("trace.jsonl", bytes);
        let (mut lines, mut error) = (Vec::new(), None);
        for line in &mut recording {
            match line {
                Ok(line) => lines.push(line),
                Err(found) => error = Some(format!("{found:#}")),
            }
        }
        let notes = recording.notes();
        (lines, error, notes)
    }

    #[test]
    fn written_lines_are_read_back_equal() {
        assert_eq!(read(&recorded()), (samples::every_line(), None, vec![]));
    }

    #[test]
    fn unknown_keys_and_empty_lines_are_skipped() {
        let text = String::from_utf8(recorded()).unwrap();
        let text = text.replace("\"errno\":", "\"newer\":{\"a\":[1]},\"errno\":");
        let text = text.replace('\n', "\r\n\n");
        assert_eq!(read(text.as_bytes()), (samples::every_line(), None, vec![]));
    }

    #[test]
    fn a_last_line_without_newline_is_read() {
        let bytes = recorded();
        assert_eq!(read(bytes.trim_ascii_end()), (samples::every_line(), None, vec![]));
    }

    #[test]
    fn a_last_line_that_is_cut_off_anywhere_is_skipped_and_reported() {
        let mut line = samples::race();
        line.path = Some("/家".to_owned());
        let mut bytes = Vec::new();
        Json::new(&mut bytes).line(&samples::meta().into()).unwrap();
        let whole = bytes.len();
        Json::new(&mut bytes).line(&line.into()).unwrap();
        for end in whole + 1..bytes.len() - 1 {
            let (lines, error, notes) = read(&bytes[..end]);
            assert_eq!((lines.len(), error), (1, None), "cut at {end}");
            assert_eq!(notes, ["trace.jsonl line 2: skipped, because it is cut off"]);
        }
    }

    #[test]
    fn errors_have_the_line_number() {
        let lost = r#"{"type":"lost","what":"x","count":1}"#;
        for (bad, cause) in [
            ("hello", "not JSON at column 1"),
            ("{\"type\":\"lost\"", "not JSON at column 14"),
            (
                "{\"type\":\"lost\",\"what\":\"x\"}",
                "not a line of etxtbsy-trace: missing field `count`",
            ),
            ("{\"type\":1}", "not a line of etxtbsy-trace: "),
            ("{\"kind\":\"lost\"}", "not a line of etxtbsy-trace: missing field `type`"),
        ] {
            let (lines, error, notes) = read(format!("{lost}\n\n{bad}\n{lost}\n").as_bytes());
            assert_eq!((lines.len(), notes), (1, vec![]), "{bad}");
            let error = error.unwrap();
            assert!(error.starts_with(&format!("trace.jsonl line 3: {cause}")), "{error}");
        }
    }

    /// Replaces each known word in `value` by an unknown one. `found` receives their keys.
    fn reword(value: &mut Value, key: &str, known: &[String], found: &mut BTreeSet<String>) {
        match value {
            Value::String(word) if !["type", "argv"].contains(&key) && known.contains(word) => {
                *word = format!("later-{word}");
                found.insert(key.to_owned());
            }
            Value::Array(list) => list.iter_mut().for_each(|it| reword(it, key, known, found)),
            Value::Object(map) => {
                map.iter_mut().for_each(|(key, value)| reword(value, key, known, found));
                if ["by_verdict", "unexplained_by"].contains(&key) && !map.is_empty() {
                    let words = std::mem::take(map).into_iter();
                    *map = words.map(|(word, count)| (format!("later-{word}"), count)).collect();
                    found.insert(key.to_owned());
                }
            }
            _ => {}
        }
    }

    /// The words that the schema lists.
    fn words(schema: &Value, found: &mut Vec<String>) {
        match schema {
            Value::Object(map) => {
                found.extend(map.get("const").and_then(|word| word.as_str()).map(str::to_owned));
                map.values().for_each(|value| words(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| words(value, found)),
            _ => {}
        }
    }

    #[test]
    fn unknown_words_are_read_and_kept() {
        let mut known = Vec::new();
        words(&crate::output::schema::trace(), &mut known);
        known.retain(|word| !TYPES.contains(&word.as_str()));
        let mut more = samples::unheld();
        let reason = Reason::SeenAfter;
        more.suspects.push(Suspect { pid: 9, comm: None, comm_b64: None, reason });
        more.unheld[0].opened.as_mut().unwrap().runtime = Some(Runtime::Go);
        let mut found = BTreeSet::new();
        for line in samples::every_line().into_iter().chain([more.into()]) {
            let mut value = serde_json::to_value(&line).unwrap();
            reword(&mut value, "", &known, &mut found);
            let (lines, error, notes) = read(value.to_string().as_bytes());
            assert_eq!((error, notes), (None, vec![]), "{value}");
            let mut out = Vec::new();
            Json::new(&mut out).line(&lines[0]).unwrap();
            assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), value);
        }
        let everywhere = [
            "as",
            "by_verdict",
            "direction",
            "evidence",
            "how",
            "kind",
            "place",
            "reason",
            "role",
            "runtime",
            "state",
            "unexplained_by",
            "via",
        ];
        assert_eq!(found, BTreeSet::from(everywhere.map(str::to_owned)));
    }

    #[test]
    fn lines_of_a_later_version_are_skipped_and_reported() {
        let mut later = samples::meta();
        (later.schema, later.version) = (SCHEMA + 1, "9.0.0".to_owned());
        let later = serde_json::to_string(&Line::from(later)).unwrap();
        let (lines, error, notes) = read(format!("{later}\n{{\"type\":\"lost\"}}\n").as_bytes());
        assert_eq!((lines.len(), error), (1, None));
        let wanted = [
            format!(
                "trace.jsonl: has schema {}, this version reads up to {SCHEMA}: new parts are skipped, \
                 changed parts may be shown wrongly; replay it with version 9.0.0",
                SCHEMA + 1
            ),
            "trace.jsonl: skipped 1 line of a later version, the first of type `lost` in line 2"
                .to_owned(),
        ];
        assert_eq!(notes, wanted);
        let (lines, error, notes) = read(b"{\"type\":\"heat_map\"}\n\n{\"type\":\"a\\u001b\"}\n");
        assert_eq!((lines.len(), error), (0, None));
        let wanted = "trace.jsonl: skipped 2 lines of a later version, the first of type \
                      `heat_map` in line 1";
        assert_eq!(notes, [wanted]);
    }

    #[test]
    fn types_lists_every_line_type() {
        let lines = samples::every_line();
        let mut types: Vec<String> = lines
            .iter()
            .map(|line| serde_json::to_value(line).unwrap()["type"].to_string())
            .collect();
        types.sort();
        types.dedup();
        let mut known = TYPES.map(|known| format!("\"{known}\""));
        known.sort();
        assert_eq!(types, known);
    }

    #[test]
    fn an_empty_file_is_an_error() {
        for (bytes, place) in [(&b""[..], ""), (b"\n\n", " line 2")] {
            let (lines, error, _) = read(bytes);
            assert!(lines.is_empty());
            let wanted = format!("trace.jsonl{place}: the recording is empty");
            assert_eq!(error, Some(wanted));
        }
    }

    #[test]
    fn a_second_recording_in_the_file_is_an_error() {
        let one = recorded();
        let mut later = samples::meta();
        later.time_ns += 1;
        let later = serde_json::to_vec(&Line::from(later)).unwrap();
        let (lines, error, _) = read(&[&one[..], &later].concat());
        assert_eq!(lines, samples::every_line());
        let line = samples::every_line().len() + 1;
        let wanted = format!("trace.jsonl line {line}: a second recording begins here");
        assert!(error.as_ref().is_some_and(|error| error.starts_with(&wanted)), "{error:?}");
    }

    #[test]
    fn files_of_a_rotated_set_that_follow_each_other_are_one_recording() {
        let lines = samples::every_line();
        let first = recorded();
        let meta = first.split_inclusive(|byte| *byte == b'\n').next().unwrap();
        assert_eq!(read(&[&first[..], meta].concat()), (lines, None, vec![]));
    }

    #[test]
    fn a_line_that_is_cut_off_before_another_recording_is_skipped_and_reported() {
        let one = recorded();
        let cut = one.len() - 20;
        let two = [&one[..cut], b"\n", &one].concat();
        let mut recording = Recording::new("trace.jsonl", &two[..]).several();
        let lines: Vec<Line> = recording.by_ref().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 2 * samples::every_line().len() - 1);
        let number = samples::every_line().len();
        let wanted = format!("trace.jsonl line {number}: skipped, because it is cut off");
        assert_eq!(recording.notes(), [wanted]);
    }

    #[test]
    fn several_recordings_in_one_file_are_read_where_that_is_wanted() {
        let recording = [recorded(), recorded()].concat();
        let lines = Recording::new("trace.jsonl", &recording[..]).several();
        let lines: Vec<Line> = lines.map(Result::unwrap).collect();
        assert_eq!(lines, [samples::every_line(), samples::every_line()].concat());
    }

    #[test]
    fn the_input_is_not_overwritten() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Recording::open(file.path(), Some(file.path())).err().unwrap();
        assert!(error.to_string().contains("would overwrite"), "{error}");
        assert!(Recording::open(file.path(), None).is_ok());
        assert!(Recording::open(Path::new("/"), None).is_err());
    }
}
