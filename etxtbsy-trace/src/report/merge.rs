//! Reads recordings into a report, one line at a time.

use std::{
    ffi::OsStr,
    io::{self, BufRead},
    path::{Path, PathBuf},
};

use anyhow::{anyhow, bail};

use super::model::{Document, Report};
use crate::{
    output::recording::Recording,
    text::{escape, shown},
};

/// How many notes are kept of what was skipped.
const NOTES: usize = 20;
/// The columns of a line that cannot be read, in an error.
const FOUND: usize = 40;

/// Reads the recordings `files`, and those of the `baseline`. `written` is the output file, which must be
/// another file.
pub fn document(
    files: &[PathBuf],
    baseline: &[PathBuf],
    written: Option<&Path>,
) -> anyhow::Result<Document> {
    let stdin = files.iter().chain(baseline).filter(|path| path.as_os_str() == "-").count();
    if stdin > 1 {
        bail!("stdin (-) is given {stdin} times, but can be read only once: give it once");
    }
    let now = report(files, written)?;
    let before = if baseline.is_empty() { None } else { Some(report(baseline, written)?) };
    Ok(Document { now, before })
}

/// Reads recordings.
fn report(files: &[PathBuf], written: Option<&Path>) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for path in files {
        let is_stdin = path.as_os_str() == "-";
        let name = if is_stdin { "stdin".to_owned() } else { shown(path.as_os_str()) };
        add(&mut report, &name, Recording::open(path, written)?)?;
    }
    Ok(report)
}

/// Adds a recording.
pub(super) fn add<R: BufRead>(
    report: &mut Report,
    name: &str,
    recording: Recording<R>,
) -> anyhow::Result<()> {
    report.file(name);
    let mut recording = recording.several();
    while let Some(line) = recording.next() {
        match line {
            Ok(line) => report.add(&line),
            Err(error) => return Err(unreadable(name, &error, recording.last_line())),
        }
    }
    let room = NOTES.saturating_sub(report.notes.len());
    report.notes.extend(recording.notes().into_iter().take(room));
    Ok(())
}

/// The error of a recording, with what was found and what to do.
fn unreadable(name: &str, error: &anyhow::Error, (number, line): (u64, &[u8])) -> anyhow::Error {
    if error.chain().any(<dyn std::error::Error + 'static>::is::<io::Error>) {
        return anyhow!(
            "{error:#}: leave {name} out, or give the lines that can be read of it on stdin"
        );
    }
    let found = String::from_utf8_lossy(line.trim_ascii());
    if found.is_empty() {
        return anyhow!(
            "{error:#}: leave {name} out, or record it again: etxtbsy-trace run -o {name} -- CMD"
        );
    }
    let found = escape::short(&found, FOUND);
    let lines = match Path::new(name).extension().and_then(OsStr::to_str) {
        Some("gz") => format!("zcat {name} | sed {number}d"),
        Some("zst") => format!("zstdcat {name} | sed {number}d"),
        _ => format!("sed {number}d {name}"),
    };
    let rest = match name {
        "stdin" => format!("leave line {number} out"),
        _ => format!("to report on the other lines: {lines} | etxtbsy-trace report -"),
    };
    anyhow!("{error:#}, found `{found}`; {rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        event::Line,
        output::{Output as _, json::Json, samples},
    };

    fn recorded(lines: &[Line]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut json = Json::new(&mut out);
        for line in lines {
            json.line(line).unwrap();
        }
        out
    }

    fn read(bytes: &[u8]) -> anyhow::Result<Report> {
        let mut report = Report::default();
        add(&mut report, "trace.jsonl", Recording::new("trace.jsonl", bytes))?;
        Ok(report)
    }

    #[test]
    fn recordings_that_follow_each_other_are_merged() {
        let one = recorded(&samples::every_line());
        let report = read(&[one.clone(), one].concat()).unwrap();
        assert_eq!((report.incidents, report.explained), (12, 8));
        // The same session, so the same run.
        assert_eq!(report.runs.count(), 1);
    }

    #[test]
    fn errors_name_the_line_what_was_found_and_the_command_that_helps() {
        let error = |bytes: &[u8]| read(bytes).unwrap_err().to_string();
        let line = recorded(&[samples::meta().into()]);
        assert_eq!(
            error(&[&line[..], b"he\x1bllo\n"].concat()),
            "trace.jsonl line 2: not JSON at column 1, found `he\\x1bllo`; to report on the other \
             lines: sed 2d trace.jsonl | etxtbsy-trace report -"
        );
        assert_eq!(
            error(b""),
            "trace.jsonl: the recording is empty: leave trace.jsonl out, or record it again: \
             etxtbsy-trace run -o trace.jsonl -- CMD"
        );
    }

    #[test]
    fn the_command_that_helps_fits_the_file() {
        let error = |name: &str, bytes: &[u8]| {
            let recording = Recording::new(name, bytes);
            add(&mut Report::default(), name, recording).unwrap_err().to_string()
        };
        for (name, command) in [
            ("a.jsonl.gz", "lines: zcat a.jsonl.gz | sed 1d | etxtbsy-trace report -"),
            ("a.jsonl.zst", "lines: zstdcat a.jsonl.zst | sed 1d | etxtbsy-trace report -"),
            ("stdin", "; leave line 1 out"),
        ] {
            let error = error(name, b"hello\n");
            assert!(error.ends_with(command), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_damaged_is_no_wrong_line() {
        struct Damaged;
        impl io::Read for Damaged {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("bad checksum"))
            }
        }
        let recording = Recording::new("a.gz", io::BufReader::new(Damaged));
        let error = add(&mut Report::default(), "a.gz", recording).unwrap_err().to_string();
        assert_eq!(
            error,
            "a.gz: cannot read: bad checksum: leave a.gz out, or give the lines that can be read of it \
             on stdin"
        );
    }

    #[test]
    fn what_a_later_version_wrote_is_skipped_and_noted() {
        let report =
            read(b"{\"type\":\"heat_map\"}\n{\"type\":\"lost\",\"what\":\"x\",\"count\":2}\n");
        let report = report.unwrap();
        assert_eq!(report.runs.totals().lost, 2);
        assert!(
            report.notes[0].contains("skipped 1 line of a later version"),
            "{:?}",
            report.notes
        );
    }

    #[test]
    fn stdin_is_read_once() {
        let stdin = [PathBuf::from("-")];
        let error = document(&stdin, &stdin, None).unwrap_err().to_string();
        assert!(error.starts_with("stdin (-) is given 2 times"), "{error}");
    }
}
