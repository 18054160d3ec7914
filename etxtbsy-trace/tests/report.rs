//! `report` as a user calls it. It needs neither root nor eBPF.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use flate2::{Compression, write::GzEncoder};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};

/// Runs `report` with these arguments and `input` on its stdin.
fn report(args: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etxtbsy-trace"));
    test_support::fed(command.arg("report").args(args), input).unwrap()
}

fn stderr(run: &Output) -> String {
    String::from_utf8(run.stderr.clone()).unwrap()
}

/// The path of a file of the tests.
fn recording(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

fn race() -> Vec<u8> {
    fs::read(recording("recordings/race.jsonl")).unwrap()
}

#[test]
fn many_files_are_one_report() {
    let race = recording("recordings/race.jsonl");
    let other = recording("recordings/interpreter.jsonl");
    let run = report(&[race.to_str().unwrap(), other.to_str().unwrap()], b"");
    assert_eq!((run.status.code(), stderr(&run).as_str()), (Some(0), ""));
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.starts_with("5 incidents in 2 groups\n"), "{text}");
}

#[test]
fn every_format_is_written_to_stdout_and_to_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    for format in ["text", "markdown", "github", "junit", "html", "perfetto"] {
        let printed = report(&["-", "--format", format], &race());
        assert_eq!((printed.status.code(), stderr(&printed).as_str()), (Some(0), ""), "{format}");
        assert!(!printed.stdout.is_empty(), "{format}");
        let args = ["-", "--format", format, "-o", file.to_str().unwrap()];
        let written = report(&args, &race());
        assert_eq!((written.status.code(), written.stdout.len()), (Some(0), 0), "{format}");
        assert_eq!(fs::read(&file).unwrap(), printed.stdout, "{format}");
    }
}

#[test]
fn compressed_recordings_are_read() {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&race()).unwrap();
    let plain = report(&["-"], &race()).stdout;
    for bytes in [gzip.finish().unwrap(), compress_to_vec(&race()[..], CompressionLevel::Fastest)] {
        assert_eq!(report(&["-"], &bytes).stdout, plain);
    }
}

#[test]
fn a_baseline_shows_what_changed() {
    let before = recording("recordings/still-open.jsonl");
    let run = report(&["-", "--baseline", before.to_str().unwrap()], &race());
    let text = String::from_utf8(run.stdout).unwrap();
    let title = "4 incidents in 1 group (groups against the baseline: 1 new, 1 gone)\n";
    assert!(text.starts_with(title), "{text}");
}

#[test]
fn lines_of_a_later_version_are_skipped_and_reported() {
    let later = recording("later/types-and-keys.jsonl");
    let run = report(&[later.to_str().unwrap()], b"");
    assert_eq!(run.status.code(), Some(0));
    let note = "skipped 3 lines of a later version, the first of type `heat_map` in line 2\n";
    assert!(stderr(&run).ends_with(note), "{}", stderr(&run));
}

#[test]
fn errors_are_one_line_and_no_report_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    let broken = [&race()[..], b"hello\n"].concat();
    let run = report(&["-", "-o", file.to_str().unwrap()], &broken);
    assert_eq!((run.status.code(), run.stdout.len()), (Some(125), 0));
    assert_eq!(
        stderr(&run),
        "etxtbsy-trace: stdin line 7: not JSON at column 1, found `hello`; leave line 7 out\n"
    );
    assert!(!file.exists());

    let empty = report(&["-"], b"");
    assert!(stderr(&empty).starts_with("etxtbsy-trace: stdin: the recording is empty: "));
    let missing = report(&["/no/such/file"], b"");
    assert_eq!(
        stderr(&missing),
        "etxtbsy-trace: cannot open /no/such/file: No such file or directory (os error 2)\n"
    );
    let twice = report(&["-", "-"], &race());
    assert!(stderr(&twice).starts_with("etxtbsy-trace: stdin (-) is given 2 times"));
    for run in [empty, missing, twice] {
        assert_eq!((run.status.code(), stderr(&run).lines().count()), (Some(125), 1));
    }
}

#[test]
fn the_input_is_not_overwritten() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("trace.jsonl");
    fs::write(&file, race()).unwrap();
    let run = report(&[file.to_str().unwrap(), "-o", file.to_str().unwrap()], b"");
    assert_eq!(run.status.code(), Some(125));
    assert_eq!(fs::read(&file).unwrap(), race());
}

const EVIL: &str = "</script><img src=x onerror=document.title='evil'>";

/// In a browser: no name becomes HTML or a script, and the page fits narrow and wide windows in both themes.
#[test]
fn html_in_chromium() {
    if !Command::new("chromium").arg("--version").output().is_ok_and(|run| run.status.success()) {
        test_support::skip!("chromium is not installed");
    }
    let directory = tempfile::tempdir().unwrap();
    let page = directory.path().join("report.html");
    let lines = race()
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(evil)
        .collect::<String>();
    let written =
        report(&["-", "--format", "html", "-o", page.to_str().unwrap()], lines.as_bytes());
    assert_eq!((written.status.code(), stderr(&written).as_str()), (Some(0), ""));
    // Without the page's policy, which allows no script but its own; the title then says how many pixels have no room.
    let probe = "<script>addEventListener('load', () => document.title += ' scrolls ' + (document.documentElement.scrollWidth - innerWidth))</script>";
    let html = fs::read_to_string(&page).unwrap();
    assert!(html.contains("&lt;img src=x"), "the name is shown");
    let open = html.replace("Content-Security-Policy", "no-policy");
    assert_ne!(open, html);
    fs::write(&page, open.replace("</body>", &format!("{probe}</body>"))).unwrap();
    for (width, dark) in [(400, false), (400, true), (1400, false), (1400, true)] {
        let mut browser = Command::new("chromium");
        browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]);
        browser.args(["--virtual-time-budget=2000", &format!("--window-size={width},1000")]);
        if dark {
            browser.arg("--force-dark-mode");
        }
        let profile = format!("--user-data-dir={}", directory.path().join("profile").display());
        let run = browser.arg(profile).arg(format!("file://{}", page.display())).output().unwrap();
        let dom = String::from_utf8_lossy(&run.stdout);
        let title = dom.split_once("<title>").unwrap().1.split_once("</title>").unwrap().0;
        let missing: i32 = title.rsplit_once(" scrolls ").expect(title).1.parse().unwrap();
        assert!(title.starts_with("ETXTBSY: 4 incidents in 1 group"), "{title}");
        assert!(missing <= 0, "{missing} pixels more than {width}");
    }
}

/// A line in which every path and name ends like HTML.
fn evil(line: &[u8]) -> String {
    fn change(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(all) => {
                for (key, value) in all {
                    match value {
                        serde_json::Value::String(text)
                            if ["path", "comm", "exe", "cwd"].contains(&key.as_str()) =>
                        {
                            text.push_str(EVIL);
                        }
                        value => change(value),
                    }
                }
            }
            serde_json::Value::Array(all) => all.iter_mut().for_each(change),
            _ => {}
        }
    }
    let mut value = serde_json::from_slice(line).unwrap();
    change(&mut value);
    value.to_string() + "\n"
}
