//! The lines as JSON, one object a line.

use super::Output;
use crate::event::Line;
use crate::text::escape;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};
use std::io::{self, Write};

/// Writes each line as one JSON object and flushes it.
pub struct Json<W> {
    out: W,
    buffer: Vec<u8>,
}

impl<W: Write> Json<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, buffer: Vec::new() }
    }

    /// Writes one line, and flushes it.
    pub fn write(&mut self, line: &impl Serialize) -> io::Result<()> {
        encode(line, &mut self.buffer)?;
        // One write, so that another process that writes to the same file does not split the line.
        self.out.write_all(&self.buffer)?;
        self.out.flush()
    }
}

/// Writes one line to `buffer`, in place of what is there.
pub(super) fn encode(line: &impl Serialize, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    line.serialize(&mut Serializer::with_formatter(&mut *buffer, Visible))?;
    buffer.push(b'\n');
    Ok(())
}

/// The length of `value` as [`Json`] writes it, without the newline.
#[must_use]
pub fn length(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut serializer = Serializer::with_formatter(Count(0), Visible);
    // Neither serializing nor counting can fail.
    let _ = value.serialize(&mut serializer);
    serializer.into_inner().0
}

impl<W: Write + Send> Output for Json<W> {
    fn line(&mut self, line: &Line) -> io::Result<()> {
        self.write(line)
    }
}

/// Compact JSON whose strings have no character that a terminal interprets or hides, because people
/// read these lines with `cat`. JSON itself requires `\u` escapes only below U+0020.
struct Visible;

impl Formatter for Visible {
    fn write_string_fragment<W: Write + ?Sized>(
        &mut self,
        out: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut plain = 0;
        for (at, c) in fragment.char_indices().filter(|(_, c)| escape::hidden(*c)) {
            out.write_all(&fragment.as_bytes()[plain..at])?;
            for unit in c.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}")?;
            }
            plain = at + c.len_utf8();
        }
        out.write_all(&fragment.as_bytes()[plain..])
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::output::samples;
    use proptest::prelude::*;

    /// What `Json` writes for `lines`.
    fn written(lines: &[Line]) -> String {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        for line in lines {
            json.line(line).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_reads_back_equal() {
        let lines = samples::every_line();
        let text = written(&lines);
        assert!(text.ends_with('\n'));
        let back: Vec<Line> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(back, lines);
    }

    #[test]
    fn unknown_is_null() {
        let text = written(&[samples::unexplained().into()]);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let victim = value["victim"].as_object().unwrap();
        assert!(victim.contains_key("cgroup") && victim["cgroup"].is_null());
        assert!(!victim.contains_key("comm_b64"));
    }

    #[test]
    fn each_line_is_one_write_and_one_flush() {
        /// Records the calls.
        #[derive(Default)]
        struct Recorder(Vec<&'static str>);
        impl Write for Recorder {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.push("write");
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                self.0.push("flush");
                Ok(())
            }
        }
        let mut json = Json::new(Recorder::default());
        json.line(&samples::meta().into()).unwrap();
        json.line(&samples::race().into()).unwrap();
        assert_eq!(json.out.0, ["write", "flush", "write", "flush"]);
    }

    #[test]
    fn a_closed_pipe_is_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let failed = Json::new(writer).line(&samples::race().into());
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    proptest! {
        #[test]
        fn hostile_strings_read_back_equal_and_stay_visible(strings in samples::strings()) {
            let line: Line = samples::with_strings(&samples::race(), &strings).into();
            let text = written(std::slice::from_ref(&line));
            prop_assert_eq!(text.matches('\n').count(), 1);
            prop_assert!(samples::harmless(&text));
            prop_assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line);
        }
    }
}
