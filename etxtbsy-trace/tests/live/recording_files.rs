//! The file of `-o` on a machine that runs for days: it is kept, rotated, opened again, and its disk fills up.

use crate::faults::small_disk;
use crate::support::{BINARY, NOBODY, Process, Trace, Turn, tracer};
use etxtbsy_trace::event::{Line, LossKind};
use etxtbsy_trace::output::recording::Recording;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::Path;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};
use test_support::skip;

/// A script that makes that many failures.
fn failures(count: usize) -> String {
    let one = format!("{BINARY} workload still-open >/dev/null || exit 1");
    format!("i=0; while [ $i -lt {count} ]; do {one}; i=$((i+1)); done")
}

/// The lines of a file, which may be compressed.
fn lines(path: &Path) -> Vec<Line> {
    Recording::open(path, None).unwrap().several().map(Result::unwrap).collect()
}

fn incidents(lines: &[Line]) -> Vec<u64> {
    let ids = lines.iter().filter_map(|line| match line {
        Line::Incident(incident) => Some(incident.id),
        _ => None,
    });
    ids.collect()
}

/// Waits until something is true.
#[track_caller]
fn wait_until(what: &str, is: impl Fn() -> bool) {
    let began = Instant::now();
    while !is() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_recording_is_overwritten_or_appended_to_only_on_request() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let (output, marker) = (turn.output(), turn.dir.path().join("started"));
    let run = |option: &[&str]| {
        let mut run = tracer();
        run.arg("run").args(option).arg("-o").arg(&output).args(["--", "touch"]).arg(&marker);
        Process::start(&mut run).wait()
    };
    // Of no one: an empty file has no content.
    fs::write(&output, "").unwrap();
    assert_eq!(run(&[]).code, Some(0));
    fs::remove_file(&marker).unwrap();
    let first = fs::read(&output).unwrap();
    let size = format!("trace.jsonl: it has {} bytes already", first.len());
    run(&[]).assert_refused(125, &[&size, "--append", "--overwrite"]);
    assert!(!marker.exists());
    assert_eq!(fs::read(&output).unwrap(), first);

    assert_eq!(run(&["--append"]).code, Some(0));
    let both = fs::read(&output).unwrap();
    assert!(both.starts_with(&first) && both.len() > first.len());
    let metas = lines(&output).iter().filter(|line| matches!(line, Line::Meta(_))).count();
    assert_eq!(metas, 2);
    let replay = Process::start(tracer().arg("replay").arg(&output)).wait();
    assert!(replay.stderr.contains("use report, which reads all"), "{}", replay.stderr);
    let report = Process::start(tracer().arg("report").arg(&output)).wait();
    assert_eq!(report.code, Some(0), "{}", report.stderr);

    assert_eq!(run(&["--overwrite"]).code, Some(0));
    Trace::parse(&fs::read_to_string(&output).unwrap());
}

#[test]
fn rotated_files_are_complete_and_belong_to_the_caller_of_sudo() {
    const FAILURES: u64 = 12;
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    chown(turn.dir.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    let output = turn.output();
    let id = NOBODY.to_string();
    let mut run = tracer();
    run.env("SUDO_UID", &id).env("SUDO_GID", &id).env("SUDO_USER", "nobody").current_dir("/");
    run.args(["run", "--user", "0", "--rotate", "8K,100", "-o"]).arg(&output);
    run.args(["--", "sh", "-c", &failures(FAILURES as usize)]);
    let ended = Process::start(&mut run).wait();
    assert_eq!((ended.code, ended.stderr.contains("cannot")), (Some(0), false), "{}", ended.stderr);
    let mut files: Vec<_> =
        fs::read_dir(turn.dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_string_lossy().contains("trace.jsonl"));
    assert!(files.len() > 2, "{files:?}");
    let mut all = Vec::new();
    for file in &files {
        assert_eq!(fs::metadata(file).unwrap().uid(), NOBODY, "{file:?}");
        let lines = lines(file);
        assert!(matches!(lines[0], Line::Meta(_)), "{file:?}");
        all.extend(incidents(&lines));
    }
    all.sort_unstable();
    assert_eq!(all, (1..=FAILURES).collect::<Vec<_>>());
    assert!(matches!(lines(&output)[..], [.., Line::Summary(_)]));
    // Of an older one, the next rotation may have ended the compression.
    assert!(turn.dir.path().join("trace.jsonl.1.zst").exists(), "{files:?}");
    // They are one recording.
    let report = Process::start(tracer().arg("report").args(&files)).wait();
    assert!(report.stdout.contains("12 incidents"), "{}", report.stdout);
}

#[test]
fn writing_continues_when_a_full_disk_has_room_again() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    let disk = small_disk(turn.dir.path());
    let (output, filler) = (disk.0.join("trace.jsonl"), disk.0.join("filler"));
    let errors = turn.dir.path().join("errors");
    fs::write(&errors, "").unwrap();
    let script = format!(
        "{}; head -c 1M /dev/zero >\"$1\"; {}; until grep -q 'No space left' \"$0\"; do :; done; \
         rm \"$1\"; {}",
        failures(3),
        failures(4),
        failures(2)
    );
    let all = format!("exec \"$@\" 2>>{}", errors.display());
    // Without stacks, because the disk has to have room for all lines.
    let mut shell = Command::new("sh");
    shell.args(["-c", &all, "sh", BINARY, "run", "--json", "--stacks", "never", "-o"]).arg(&output);
    shell.args(["--", "sh", "-c", &script]).arg(&errors).arg(&filler).env_remove("SUDO_UID");
    let ended = Process::start(&mut shell).wait();
    let errors = fs::read_to_string(&errors).unwrap();
    assert_eq!(ended.code, Some(0), "{errors}");
    let of_output: Vec<&str> = errors.lines().filter(|line| line.contains("trace.jsonl")).collect();
    let [full, room] = of_output[..] else { panic!("{errors}") };
    assert!(full.contains("lines wait until there is room"), "{full}");
    assert!(room.contains("there is room again"), "{room}");
    // All of them waited in memory.
    assert_eq!(fs::read_to_string(&output).unwrap(), ended.stdout);
    let trace = Trace::parse(&ended.stdout);
    assert_eq!(trace.incidents.len(), 9);
    assert!(trace.lost.iter().all(|lost| lost.kind != LossKind::OutputFull));
}

#[test]
fn sighup_opens_the_file_of_a_service_again() {
    let Some(turn) = Turn::take_as_root() else {
        return;
    };
    if File::open("/dev/tty").is_ok() {
        skip!("with a terminal, SIGHUP ends tracing");
    }
    let (output, moved) = (turn.output(), turn.dir.path().join("moved"));
    let mut service = tracer();
    service.args(["--pid", &std::process::id().to_string(), "-o"]).arg(&output);
    let service = Process::start(&mut service);
    let has = |kind: &str| {
        let start = format!("{{\"type\":\"{kind}\"");
        fs::read_to_string(&output).is_ok_and(|text| text.contains(&start))
    };
    wait_until("the first line", || has("meta"));
    Process::start(Command::new("sh").args(["-c", &failures(1)])).wait();
    wait_until("an incident", || has("incident"));
    fs::rename(&output, &moved).unwrap();
    service.signal(Signal::SIGHUP);
    wait_until("the first line again", || has("meta"));
    Process::start(Command::new("sh").args(["-c", &failures(1)])).wait();
    wait_until("another incident", || has("incident"));
    service.signal(Signal::SIGTERM);
    let ended = service.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let [old, new] = [&moved, &output].map(|path| lines(path.as_path()));
    assert!(matches!((&old[0], &new[0]), (Line::Meta(old), Line::Meta(new)) if old == new));
    assert_eq!((incidents(&old), incidents(&new)), (vec![1], vec![2]));
    assert!(matches!(new.last(), Some(Line::Summary(_))));
}

/// Without a file, or with a terminal, it ends tracing.
#[test]
fn sighup_ends_a_session_without_a_file() {
    let Some(_turn) = Turn::take_as_root() else {
        return;
    };
    let tracing = Process::start(tracer().args(["--json", "--pid", "1"]));
    tracing.line();
    tracing.signal(Signal::SIGHUP);
    let ended = tracing.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stdout.contains("\"summary\""), "{}", ended.stdout);
}
