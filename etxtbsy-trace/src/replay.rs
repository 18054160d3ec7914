//! Recorded JSON lines, read one at a time.

use crate::{
    cli::shown,
    lines::{Line, SCHEMA},
};
use anyhow::{Context as _, anyhow, bail};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

/// Longer than any line with the arguments of a hundred holders; what is longer is no recording.
const LONGEST: u64 = 64 << 20;

/// The lines of a recording. Of a line that is cut off at the end, as by a full disk or a crash,
/// only [`Recording::cut`] tells.
#[allow(clippy::struct_excessive_bools, reason = "facts that have nothing to do with each other")]
pub struct Recording<R> {
    name: String,
    input: R,
    number: u64,
    buffer: Vec<u8>,
    cut: bool,
    ended: bool,
    /// Whether there was a line that is not empty.
    any: bool,
    /// Whether the first line of a trace was read.
    begun: bool,
}

impl Recording<Box<dyn BufRead + Send>> {
    /// Opens a file (`-`: stdin). `written` is the file that is about to be written, which must not
    /// be the same.
    pub fn open(path: &Path, written: Option<&Path>) -> anyhow::Result<Self> {
        if path == "-" {
            return Ok(Self::new("stdin", Box::new(BufReader::new(io::stdin()))));
        }
        let name = shown(path.as_os_str());
        let file = File::open(path).with_context(|| format!("cannot open {name}"))?;
        let place = file.metadata().with_context(|| format!("cannot look at {name}"))?;
        if place.is_dir() {
            bail!("cannot read {name}: it is a directory");
        }
        // What cannot be looked at does not exist yet, or fails when it is opened.
        let target = written.and_then(|path| path.metadata().ok());
        if place.is_file()
            && target.is_some_and(|it| (it.dev(), it.ino()) == (place.dev(), place.ino()))
        {
            bail!(
                "--output would overwrite {name}, which is being read; name another file: -o FILE"
            );
        }
        Ok(Self::new(&name, Box::new(BufReader::new(file))))
    }
}

impl<R: BufRead> Recording<R> {
    /// The lines of `input`, called `name` in errors.
    pub fn new(name: &str, input: R) -> Self {
        let name = name.to_owned();
        Self {
            name,
            input,
            number: 0,
            buffer: Vec::new(),
            cut: false,
            ended: false,
            any: false,
            begun: false,
        }
    }

    /// What to say about a last line that was cut off, if it was.
    pub fn cut(&self) -> Option<String> {
        let Self { name, number, .. } = self;
        self.cut.then(|| format!("{name} line {number}: cut off; it is left out"))
    }

    /// Hands over each line, up to so many incidents, as long as `take` wants more.
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
            let read = limited.read_until(b'\n', &mut self.buffer).context("cannot read on")?;
            if read == 0 {
                return if self.any {
                    Ok(None)
                } else {
                    Err(anyhow!("it is empty: nothing was recorded"))
                };
            }
            self.number += 1;
            if read as u64 == LONGEST {
                bail!("longer than {LONGEST} bytes");
            }
            if self.buffer.trim_ascii().is_empty() {
                continue;
            }
            self.any = true;
            return match serde_json::from_slice(self.buffer.trim_ascii_end()) {
                Ok(Line::Meta(meta)) if meta.schema > SCHEMA => Err(anyhow!(
                    "schema {}, but this version reads up to {SCHEMA}; replay it with version {}",
                    meta.schema,
                    meta.version
                )),
                Ok(Line::Meta(_)) if self.begun => Err(anyhow!(
                    "a second recording begins here, and replay shows one; split the file before this line"
                )),
                Ok(line) => {
                    self.begun |= matches!(line, Line::Meta(_));
                    Ok(Some(line))
                }
                Err(error) if self.is_cut(&error) => {
                    self.cut = true;
                    Ok(None)
                }
                Err(error) => Err(anyhow!(cause(&error))),
            };
        }
    }

    /// Whether the line just read ends before its JSON, or its last character, does.
    fn is_cut(&self, error: &serde_json::Error) -> bool {
        let split = str::from_utf8(&self.buffer).is_err_and(|error| error.error_len().is_none());
        !self.buffer.ends_with(b"\n") && (error.is_eof() || split)
    }
}

/// What is wrong with a line; serde_json counts lines, too, and would always say 1.
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
    use crate::output::{Output as _, json::Json, samples};

    /// The samples, as they are written.
    fn recorded() -> Vec<u8> {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        for line in samples::every_line() {
            json.line(&line).unwrap();
        }
        out
    }

    /// What is read of `bytes`, the error if there is one, and what is said of a cut.
    fn read(bytes: &[u8]) -> (Vec<Line>, Option<String>, Option<String>) {
        let mut recording = Recording::new("trace.jsonl", bytes);
        let (mut lines, mut error) = (Vec::new(), None);
        for line in &mut recording {
            match line {
                Ok(line) => lines.push(line),
                Err(found) => error = Some(format!("{found:#}")),
            }
        }
        let cut = recording.cut();
        (lines, error, cut)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&recorded()), (samples::every_line(), None, None));
    }

    #[test]
    fn unknown_keys_and_empty_lines_are_passed_over() {
        let text = String::from_utf8(recorded()).unwrap();
        let text = text.replace("\"errno\":", "\"newer\":{\"a\":[1]},\"errno\":");
        let text = text.replace('\n', "\r\n\n");
        assert_eq!(read(text.as_bytes()), (samples::every_line(), None, None));
    }

    #[test]
    fn a_last_line_without_its_newline_counts() {
        let bytes = recorded();
        assert_eq!(read(bytes.trim_ascii_end()), (samples::every_line(), None, None));
    }

    #[test]
    fn wherever_the_last_line_is_cut_off_it_is_left_out_and_told() {
        let mut line = samples::race();
        line.path = Some("/家".to_owned());
        let mut bytes = Vec::new();
        Json::new(&mut bytes).line(&samples::meta().into()).unwrap();
        let whole = bytes.len();
        Json::new(&mut bytes).line(&line.into()).unwrap();
        for end in whole + 1..bytes.len() - 1 {
            let (lines, error, cut) = read(&bytes[..end]);
            assert_eq!((lines.len(), error), (1, None), "cut at {end}");
            assert_eq!(cut.as_deref(), Some("trace.jsonl line 2: cut off; it is left out"));
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let lost = r#"{"type":"lost","what":"x","count":1}"#;
        for (bad, cause) in [
            ("hello", "not JSON at column 1"),
            ("{\"type\":\"lost\"", "not JSON at column 14"),
            (
                "{\"type\":\"lost\",\"what\":\"x\"}",
                "not a line of etxtbsy-trace: missing field `count`",
            ),
            (
                "{\"type\":\"other\"}",
                "not a line of etxtbsy-trace: unknown variant `other`, expected one of",
            ),
        ] {
            let (lines, error, cut) = read(format!("{lost}\n\n{bad}\n{lost}\n").as_bytes());
            assert_eq!((lines.len(), cut), (1, None), "{bad}");
            let error = error.unwrap();
            assert!(error.starts_with(&format!("trace.jsonl line 3: {cause}")), "{error}");
        }
        let mut newer = samples::meta();
        newer.schema = SCHEMA + 1;
        newer.version = "9.0.0".to_owned();
        let newer = serde_json::to_string(&Line::from(newer)).unwrap();
        let (_, error, _) = read(newer.as_bytes());
        let wanted = format!(
            "trace.jsonl line 1: schema {}, but this version reads up to {SCHEMA}; replay it with \
             version 9.0.0",
            SCHEMA + 1
        );
        assert_eq!(error, Some(wanted));
    }

    #[test]
    fn an_empty_file_is_no_recording() {
        for (bytes, place) in [(&b""[..], ""), (b"\n\n", " line 2")] {
            let (lines, error, _) = read(bytes);
            assert!(lines.is_empty());
            let wanted = format!("trace.jsonl{place}: it is empty: nothing was recorded");
            assert_eq!(error, Some(wanted));
        }
    }

    #[test]
    fn of_two_recordings_in_one_file_the_first_is_read() {
        let one = recorded();
        let (lines, error, _) = read(&[&one[..], &one].concat());
        assert_eq!(lines, samples::every_line());
        let line = samples::every_line().len() + 1;
        let wanted = format!("trace.jsonl line {line}: a second recording begins here");
        assert!(error.as_ref().is_some_and(|error| error.starts_with(&wanted)), "{error:?}");
    }

    #[test]
    fn the_file_that_is_read_is_not_overwritten() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Recording::open(file.path(), Some(file.path())).err().unwrap();
        assert!(error.to_string().contains("would overwrite"), "{error}");
        assert!(Recording::open(file.path(), None).is_ok());
        assert!(Recording::open(Path::new("/"), None).is_err());
    }
}
